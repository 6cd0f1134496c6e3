"""Heads that never met what they are tested on, and the maps they draw."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinolizer.data.manifest import read_pair, target
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for, load_head, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.weights import weights_hash
from dinolizer.model.windows import Pair, Plan, Reduce, assemble, make_plan
from dinolizer.paths import cache_dir
from dinolizer.study.cache import source_hash, stored
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import Predict, Row
from dinolizer.training import heads as training
from dinolizer.training.crops import patch_shares
from dinolizer.training.heads import Fit
from dinolizer.training.recipes import history_path, train
from dinolizer.training.tokens import extract

Logits = Callable[[NDArray[np.uint8], Row], Tensor]
"""Takes an image and its row; gives summed logits, float32 (C, H, W)."""

POLICY = "pristine"
"""The paper's labels: what was only re-encoded is as if real."""
EPOCHS = 20


@dataclass(frozen=True)
class Windows:
    """The windows of a manifest's images, all of one size, and their tokens.

    Attributes
    ----------
    tokens
        float16 ``(N * P, D, h, w)``: the P windows of the first image, then of the second, ...
    targets
        float32 in [0, 1], as `crops.patch_shares`: ``(N * P, h, w)``, the share of
        each patch that is edited, or ``(N * P, 3, h, w)``, its shares of three classes.
    group, seen
        ``(N * P,)``: the photograph, and whether a training may meet the generator.
    plan
        Of every image.
    """

    tokens: Tensor
    targets: Tensor
    group: NDArray[np.str_]
    seen: NDArray[np.bool_]
    plan: Plan

    @property
    def positions(self) -> list[Pair]:
        """``(top, left)`` of the P windows, in pixels."""
        return self.plan.positions

    def places(self, manifest: pd.DataFrame) -> dict[str, slice]:
        """From each image of the manifest that these windows are of to its own."""
        count = len(self.positions)
        return {
            image: slice(number * count, (number + 1) * count)
            for number, image in enumerate(manifest["image"])
        }

    def assemble(self, logits: Tensor, reduce: Reduce) -> Tensor:
        """Logits ``(C, H, W)`` of an image from those of its windows, ``(P, C, h, w)``."""
        return assemble(replace(self.plan, reduce=reduce), [logits])


@dataclass(frozen=True)
class Fits:
    """The heads of a study.

    Attributes
    ----------
    apart
        From a photograph to the head fitted on all the others; empty where there is a training set.
    whole
        The head fitted on all that may be trained on.
    windows
        What ``apart`` was fitted on.
    """

    apart: dict[str, Fit]
    whole: Fit
    windows: Windows | None

    @property
    def hash(self) -> str:
        """SHA-256 of all heads' weights, those of single photographs in the order of these."""
        return weights_hash(nn.ModuleList(one.head for one in (*self.apart.values(), self.whole)))

    def heads(self, manifest: pd.DataFrame) -> dict[str, nn.Conv2d]:
        """From each group of a manifest to the head that never met it."""
        return {group: self.apart.get(group, self.whole).head for group in set(manifest["group"])}


def read_windows(backbone: Backbone, manifest: pd.DataFrame, policy: str = POLICY) -> Windows:
    """Cut a manifest's images into windows, label them, and compute their tokens or find them."""
    spec = backbone.spec
    size = (int(manifest["height"].iloc[0]), int(manifest["width"].iloc[0]))
    plan = make_plan(size, window=spec.window, stride=spec.stride, patch=spec.patch)
    if plan.fitted != size:
        raise InputError(
            f"The images are {size[0]}x{size[1]} pixels, but heads are fitted on images of at "
            f"least a window of {spec.window}; name larger ones."
        )
    images, shares = [], []
    for row in manifest.to_dict("records"):
        image, mask = read_pair(row)
        labels = target(mask, row["kind"], row["background"], policy)
        for position in plan.positions:
            images.append(np.asarray(plan.cut(image, position)))
            window = torch.from_numpy(np.asarray(plan.cut(labels, position)))
            shares.append(patch_shares(window, policy, spec.patch))
    return Windows(
        tokens=extract(backbone, images),
        targets=torch.stack(shares),
        group=np.repeat(manifest["group"].to_numpy(str), plan.passes),
        seen=np.repeat(manifest["seen"].to_numpy(bool), plan.passes),
        plan=plan,
    )


def fit(
    dataset: Dataset,
    backbone: Backbone,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    policy: str = POLICY,
) -> Fits:
    """Fit the heads of a study.

    With a training set it is one head (see `dinolizer.training.recipes.train`). Without, every
    photograph gets one that is fitted on the images of all others. Both are kept in the cache.
    Images of the held-out generator are in no training. Labels follow a policy, see
    `dinolizer.data.manifest.target`.
    """
    if dataset.train is not None:
        return Fits({}, _trained(dataset.train, backbone, epochs, seed, policy), None)
    windows = read_windows(backbone, dataset.test, policy)
    groups = list(dict.fromkeys(windows.group.tolist()))
    own = np.stack([windows.group == group for group in groups] + [windows.group == ""])
    seen = torch.from_numpy(windows.seen)

    def heads() -> pd.DataFrame:
        return _table(
            training.fit_heads(
                windows.tokens,
                windows.targets,
                ~torch.from_numpy(own) & seen,
                validation=torch.from_numpy(own) & seen,
                epochs=epochs,
                seed=seed,
            )
        )

    depends = f"{source_hash(__name__)} {backbone.hash} {epochs} {seed} {policy}"
    *apart, whole = _fits(stored("heads", f"{depends}\n{dataset.test.to_csv()}", heads))
    return Fits(dict(zip(groups, apart, strict=True)), whole, windows)


def _table(fits: Sequence[Fit]) -> pd.DataFrame:
    """Linear heads and their fits as a table to be stored, a row each."""
    return pd.DataFrame(
        [
            {name: value.flatten().tolist() for name, value in fit.head.state_dict().items()}
            | fit.history.to_dict("list")
            for fit in fits
        ]
    )


def _fits(table: pd.DataFrame) -> list[Fit]:
    """What `_table` was made of."""
    fits = []
    for row in table.to_dict("records"):
        weight, bias = (torch.tensor(row.pop(name)) for name in ("weight", "bias"))
        head = make_head(len(weight) // len(bias), len(bias))
        head.load_state_dict({"weight": weight.view_as(head.weight), "bias": bias})
        fits.append(Fit(head.eval().requires_grad_(False), pd.DataFrame(row)))
    return fits


def _trained(
    manifest: pd.DataFrame, backbone: Backbone, epochs: int, seed: int, policy: str
) -> Fit:
    """Train on a manifest, or find the head that the same manifest and settings gave before."""
    settings = f"{backbone.hash} {epochs} {seed} {policy}"
    key = hashlib.sha256(f"{settings}\n{manifest.to_csv()}".encode())
    path = cache_dir() / "heads" / f"{key.hexdigest()[:16]}.safetensors"
    if not path.exists():
        train(manifest, backbone, path, "v1", policy=policy, epochs=epochs, seed=seed)
    _, head, _ = load_head(path, backbone)
    return Fit(head, pd.read_csv(history_path(path)))


def predict_own(dataset: Dataset, backbone: Backbone, fits: Fits) -> Predict:
    """Return a method that maps the test images, from tokens that are already there if they are."""
    logits = logits_own(dataset, backbone, fits.heads(dataset.test), fits.windows)
    return lambda image, row: np.asarray(logits(image, row).sigmoid()[0].cpu().numpy())


def logits_own(
    dataset: Dataset,
    backbone: Backbone,
    heads: Mapping[str, nn.Conv2d],
    windows: Windows | None = None,
) -> Logits:
    """Return what gives the test images' logits, summed over the windows.

    Parameters
    ----------
    heads
        From each group of the test images to its head, of any number of channels.
    windows
        Those of the test images; without them their tokens are computed image by image.
    """
    if windows is None:
        own = localizers(backbone, heads)
        return lambda image, row: own[row["group"]].logits(image)
    read = windows
    places = read.places(dataset.test)

    @torch.inference_mode()
    def logits(_image: NDArray[np.uint8], row: Row) -> Tensor:
        of_windows = heads[row["group"]](read.tokens[places[row["image"]]].float())
        return read.assemble(of_windows, "sum")

    return logits


def predict_with(backbone: Backbone, heads: Mapping[str, nn.Conv2d]) -> Predict:
    """Return a method that maps any image, by the head that never saw its photograph."""
    own = localizers(backbone, heads)
    return lambda image, row: own[row["group"]](image).probability


def localizers(
    backbone: Backbone, heads: Mapping[str, nn.Conv2d], mode: str = "exact"
) -> dict[str, Localizer]:
    """Localizers of the heads of each group, in one mode."""
    card = card_for(backbone, about="")
    return {group: Localizer(backbone, head, card, mode=mode) for group, head in heads.items()}
