"""What re-encoded pixels are called in training, and what that does to the map.

Heads of all policies are fitted on the same tokens, for several seeds, and applied together: their
channels are stacked into one head, so that an image is met once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.data.manifest import POLICIES, read_pair, target
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES, make_head, probabilities
from dinolizer.model.windows import REDUCTIONS
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import Row
from dinolizer.study.heads import EPOCHS, fit, localizers
from dinolizer.study.samples import window_sample
from dinolizer.training.heads import fit_heads

Maps = Callable[[NDArray[np.uint8], Row], dict[str, NDArray[np.floating]]]
"""Takes an image and its row of the manifest; gives maps, float (H, W), by policy."""

CLASS_NAMES = ("real", "re-encoded", "inpainted")
"""The classes of a pixel, in the order of the three-class head's channels."""
THREE = POLICIES[2]
KEPT = 0.8
"""Share of the training images that each seed draws, in cross-fitting."""
PIXELS = 200
"""Pixels of each image, drawn at random, that calibration is measured on."""


@dataclass(frozen=True)
class Heads:
    """Heads of all policies.

    Attributes
    ----------
    of
        From each policy to the seeds' heads: from each group of the test images to the head that
        never met it.
    """

    of: dict[str, list[dict[str, nn.Conv2d]]]


@dataclass(frozen=True)
class Measured:
    """What the heads say of the test images.

    Attributes
    ----------
    rows
        A row for each image, policy (``method``), ``seed`` and way to put logits together
        (``reduce``): ``image, group, family, kind, seen, iou``; for each class of `CLASS_NAMES`
        ``marked <class>``, the share of its pixels that is marked (nan without such pixels);
        ``changed``, the share of all pixels that is marked otherwise than by the sum; and of the
        three-class head ``<truth> as <class>``, the share of the pixels of a class that is called
        another (by the largest probability).
    group, edited
        ``(N,)``: photograph of each pixel drawn, and whether it is edited.
    probability
        From policy and reduction to float32 ``(seeds, N)``: that the pixel is edited.
    """

    rows: pd.DataFrame
    group: NDArray[np.str_]
    edited: NDArray[np.bool_]
    probability: dict[tuple[str, str], NDArray[np.float32]]


def fit_policies(
    dataset: Dataset, backbone: Backbone, seeds: Sequence[int], epochs: int = EPOCHS
) -> Heads:
    """Fit heads of all policies, for each seed.

    With a training set, as `dinolizer.study.heads.fit` does with that policy and seed. Without,
    as it does, too, but for the seeds: so that all are fitted together, each draws a share of
    `KEPT` of the training images, the same for all policies.
    """
    if dataset.train is not None:
        apart = {
            policy: [
                fit(dataset, backbone, epochs=epochs, seed=seed, policy=policy).heads(dataset.test)
                for seed in seeds
            ]
            for policy in POLICIES
        }
        return Heads(apart)
    tokens, sample = window_sample(dataset, backbone, THREE)
    groups = np.unique(dataset.test["group"].to_numpy(str)).tolist()  # as the folds of the sample
    image, _ = pd.factorize(sample.rows["image"])
    drawn = [np.random.default_rng(seed).random(len(dataset.test)) < KEPT for seed in seeds]
    members = torch.cat([sample.train & torch.from_numpy(kept[image]) for kept in drawn])
    found: dict[str, list[dict[str, nn.Conv2d]]] = {}
    for policy in POLICIES:
        targets = targets_of(sample.targets, policy)
        heads = iter(fit_heads(tokens, targets, members, epochs=epochs, seed=seeds[0]))
        found[policy] = [{group: next(heads).head for group in groups} for _ in seeds]
    return Heads(found)


def targets_of(shares: Tensor, policy: str) -> Tensor:
    """Targets of a policy from the shares of the three classes, ``(N, 3, h, w)``."""
    if policy == THREE:
        return shares
    return shares[:, 2] if policy == POLICIES[0] else shares[:, 1:].sum(1)


def stack(heads: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One head with the channels of all, and a last channel that is 1 everywhere.

    Added up over windows, the last one counts them: the mean of the logits is the sum over it.
    """
    dim = heads[0].in_channels
    stacked = make_head(dim, sum(head.out_channels for head in heads) + 1)
    ones = torch.zeros(1, dim, 1, 1), torch.ones(1)
    with torch.no_grad():
        stacked.weight.copy_(torch.cat([*(head.weight.cpu() for head in heads), ones[0]]))
        stacked.bias.copy_(torch.cat([*(head.bias.cpu() for head in heads), ones[1]]))  # type: ignore[union-attr]
    return stacked.requires_grad_(False)


def measure(dataset: Dataset, backbone: Backbone, heads: Heads, seed: int = 0) -> Measured:
    """Apply all heads to every test image; ``seed`` draws the pixels for calibration."""
    every = [of_group for some in heads.of.values() for of_group in some]
    stacked = {group: stack([of_group[group] for of_group in every]) for group in every[0]}
    of_group = localizers(backbone, stacked)
    sizes = [len(some) * CLASSES[policy] for policy, some in heads.of.items()]
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    edited = []
    said: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for row in dataset.test.to_dict("records"):
        image, mask = read_pair(row)
        truth = torch.from_numpy(target(mask, row["kind"], row["background"], THREE))
        drawn = torch.from_numpy(rng.integers(truth.numel(), size=PIXELS))
        edited.append((truth.flatten()[drawn] == 2).numpy())
        about = {name: row[name] for name in ("image", "group", "family", "kind", "seen")}
        *of_policies, windows = of_group[row["group"]].logits(image).cpu().split([*sizes, 1])
        for (policy, some), summed in zip(heads.of.items(), of_policies, strict=True):
            own = summed.unflatten(0, (len(some), CLASSES[policy]))  # (seeds, C, H, W)
            marked = None
            for reduce in REDUCTIONS:
                found = probabilities(own if reduce == "sum" else own / windows)
                marked = found[:, -1] > 0.5 if marked is None else marked
                lines = score(found, truth, marked)
                case = {"method": policy, "reduce": reduce, **about}
                rows += [case | {"seed": place} | line for place, line in enumerate(lines)]
                pixels = found[:, -1].flatten(1)[:, drawn].numpy()
                said.setdefault((policy, reduce), []).append(pixels)
    return Measured(
        pd.DataFrame(rows),
        np.repeat(dataset.test["group"].to_numpy(str), PIXELS),
        np.concatenate(edited),
        {key: np.concatenate(parts, axis=1) for key, parts in said.items()},
    )


def first_maps(backbone: Backbone, heads: Heads) -> Maps:
    """Return what gives every policy's map of a test image, by the head of the first seed."""
    of_policy = {policy: localizers(backbone, some[0]) for policy, some in heads.of.items()}
    return lambda image, row: {
        policy: np.asarray(probabilities(of[row["group"]].logits(image))[-1].cpu().numpy())
        for policy, of in of_policy.items()
    }


def score(probability: Tensor, truth: Tensor, summed: Tensor) -> list[dict[str, float]]:
    """Scores of the maps of one image, one a seed; see `Measured.rows`.

    Parameters
    ----------
    probability
        ``(S, C, H, W)``, see `dinolizer.model.head.probabilities`.
    truth
        uint8 ``(H, W)``, places in `CLASS_NAMES`.
    summed
        bool ``(S, H, W)``: what the sum of the logits marks.
    """
    marked = probability[:, -1] > 0.5
    classes = F.one_hot(truth.flatten().long(), 3).float()  # (pixels, 3)
    sizes = classes.sum(0)

    def of_class(pixels: Tensor) -> Tensor:
        """How many pixels (S, H, W) of each class: (S, 3)."""
        return pixels.flatten(1).float() @ classes

    hits = of_class(marked)
    iou = hits[:, 2] / (sizes[2] + hits[:, :2].sum(1)) if sizes[2] else hits[:, 2] * torch.nan
    columns = {"iou": iou, "changed": (marked != summed).float().mean((1, 2))}
    shares = hits / sizes  # 0 / 0 is nan: no pixels of that class
    columns |= {f"marked {name}": shares[:, k] for k, name in enumerate(CLASS_NAMES)}
    if probability.shape[1] == 3:
        called = torch.from_numpy(probability.numpy().argmax(1))  # torch takes ten times as long
        for place, name in enumerate(CLASS_NAMES):
            shares = of_class(called == place) / sizes
            columns |= {f"{true} as {name}": shares[:, k] for k, true in enumerate(CLASS_NAMES)}
    return [
        {name: float(values[place]) for name, values in columns.items()}
        for place in range(len(probability))
    ]
