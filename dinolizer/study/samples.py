"""The images of a study, their windows with labels, and who may be fitted on which."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinolizer.data.degradations import resize
from dinolizer.data.manifest import generator_family, read_manifest, read_pair, target
from dinolizer.errors import InputError, say
from dinolizer.model.backbones import Backbone, BackboneSpec
from dinolizer.model.windows import make_plan
from dinolizer.paths import ROOT, file_hash
from dinolizer.pocket.dataset import build
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.cache import images_hash
from dinolizer.training.crops import TRAIN, VALIDATION, Crops, patch_shares
from dinolizer.training.tokens import extract

POLICY = "pristine"
"""The paper's labels: what was only re-encoded counts as real."""


@dataclass(frozen=True)
class Dataset:
    """The images of a study, and SHA-256 of what they come from, manifest files or forged images.
    ``test`` is a manifest with the further columns ``family``, over whose values means are taken
    (the dataset or, of a single one, the generator), ``seen`` (whether training meets the family of
    the generator) and ``condition``; ``train`` one with ``train`` and ``valid``; None leaves
    out photographs in turn."""

    test: pd.DataFrame
    train: pd.DataFrame | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def load(
    window: int,
    *,
    photos: str = "",
    photo_count: int = 0,
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    limit: int = 0,
    seed: int = 0,
    rounds: int = 1,
) -> Dataset:
    """Read the manifests of a study, or forge its images if none are named. ``window`` is of the
    backbone, in pixels; ``photos`` and ``photo_count`` are as in `photo_paths`, ``rounds`` as in
    `build`. Paths are absolute or relative to the checkout. Test images of a photograph that is
    trained on are left out; at most ``limit`` (0: all) of each family and kind are drawn."""
    if bool(train) != bool(test):
        given = f"{list(train)} to train and {list(test)} to test"
        raise InputError(f"Manifests are {given}: name both, or neither to forge photographs.")
    training = None
    if not test:
        paths = photo_paths(ROOT / photos if photos else "", photo_count)
        forged = build(paths, window, seed, rounds)
        sources = {f"{len(forged)} forged images": images_hash(forged)}
        tested = forged.assign(family=forged["generator"])
    else:
        training = pd.concat([read_manifest(ROOT / path) for path in train], ignore_index=True)
        tested = pd.concat([read_manifest(ROOT / path).assign(path=path) for path in test])
        tested = tested[tested["split"] == "test"]
        for path in set(test) - set(tested.pop("path")):
            raise InputError(f"The manifest {path} has no row of the split 'test'; leave it out.")
        tested = without_trained(tested.reset_index(drop=True), training)
        generators, known = (of["generator"].map(generator_family) for of in (tested, training))
        several = tested["dataset"].nunique() > 1
        tested = tested.assign(
            family=tested["dataset"] if several else generators,
            seen=generators.isin(set(known)),
            condition="clean",
        )
        sources = {}
        for file in ((ROOT / path).resolve() for path in (*train, *test)):
            name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
            sources[name] = file_hash(file)
    tested = draw_rows(tested, limit, seed, ["family", "kind"])
    return Dataset(tested.reset_index(drop=True), training, sources)


def without_trained(tested: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Test images whose ``group`` is not trained on; says how many are, and refuses if all are."""
    fitted = training["split"].isin([*TRAIN, *VALIDATION])
    shown = tested["group"].isin(training.loc[fitted, "group"])
    if shown.all():
        raise InputError("The photographs of all test images are in training; test on others.")
    if shown.any():
        say(f"{shown.sum()} test images left out: their photograph is in training")
    return tested[~shown]


def images_to_degrade(
    manifest: pd.DataFrame, families: Sequence[str] = (), images: int = 0, seed: int = 0
) -> pd.DataFrame:
    """The edited images that a robustness study degrades: clean, of the families or generators (if
    none, all), spliced (or the others if none is), at most so many, drawn by the seed (0: all)."""
    clean = ~manifest["authentic"] & (manifest["condition"] == "clean")
    named = manifest[["family", "generator"]].isin(list(families)).any(axis=1)
    chosen = manifest[clean & (named | (not families))]
    chosen = chosen[chosen["kind"] == "sp"] if (chosen["kind"] == "sp").any() else chosen
    if chosen.empty:
        known = sorted(set(manifest["family"]))
        raise InputError(f"There is no edited image of {list(families)}; choose some of {known}.")
    return draw_rows(chosen, images, seed)


def draw_rows(frame: pd.DataFrame, count: int, seed: int, by: Sequence[str] = ()) -> pd.DataFrame:
    """At most so many rows of a manifest (of each value of the columns ``by``), as they stand; 0
    for all. They are the first by SHA-256 of the seed and what names an image on any machine, and
    so the same whatever else the manifest lists, and in whatever order."""
    if not count:
        return frame
    names = frame[["dataset", "group", "generator", "kind"]].astype(str).to_numpy().tolist()
    files = [Path(path).name for path in frame["image"]]
    texts = ["\n".join([*name, file, str(seed)]) for name, file in zip(names, files, strict=True)]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    ordered = frame.assign(digest=digests).sort_values(["digest", "image"])
    rank = ordered.groupby(list(by) or np.zeros(len(frame))).cumcount()
    return frame[rank[frame.index] < count]


@dataclass(frozen=True)
class Sample:
    """N labelled windows of a study; their tokens are kept apart, in the same order.

    ``targets`` are float32 ``(N, h, w)``, the share of each patch that is edited, or
    ``(N, 3, h, w)``, its shares of three classes. ``rows`` have ``image, group, family, kind``,
    ``seen`` (True for a training set), and the edited share of the image, ``area``, and of the
    window, ``share``. ``fold``, int ``(N,)``, says by which of F heads a window is tested (-1: by
    none), and ``train``, bool ``(F, N)``, what each head may be fitted on. F is the number of
    photographs where one is left out in turn, else 1."""

    targets: Tensor
    rows: pd.DataFrame
    fold: NDArray[np.int64]
    train: Tensor

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """How often each window counts when the training images are drawn anew, with all their
        windows, with replacement and as many as there are, for each seed and head: float32
        ``(len(seeds), F, N)``. Other images move a linear head; order hardly does."""
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
    dataset: Dataset, backbone: Backbone, count: int = 0, seed: int = 0, policy: str = POLICY
) -> tuple[Tensor, Sample]:
    """The `window_sample` where one photograph is left out in turn, else of a `crop_sample`."""
    if dataset.train is None:
        return window_sample(dataset, backbone, policy)
    images, sample = crop_sample(dataset, backbone.spec, count, seed, policy=policy)
    return extract(backbone, images), sample


def window_sample(
    dataset: Dataset, backbone: Backbone, policy: str = POLICY
) -> tuple[Tensor, Sample]:
    """Tokens, float16 ``(N, D, h, w)`` on the CPU, and labels of all windows of the test images;
    those of each image stay in the cache, in full precision, for `StudyLocalizer`."""
    spec = backbone.spec
    tokens, shares, numbers = [], [], []
    for number, row in enumerate(dataset.test.to_dict("records")):
        image, mask = read_pair(row)
        labels = target(mask, row["kind"], row["background"], policy)
        plan = make_plan(mask.shape, window=spec.window, stride=spec.stride, patch=spec.patch)
        if plan.fitted != mask.shape:
            size = f"{mask.shape[1]}x{mask.shape[0]} pixels, under a window of {spec.window}"
            raise InputError(f"{row['image']} is {size}: leave it out.")
        windows = [np.asarray(of) for of in plan.windows(image, torch.device("cpu"))]
        tokens.append(extract(backbone, windows, torch.float32).half())
        cuts = (torch.from_numpy(np.asarray(plan.cut(labels, at))) for at in plan.positions)
        shares += [patch_shares(cut, policy, spec.patch) for cut in cuts]
        numbers += [number] * len(plan.positions)
    return torch.cat(tokens), _sample(dataset, dataset.test.iloc[numbers], torch.stack(shares))


def crop_sample(
    dataset: Dataset,
    spec: BackboneSpec,
    count: int = 0,
    seed: int = 0,
    scales: Sequence[float] = (1.0,),
    tested: bool = True,
    policy: str = POLICY,
) -> tuple[list[NDArray[np.uint8]], Sample]:
    """One random crop, uint8 ``(window, window, 3)``, of at most ``count`` training images, if any,
    and as many test images (0: all), first enlarged by one of the ``scales``, and labels by the
    ``policy`` of `target`; the seed draws. Without ``tested``, a training set is cropped alone."""
    rows, fitted = draw_rows(dataset.test, count, seed), 0
    if dataset.train is not None:
        training = dataset.train[dataset.train["split"].isin(TRAIN)]
        if training.empty:
            raise InputError("The training set has no row of the split 'train'; write one with it.")
        training = training.assign(family=training["generator"], seen=True)
        training = draw_rows(training, count, seed)
        rows = pd.concat([training, rows] if tested else [training], ignore_index=True)
        fitted = len(training)
    crops = EnlargedCrops(rows, policy, spec.window, spec.patch, seed)
    crops.scales = scales
    pairs = [crops[number] for number in range(len(crops))]
    images = [image.permute(1, 2, 0).contiguous().numpy() for image, _ in pairs]
    return images, _sample(dataset, rows, torch.stack([shares for _, shares in pairs]), fitted)


class EnlargedCrops(Crops):
    """Crops of images that were enlarged, bicubically, by one of the ``scales`` each."""

    scales: Sequence[float]

    def _read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image, labels = super()._read(row)
        rng = np.random.default_rng((self.seed, row))
        scale = self.scales[int(rng.integers(len(self.scales)))]
        return resize(image, scale), resize(labels, scale, cv2.INTER_NEAREST_EXACT)


def _sample(dataset: Dataset, rows: pd.DataFrame, targets: Tensor, fitted: int = 0) -> Sample:
    """A fold for each photograph of the study or, with a training set (the first rows), one."""
    edited = targets if targets.ndim == 3 else targets[:, -1]
    rows = rows.assign(share=edited.mean((1, 2)).numpy(), seen=rows["seen"].astype(bool))
    if dataset.train is None:
        names = np.unique(dataset.test["group"].to_numpy(str))
        if len(names) < 2:
            only = f"all images are of {str(names[0])!r}; add others"
            raise InputError(f"To test on photographs that no head has met takes two, but {only}.")
        fold = np.searchsorted(names, rows["group"].to_numpy(str))
        train = (fold != np.arange(len(names))[:, None]) & rows["seen"].to_numpy()
    else:
        fold = np.repeat([-1, 0], [fitted, len(rows) - fitted])
        train = (fold < 0)[None]
    kept = rows[["image", "group", "family", "kind", "seen", "area", "share"]]
    return Sample(targets, kept.reset_index(drop=True), fold, torch.from_numpy(train))


def joined(first: Sample, second: Sample) -> Sample:
    """Join two samples; the second is only fitted on, never tested."""
    return Sample(
        torch.cat([first.targets, second.targets]),
        pd.concat([first.rows, second.rows], ignore_index=True),
        np.concatenate([first.fold, np.full(len(second.fold), -1)]),
        torch.cat([first.train, second.train], dim=1),
    )
