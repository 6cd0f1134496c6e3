"""Heads that never met what they are tested on, and the maps that they draw."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinolizer.errors import say
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for, load_head, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.specs import Reduce
from dinolizer.model.weights import head_file, weights_hash
from dinolizer.model.windows import Plan
from dinolizer.paths import cache_dir
from dinolizer.study.cache import cache_key, cached, images_hash, probe_hash
from dinolizer.study.evaluation import Image, Row
from dinolizer.study.samples import POLICY, Dataset, Sample, window_sample
from dinolizer.training import heads as training
from dinolizer.training.crops import Crops
from dinolizer.training.heads import Fit, Heads, Loss
from dinolizer.training.recipes import history_path, train
from dinolizer.training.tokens import extracted

EPOCHS = 20
Logits = Callable[[Image, Row], Tensor]
"""From an image, uint8 (H, W, 3), and its row to logits, float32 (K, H, W), on the CPU."""


@dataclass(frozen=True)
class Fits:
    """The heads of a study: ``whole`` is fitted on all that may be trained on, ``left_out`` maps
    each photograph to the head fitted on all the others (empty if there is a training set)."""

    left_out: dict[str, Fit]
    whole: Fit

    @property
    def hash(self) -> str:
        """SHA-256 of all heads' weights."""
        fits = (*self.left_out.values(), self.whole)
        return weights_hash(nn.ModuleList(one.head for one in fits))

    def heads(self, manifest: pd.DataFrame) -> dict[str, nn.Conv2d]:
        """From each photograph of a manifest to the head that never met it."""
        return {of: self.left_out.get(of, self.whole).head for of in set(manifest["group"])}


def fit(
    dataset: Dataset, backbone: Backbone, epochs: int = EPOCHS, seed: int = 0, policy: str = POLICY
) -> Fits:
    """Fit the heads of a study, or read them from the cache; none meets a held-out generator. With
    a training set it is one (see `dinolizer.training.recipes.train`). Without, every photograph
    gets one that is fitted on the images of all others, and a last one is fitted on all; a single
    photograph has no others, and gets the head that comes with the backbone."""
    manifest = dataset.test if dataset.train is None else dataset.train
    if dataset.train is None and manifest["group"].nunique() == 1:
        say(f"No other photograph to fit a head on: that of {backbone.spec.name!r} is used")
        return Fits({}, Fit(load_head(head_file(backbone.spec.name), backbone)[1], pd.DataFrame()))
    crop, shares = Crops(manifest.iloc[:1], policy, backbone.spec.window, backbone.spec.patch)[0]
    key = cache_key(
        images=images_hash(manifest),
        backbone=backbone.hash,
        code=(backbone.fingerprint, _fit_hash(), probe_hash(crop, shares)),
        settings=(dataset.train is None, epochs, seed, policy),
    )
    if dataset.train is not None:
        path = cache_dir() / "heads" / f"{key}.safetensors"
        if not path.exists():
            train(manifest, backbone, path, policy=policy, epochs=epochs, seed=seed, crops="fresh")
        return Fits({}, Fit(load_head(path, backbone)[1], pd.read_csv(history_path(path))))

    def compute() -> pd.DataFrame:
        tokens, sample = window_sample(dataset, backbone, policy)
        seen = torch.tensor(sample.rows["seen"].to_numpy(bool))[None]
        members = torch.cat([sample.train, seen])  # the last head is fitted on all
        settings: dict[str, Any] = {"epochs": epochs, "seed": seed, "validation": ~members & seen}
        fits = training.fit_heads(tokens, sample.targets, members, **settings)
        for one, met in zip(fits, members, strict=True):
            training.temper(one.head, tokens[met], sample.targets[met])
        lines = (
            {name: of.flatten().tolist() for name, of in one.head.state_dict().items()}
            | one.history.to_dict("list")
            for one in fits
        )
        return pd.DataFrame(list(lines))

    fits = []
    for row in cached("heads", key, compute).to_dict("records"):
        weight, bias = (torch.tensor(row.pop(name)) for name in ("weight", "bias"))
        head = make_head(len(weight) // len(bias), len(bias))
        head.load_state_dict({"weight": weight.view_as(head.weight), "bias": bias})
        fits.append(Fit(head.eval().requires_grad_(False), pd.DataFrame(row)))
    photos = np.unique(manifest["group"]).tolist()
    return Fits(dict(zip(photos, fits[:-1], strict=True)), fits[-1])


@cache
def _fit_hash() -> str:
    tokens = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    targets, every = (tokens[:, 0] > 0).float(), torch.ones(1, 6)
    (fitted,) = training.fit_heads(tokens, targets, every, epochs=2, batch_size=4)
    training.temper(fitted.head, tokens, targets)
    weights = [value.numpy() for value in fitted.head.state_dict().values()]
    return probe_hash(*weights, fitted.history["loss"])


class StudyLocalizer(Localizer):
    """A localizer that reads tokens of a study's windows from where `window_sample` left them."""

    def patch_logits(self, image: Image, plan: Plan, progress: bool = False) -> Iterator[Tensor]:
        windows = [np.asarray(of) for of in plan.windows(image, torch.device("cpu"))]
        tokens = extracted(self.backbone, windows, torch.float32)
        if tokens is None:
            yield from super().patch_logits(image, plan)
        else:
            yield self.head(tokens.to(self.backbone.device))


def fit_drawn(
    tokens: Tensor,
    sample: Sample,
    seeds: Sequence[int],
    epochs: int = EPOCHS,
    losses: Sequence[Loss] = ("dice",),
) -> Heads:
    """Fit heads, axes ``loss, seed, fold``, on tokens ``(N, D, h, w)`` and a sample's labels; the
    seeds draw the images, see `Sample.drawn`, and the first one is also that of the fit."""
    drawn, targets = sample.drawn(seeds), sample.targets.to(tokens.device)
    axes = dict(zip(("loss", "seed", "fold"), (len(losses), *drawn.shape), strict=False))
    classes = targets.shape[1] if targets.ndim == 4 else 1
    heads = Heads(axes, tokens.shape[1], classes).to(tokens.device)
    train = drawn.expand(len(losses), *drawn.shape)
    of_heads = [loss for loss in losses for _ in range(drawn.shape[0] * drawn.shape[1])]
    training.fit(heads, tokens, targets, train, losses=of_heads, epochs=epochs, seed=seeds[0])
    return heads


def left_out_logits(heads: Heads, tokens: Tensor, sample: Sample) -> Tensor:
    """Logits of every tested window by the heads that never met its photograph: from K ``heads``,
    with an axis ``fold`` of the sample's F folds, and tokens ``(N, D, h, w)``, float32
    ``(N, K / F, h, w)`` on the CPU, along the other axes; nan where none tests."""
    folds = heads.axes["fold"]
    logits = torch.full((len(tokens), len(heads) // folds, *tokens.shape[2:]), torch.nan)
    for fold in range(folds):
        of_fold = heads.select(fold=fold)
        tested = torch.from_numpy(np.flatnonzero(sample.fold == fold))
        for chosen in tested.split(256):
            asked = tokens[chosen].to(heads.weight.device, torch.float32)
            logits[chosen] = of_fold(asked).flatten(1, 2).cpu()
    return logits


def image_logits(
    backbone: Backbone, shapes: Sequence[Heads], sample: Sample, reduce: Reduce = "mean"
) -> Logits:
    """Logits of whole images by all heads that never met them, along the K / F channels of
    `left_out_logits`; ``reduce`` says how they are put together where windows overlap."""
    folds, tested = len(sample.train), sample.fold >= 0
    fold_of = dict(zip(sample.rows["group"][tested], sample.fold[tested].tolist(), strict=True))
    card = replace(card_for(backbone), reduce=reduce)
    together = [_Together(heads.select(fold=fold) for heads in shapes) for fold in range(folds)]
    of_folds = [StudyLocalizer(backbone, heads, card) for heads in together]

    def logits(image: Image, row: Row) -> Tensor:
        return of_folds[fold_of[row["group"]] if folds > 1 else 0].logits(image).cpu()

    return logits


class _Together(nn.ModuleList):
    """Heads of several shapes: tokens ``(N, D, h, w)`` to all their logits ``(N, K, h, w)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([heads(tokens).flatten(1, 2) for heads in self], dim=1)


def window_rows(logits: Tensor, sample: Sample, names: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Scores of every tested window by each of K heads, in whole patches, a row each: the sample's
    rows, ``names`` and `patch_scores`. Logits are ``(N, K, h, w)``, over 0 an edit."""
    tested = sample.fold >= 0
    scores = patch_scores(logits[tested], sample.targets[tested][:, None])
    rows = [
        sample.rows[tested].assign(**name, **{score: of[:, head] for score, of in scores.items()})
        for head, name in enumerate(names)
    ]
    return pd.concat(rows, ignore_index=True)


def patch_scores(logits: Tensor, truth: Tensor) -> dict[str, NDArray[np.float64]]:
    """``ap`` (average precision, in which a patch counts by its edited share), ``iou`` and
    ``recall``, nan without an edit, and ``predicted_area``, a share, of logits ``(..., h, w)``
    against the edited shares of the patches, 0 to 1 and broadcast to them."""
    predicted = logits > 0
    masks = (predicted * truth, predicted, truth)
    hits, marked, edited = (of.sum((-2, -1), dtype=torch.float64) for of in masks)
    edited = edited.expand_as(hits)
    iou, recall = hits / (edited + marked - hits), hits / edited  # 0 / 0 is nan
    iou[edited == 0] = torch.nan
    order = logits.flatten(-2).argsort(dim=-1, descending=True)
    ranked = truth.expand_as(logits).flatten(-2).gather(-1, order)
    precision = ranked.cumsum(-1) / torch.arange(1, ranked.shape[-1] + 1)
    ap = (ranked * precision).sum(-1, dtype=torch.float64) / edited
    area = marked / logits[0, 0].numel()
    scores = {"ap": ap, "iou": iou, "recall": recall, "predicted_area": area}
    return {name: of.numpy() for name, of in scores.items()}
