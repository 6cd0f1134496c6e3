"""Maps of whole images by many heads at once, and their scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.data.manifest import read_pair
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study.evaluation import Row, edited_truth
from dinolizer.study.heads import Windows
from dinolizer.study.metrics import counts
from dinolizer.study.samples import Sample, enlarged, own_logits
from dinolizer.training.heads import Heads

Maps = Callable[[NDArray[np.uint8], Row], Tensor]
"""Takes an image, uint8 (H, W, 3), and its row of the manifest; gives logits (K, H, W)."""


def image_rows(
    maps: Maps, manifest: pd.DataFrame, names: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Scores of every image by each of K heads; a logit over 0 is marked.

    Parameters
    ----------
    names
        What each of the K heads is, as columns.

    Returns
    -------
    A row per image and head: `names`, ``image, group, family, kind, area``; ``iou`` and ``recall``,
    nan without an edit; ``marked``, the marked share of the image.
    """
    lines = []
    for row in manifest.to_dict("records"):
        image, mask = read_pair(row)
        truth = edited_truth(mask, row)
        about = {name: row[name] for name in ("image", "group", "family", "kind", "area")}
        marked = (maps(image, row) > 0).cpu().numpy()
        for name, of_head in zip(names, marked, strict=True):
            found = counts(of_head, truth)
            edited = found.tp + found.fn
            recall = found.tp / edited if edited else float("nan")
            scores = {"iou": found.iou, "recall": recall, "marked": found.marked}
            lines.append({**name, **about, **scores})
    return pd.DataFrame(lines)


class Together(nn.Module):
    """Heads of several shapes: tokens ``(N, D, h, w)`` to the logits of all heads' channels."""

    def __init__(self, shapes: Iterable[Heads]) -> None:
        super().__init__()
        self.shapes = nn.ModuleList(shapes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(N, K, h, w)``."""
        return torch.cat([heads(tokens).flatten(1, 2) for heads in self.shapes], dim=1)


def own_maps(
    backbone: Backbone,
    shapes: Sequence[Heads],
    tokens: Tensor,
    sample: Sample,
    windows: Windows | None,
    manifest: pd.DataFrame,
) -> Maps:
    """Maps by the heads that never met an image's photograph: from its windows' tokens where they
    are there, else by the localizer.

    Parameters
    ----------
    shapes
        As for `maps_of_scales`.
    tokens, sample, windows
        Of `dinolizer.study.samples.read_sample`.
    manifest
        The images that the windows are of.
    """
    if windows is None:
        return maps_of_scales(backbone, shapes, sample)
    logits = torch.cat([own_logits(heads, tokens, sample) for heads in shapes], dim=1)
    return maps_of_windows(logits, windows, manifest)


def maps_of_windows(logits: Tensor, windows: Windows, manifest: pd.DataFrame) -> Maps:
    """Maps from the logits of windows that are there already, as the localizer draws them.

    Parameters
    ----------
    logits
        ``(N * P, K, h, w)``, see `dinolizer.study.samples.own_logits`.
    windows
        Of the N images of the manifest.
    """
    places = windows.places(manifest)
    return lambda _image, row: windows.assemble(logits[places[row["image"]]], "mean")


def maps_of_scales(
    backbone: Backbone, shapes: Sequence[Heads], sample: Sample, scales: Sequence[float] = (1.0,)
) -> Maps:
    """Maps by the localizer, of the image as it is and enlarged.

    Parameters
    ----------
    shapes
        With K heads in all, those of F folds among them, see `dinolizer.study.samples.own_logits`.
    sample
        Says which photograph is in which fold.
    scales
        Z of them. Windows of an enlarged image lie side by side, else at the backbone's stride.

    Returns
    -------
    Maps of ``Z * K / F`` channels: the mean logits of the first scale, of the first two, ...
    """
    folds = len(sample.train)
    tested = sample.fold >= 0
    fold_of = dict(zip(sample.rows["group"][tested], sample.fold[tested].tolist(), strict=True))
    card = replace(card_for(backbone), reduce="mean")
    cards = [card if scale == 1 else replace(card, stride=card.window) for scale in scales]
    of_folds = [Together(heads.select(fold=fold) for heads in shapes) for fold in range(folds)]

    def maps(image: NDArray[np.uint8], row: Row) -> Tensor:
        head = of_folds[fold_of[row["group"]] if folds > 1 else 0]
        of_scales = []
        for scale, settings in zip(scales, cards, strict=True):
            logits = Localizer(backbone, head, settings).logits(enlarged(image, scale))
            size = image.shape[:2]
            of_scales.append(F.interpolate(logits[None], size, mode="bilinear", antialias=True)[0])
        steps = torch.arange(1, len(scales) + 1, device=of_scales[0].device)
        means = torch.stack(of_scales).cumsum(0) / steps[:, None, None, None]
        return means.flatten(0, 1)

    return maps
