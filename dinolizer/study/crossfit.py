"""Cross-fitting: a head for every photograph, fitted on the images of all the others."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinolizer.data import pocket
from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.data.manifest import target
from dinolizer.model import training
from dinolizer.model.backbones import Backbone, load_backbone
from dinolizer.model.features import extract, patch_targets
from dinolizer.model.head import HeadCard
from dinolizer.model.localizer import Localizer
from dinolizer.model.training import Fit
from dinolizer.model.windows import accumulate, grid
from dinolizer.study.baselines import BASELINES
from dinolizer.study.evaluation import Predict, Row, evaluate, fit_thresholds, read_pair
from dinolizer.study.parameters import read_profile

POLICY = "pristine"
Map = NDArray[np.floating]
Maps = Mapping[str, Map]
Baseline = Callable[[NDArray[np.uint8]], Map]


@dataclass(frozen=True)
class Windows:
    """The windows of a manifest's images, all of one size, and their tokens.

    Attributes
    ----------
    tokens
        float16 ``(N * P, D, h, w)``: the P windows of the first image, then of the second, ...
    targets
        float32 ``(N * P, h, w)`` in [0, 1], the share of each patch that is edited.
    group, seen
        ``(N * P,)``: the photograph, and whether a training may meet the generator.
    positions, size, window
        ``(top, left)`` of the P windows, ``(H, W)`` of the images and the window's side, in pixels.
    """

    tokens: Tensor
    targets: Tensor
    group: NDArray[np.str_]
    seen: NDArray[np.bool_]
    positions: list[tuple[int, int]]
    size: tuple[int, int]
    window: int


def read_windows(backbone: Backbone, manifest: pd.DataFrame) -> Windows:
    """Cut a manifest's images into windows and compute their tokens, or find them in the cache."""
    spec = backbone.spec
    size = (int(manifest["height"].iloc[0]), int(manifest["width"].iloc[0]))
    positions = grid(*size, spec.window, spec.stride)
    images, masks = [], []
    for row in manifest.to_dict("records"):
        image, mask = read_pair(row)
        labels = target(mask, row["kind"], row["background"], POLICY)
        for top, left in positions:
            place = (slice(top, top + spec.window), slice(left, left + spec.window))
            images.append(image[place])
            masks.append(labels[place] == 1)
    return Windows(
        tokens=extract(backbone, images),
        targets=patch_targets(np.stack(masks), spec.patch),
        group=np.repeat(manifest["group"].to_numpy(str), len(positions)),
        seen=np.repeat(manifest["seen"].to_numpy(bool), len(positions)),
        positions=positions,
        size=size,
        window=spec.window,
    )


def fit_heads(windows: Windows, *, epochs: int, seed: int) -> dict[str, Fit]:
    """Fit a head for every photograph on the windows of all others, its own for validation.

    Images of the held-out generator are in neither.
    """
    groups = list(dict.fromkeys(windows.group.tolist()))
    own = torch.from_numpy(np.stack([windows.group == group for group in groups]))
    seen = torch.from_numpy(windows.seen)
    fits = training.fit_heads(
        windows.tokens,
        windows.targets,
        ~own & seen,
        validation=own & seen,
        epochs=epochs,
        seed=seed,
    )
    return dict(zip(groups, fits, strict=True))


def card_for(backbone: Backbone, about: str) -> HeadCard:
    """Settings of a head of the pocket study."""
    return HeadCard(
        backbone=backbone.spec.name,
        backbone_hash=backbone.hash,
        policy=POLICY,
        window=backbone.spec.window,
        stride=backbone.spec.stride,
        small="pad",
        about=about,
    )


def predict_from(
    windows: Windows, heads: Mapping[str, nn.Conv2d], manifest: pd.DataFrame
) -> Predict:
    """Return a method that maps the manifest's own images from tokens that are already there."""
    count = len(windows.positions)
    first = {image: number * count for number, image in enumerate(manifest["image"])}

    @torch.inference_mode()
    def predict(_image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
        start = first[row["image"]]
        logits = heads[row["group"]](windows.tokens[start : start + count].float())
        summed = accumulate(logits, windows.positions, windows.size, windows.window, "sum")
        return np.asarray(summed.sigmoid()[0].numpy())

    return predict


def predict_with(backbone: Backbone, heads: Mapping[str, nn.Conv2d]) -> Predict:
    """Return a method that maps any image, by the head that never saw its photograph."""
    card = card_for(backbone, about="")
    localizers = {group: Localizer(backbone, head, card) for group, head in heads.items()}

    def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
        return localizers[row["group"]](image).probability

    return predict


def evaluate_baselines(manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows of all `BASELINES`, each with the threshold that suits the other photographs best."""
    rows = []
    for name, baseline in BASELINES.items():
        records = manifest.to_dict("records")
        maps = {row["image"]: baseline(read_pair(row)[0]) for row in records}

        def predict(_image: NDArray[np.uint8], row: Row, maps: Maps = maps) -> Map:
            return maps[row["image"]]

        thresholds = fit_thresholds(predict, manifest[manifest["seen"]])
        rows.append(evaluate(name, predict, manifest, thresholds))
    return pd.concat(rows)


def evaluate_degraded(
    method: str,
    predict: Predict,
    manifest: pd.DataFrame,
    threshold: float | Mapping[str, float],
    seed: int,
) -> pd.DataFrame:
    """Rows of a method on the images as they are and at every level of `DEGRADATIONS`."""
    cases = [("none", float("nan"))]
    cases += [(name, level) for name, case in DEGRADATIONS.items() for level in case.levels]
    return pd.concat(
        evaluate(
            method,
            predict,
            manifest,
            threshold,
            degradation=name,
            level=level,
            seed=seed,
            ranking=False,
        )
        for name, level in cases
    )


def evaluate_baselines_degraded(
    manifest: pd.DataFrame, degraded: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Rows of all `BASELINES` on degraded images, with the thresholds of the whole manifest.

    As the heads, thresholds are not chosen on images of the held-out generator.
    """
    rows = []
    for name, baseline in BASELINES.items():

        def predict(image: NDArray[np.uint8], _row: Row, baseline: Baseline = baseline) -> Map:
            return baseline(image)

        thresholds = fit_thresholds(predict, manifest[manifest["seen"]])
        rows.append(evaluate_degraded(name, predict, degraded, thresholds, seed))
    return pd.concat(rows)


def prepare(profile: Path) -> None:
    """Fill the cache with a profile's forged images and their tokens, which its notebooks share."""
    parameters = read_profile(profile)
    manifest = pocket.build(int(str(parameters["seed"])))
    read_windows(load_backbone(str(parameters["backbone"])), manifest)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
