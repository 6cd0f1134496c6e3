"""Windows with labels, and who may be fitted on which: what every study of heads works on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinolizer.data.manifest import read_pair, target
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, BackboneSpec
from dinolizer.model.windows import Plan, make_plan
from dinolizer.study.dataset import Dataset
from dinolizer.study.dataset import draw_rows as draw_rows
from dinolizer.training.crops import TRAIN, Crops, patch_shares
from dinolizer.training.tokens import extract

POLICY = "pristine"
"""The paper's labels: what was only re-encoded counts as real."""


@dataclass(frozen=True)
class Sample:
    """Labelled windows of a study; their tokens are kept apart, in the same order.

    Attributes
    ----------
    targets
        float32 in [0, 1]: ``(N, h, w)``, the share of each patch that is edited, or
        ``(N, 3, h, w)``, its shares of three classes.
    rows
        A row per window, as in the manifest: ``image, group, family, kind, seen`` (True for a
        training set), and the edited share of the image, ``area``, and of the window, ``share``.
    fold
        int ``(N,)``: by which of F heads a window is tested; -1: by none.
    train
        bool ``(F, N)``: what each head may be fitted on. F is the number of photographs where one
        is left out in turn, else 1.
    """

    targets: Tensor
    rows: pd.DataFrame
    fold: NDArray[np.int64]
    train: Tensor

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """How often each window counts when the training images are drawn anew, with replacement
        and as many as there are, for each seed and head: float32 ``(len(seeds), F, N)``.

        An image's windows are drawn together. Other images move a linear head; order hardly does.
        """
        _, image = np.unique(self.rows["image"], return_inverse=True)
        weights = np.zeros((len(seeds), *self.train.shape), dtype=np.float32)
        for number, seed in enumerate(seeds):
            for fold, members in enumerate(self.train.numpy()):
                images = np.unique(image[members])
                rng = np.random.default_rng((seed, fold))
                drawn = np.bincount(rng.choice(images, len(images)), minlength=image.max() + 1)
                weights[number, fold] = drawn[image] * members
        return torch.from_numpy(weights)


def read_sample(
    dataset: Dataset, backbone: Backbone, count: int = 0, seed: int = 0
) -> tuple[Tensor, Sample]:
    """Tokens ``(N, D, h, w)`` and labels of a study: of all windows where one photograph is left
    out in turn, else of one crop of each image, as in `crop_sample`."""
    if dataset.train is None:
        return window_sample(dataset, backbone)
    images, sample = crop_sample(dataset, backbone.spec, count, seed)
    return extract(backbone, images), sample


def window_sample(
    dataset: Dataset, backbone: Backbone, policy: str = POLICY
) -> tuple[Tensor, Sample]:
    """Tokens, float16 ``(N, D, h, w)`` on the CPU, and labels of all windows of the test images.

    The tokens of each image stay in the cache, in full precision, for `StudyLocalizer`.
    """
    spec = backbone.spec
    tokens, shares, numbers = [], [], []
    for number, row in enumerate(dataset.test.to_dict("records")):
        image, mask = read_pair(row)
        labels = target(mask, row["kind"], row["background"], policy)
        plan = make_plan(mask.shape, window=spec.window, stride=spec.stride, patch=spec.patch)
        if plan.fitted != mask.shape:
            raise InputError(
                f"{row['image']} is {mask.shape[1]}x{mask.shape[0]} pixels, but heads need "
                f"images of at least a window of {spec.window} pixels: leave it out."
            )
        tokens.append(extract(backbone, image_windows(image, plan), torch.float32).half())
        for position in plan.positions:
            window = torch.from_numpy(np.asarray(plan.cut(labels, position)))
            shares.append(patch_shares(window, policy, spec.patch))
            numbers.append(number)
    sample = _left_out(dataset, dataset.test.iloc[numbers], torch.stack(shares))
    return torch.cat(tokens), sample


def image_windows(image: NDArray[np.uint8], plan: Plan) -> list[NDArray[np.uint8]]:
    """All windows of an image, uint8 ``(H, W, 3)``, row by row."""
    fitted = plan.fit(image)
    return [np.asarray(plan.cut(fitted, position)) for position in plan.positions]


def crop_sample(
    dataset: Dataset,
    spec: BackboneSpec,
    count: int = 0,
    seed: int = 0,
    scales: Sequence[float] = (1.0,),
    tested: bool = True,
    policy: str = POLICY,
) -> tuple[list[NDArray[np.uint8]], Sample]:
    """One random crop, uint8 ``(window, window, 3)``, of each training and test image, and labels.

    Of the training set, if any, and of the test images at most ``count`` each, drawn by the seed; 0
    for all. Each image is first enlarged by one of the ``scales``, drawn by the seed. Without
    ``tested``, a training set is cropped alone. The policy is as in `target`.
    """
    rows, fitted = draw_rows(dataset.test, count, seed), 0
    if dataset.train is not None:
        training = _training_rows(dataset.train, count, seed)
        fitted = len(training)
        rows = pd.concat([training, rows], ignore_index=True) if tested else training
    crops = EnlargedCrops(rows, policy, spec.window, spec.patch, seed)
    crops.scales = scales
    pairs = [crops[number] for number in range(len(crops))]
    images = [image.permute(1, 2, 0).contiguous().numpy() for image, _ in pairs]
    targets = torch.stack([shares for _, shares in pairs])
    if dataset.train is None:
        return images, _left_out(dataset, rows, targets)
    fold = np.repeat([-1, 0], [fitted, len(rows) - fitted])
    members = torch.from_numpy(fold < 0)[None]
    return images, Sample(targets, _with_share(rows, targets), fold, members)


class EnlargedCrops(Crops):
    """Crops of images that were enlarged, bicubically, by one of the ``scales`` each."""

    scales: Sequence[float] = (1.0,)

    def _read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image, labels = super()._read(row)
        rng = np.random.default_rng((self.seed, row))
        scale = self.scales[int(rng.integers(len(self.scales)))]
        return enlarged(image, scale), enlarged(labels, scale)


def enlarged(values: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3), bicubically, or labels (H, W), by nearest neighbour."""
    if scale == 1:
        return values
    how = cv2.INTER_CUBIC if values.ndim == 3 else cv2.INTER_NEAREST_EXACT
    size = tuple(round(scale * side) for side in values.shape[1::-1])
    return np.asarray(cv2.resize(values, size, interpolation=how), dtype=np.uint8)


def joined(first: Sample, second: Sample) -> Sample:
    """Join two samples; the second is only fitted on, never tested."""
    return Sample(
        torch.cat([first.targets, second.targets]),
        pd.concat([first.rows, second.rows], ignore_index=True),
        np.concatenate([first.fold, np.full(len(second.fold), -1)]),
        torch.cat([first.train, second.train], dim=1),
    )


def edits(sample: Sample) -> Sample:
    """The same windows with labels of two classes instead of three: edited or not."""
    return replace(sample, targets=sample.targets[:, -1])


def some_numbers(count: int, most: int, seed: int) -> list[int]:
    """At most so many numbers from 0 to ``count - 1``, drawn by the seed, in their order."""
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[:most].tolist())


def half_edited(rows: pd.DataFrame) -> list[int]:
    """For each family and kind with edits, the number of the window nearest to half edited."""
    edited = rows.reset_index(drop=True)
    edited = edited[edited["share"] > 0]
    distance = (edited["share"] - 0.5).abs()
    return distance.groupby([edited["family"], edited["kind"]], sort=False).idxmin().tolist()


def _left_out(dataset: Dataset, rows: pd.DataFrame, targets: Tensor) -> Sample:
    """Make a fold for each photograph of the study, also for those without a row."""
    names = np.unique(dataset.test["group"].to_numpy(str))
    fold = np.searchsorted(names, rows["group"].to_numpy(str))
    if len(names) < 2:
        raise InputError(
            f"Leaving one photo out needs images of two or more, but all are of {names[0]!r}."
        )
    train = (fold != np.arange(len(names))[:, None]) & rows["seen"].to_numpy(bool)
    return Sample(targets, _with_share(rows, targets), fold, torch.from_numpy(train))


def _with_share(rows: pd.DataFrame, targets: Tensor) -> pd.DataFrame:
    family = rows["family"].fillna(rows["generator"]) if "family" in rows else rows["generator"]
    kept = ["image", "group", "family", "kind", "seen", "area", "share"]
    edited = targets if targets.ndim == 3 else targets[:, -1]
    rows = rows.assign(family=family, share=edited.mean((1, 2)).numpy())
    rows["seen"] = rows["seen"].fillna(True).astype(bool) if "seen" in rows else True
    return rows[kept].reset_index(drop=True)


def _training_rows(manifest: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    rows = manifest[manifest["split"].isin(TRAIN)]
    if rows.empty:
        raise InputError("The training set has no row of the split 'train'; write one with it.")
    return draw_rows(rows, count, seed)
