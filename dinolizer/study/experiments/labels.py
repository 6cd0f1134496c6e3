"""What re-encoded pixels are called in training, and what that does to the map.

Heads of all policies are fitted on the same tokens, for several seeds, and applied together: their
channels are stacked into one head, so that an image is met once. Tables average seeds on each image
first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.data.manifest import AUTHENTIC_KINDS, POLICIES, read_pair, target
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES, make_head, probabilities
from dinolizer.model.windows import REDUCTIONS
from dinolizer.study.dataset import Dataset
from dinolizer.study.detection import calibration_error
from dinolizer.study.evaluation import Row, with_overall
from dinolizer.study.experiments.comparisons import RATE
from dinolizer.study.heads import EPOCHS, fit, localizers, overlap
from dinolizer.study.samples import window_sample
from dinolizer.study.statistics import columns, macro_table
from dinolizer.training.heads import fit_heads

Maps = Callable[[NDArray[np.uint8], Row], dict[str, NDArray[np.floating]]]
"""Takes an image and its row of the manifest; gives maps, float (H, W), by policy."""
Policies = dict[str, list[dict[str, nn.Conv2d]]]
"""From each policy to its heads of each seed: from a group of the test images to the head that
never met it."""

CLASS_NAMES = ("real", "re-encoded", "inpainted")
"""The classes of a pixel, in the order of the three-class head's channels."""
PRISTINE, FAKE, THREE = POLICIES
KEPT = 0.8
"""Share of the training images that each seed draws, with leave-one-photo-out."""
PIXELS = 200
"""Pixels of each image, drawn at random, that calibration is measured on."""


@dataclass(frozen=True)
class Measured:
    """What the heads predict for the test images.

    A row is of each image, policy (``method``), ``seed`` and ``reduce`` (how the logits of windows
    are put together): ``image, group, family, kind, seen``, and the scores of `score`. Of each
    pixel drawn, ``(N,)``, ``group`` is the photograph, and ``edited`` whether it is edited;
    ``probability``, that it is, is from policy and reduction to float32 ``(seeds, N)``.
    """

    rows: pd.DataFrame
    group: NDArray[np.str_]
    edited: NDArray[np.bool_]
    probability: dict[tuple[str, str], NDArray[np.float32]]


def fit_policies(
    dataset: Dataset, backbone: Backbone, seeds: Sequence[int], epochs: int = EPOCHS
) -> Policies:
    """Fit heads of all policies, for each seed, as `dinolizer.study.heads.fit` does.

    Without a training set all seeds are fitted together: each draws a share of `KEPT` of the
    training images, the same for all policies.
    """
    if dataset.train is not None:
        settings: dict[str, Any] = {"dataset": dataset, "backbone": backbone, "epochs": epochs}
        return {
            policy: [
                fit(**settings, seed=seed, policy=policy).heads(dataset.test) for seed in seeds
            ]
            for policy in POLICIES
        }
    tokens, sample = window_sample(dataset, backbone, THREE)
    groups = np.unique(dataset.test["group"].to_numpy(str)).tolist()  # as the folds of the sample
    image, _ = pd.factorize(sample.rows["image"])
    drawn = [np.random.default_rng(seed).random(len(dataset.test)) < KEPT for seed in seeds]
    members = torch.cat([sample.train & torch.from_numpy(kept[image]) for kept in drawn])
    policies: Policies = {}
    for policy in POLICIES:
        targets = targets_of(sample.targets, policy)
        heads = iter(fit_heads(tokens, targets, members, epochs=epochs, seed=seeds[0]))
        policies[policy] = [{group: next(heads).head for group in groups} for _ in seeds]
    return policies


def targets_of(shares: Tensor, policy: str) -> Tensor:
    """Targets of a policy from the shares of the three classes, ``(N, 3, h, w)``."""
    if policy == THREE:
        return shares
    return shares[:, 2] if policy == PRISTINE else shares[:, 1:].sum(1)


def stack(heads: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One head with the channels of all, and a last channel that is 1 everywhere: added up over
    windows it counts them, so that the mean of the logits is the sum over it."""
    ones = make_head(heads[0].in_channels)  # all else is 0
    nn.init.ones_(ones.bias)  # type: ignore[arg-type]
    states = [head.state_dict() for head in (*heads, ones)]
    joined = {name: torch.cat([state[name].cpu() for state in states]) for name in states[0]}
    stacked = make_head(heads[0].in_channels, len(joined["bias"]))
    stacked.load_state_dict(joined)
    return stacked.requires_grad_(False)


def measure(dataset: Dataset, backbone: Backbone, policies: Policies, seed: int = 0) -> Measured:
    """Apply all heads to every test image; ``seed`` draws the pixels for calibration."""
    every = [heads for seeds in policies.values() for heads in seeds]
    stacked = {group: stack([heads[group] for heads in every]) for group in every[0]}
    of_group = localizers(backbone, stacked)
    sizes = [len(seeds) * CLASSES[policy] for policy, seeds in policies.items()]
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    edited = []
    drawn: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for row in dataset.test.to_dict("records"):
        image, mask = read_pair(row)
        truth = torch.from_numpy(target(mask, row["kind"], row["background"], THREE))
        pixels = torch.from_numpy(rng.integers(truth.numel(), size=PIXELS))
        edited.append((truth.flatten()[pixels] == 2).numpy())
        about = {name: row[name] for name in ("image", "group", "family", "kind", "seen")}
        *of_policies, count = of_group[row["group"]].logits(image).cpu().split([*sizes, 1])
        for policy, summed in zip(policies, of_policies, strict=True):
            of_seeds = summed.unflatten(0, (-1, CLASSES[policy]))  # (seeds, C, H, W)
            by_sum = probabilities(of_seeds)[:, -1] > 0.5
            for reduce in REDUCTIONS:
                probability = probabilities(of_seeds if reduce == "sum" else of_seeds / count)
                case = {"method": policy, "reduce": reduce, **about}
                lines = score(probability, truth, by_sum)
                rows += [case | {"seed": number} | line for number, line in enumerate(lines)]
                of_pixels = probability[:, -1].flatten(1)[:, pixels].numpy()
                drawn.setdefault((policy, reduce), []).append(of_pixels)
    return Measured(
        pd.DataFrame(rows),
        np.repeat(dataset.test["group"].to_numpy(str), PIXELS),
        np.concatenate(edited),
        {key: np.concatenate(of_images, axis=1) for key, of_images in drawn.items()},
    )


def first_maps(backbone: Backbone, policies: Policies) -> Maps:
    """Return what gives every policy's map of a test image, by the head of the first seed."""
    of_policy = {policy: localizers(backbone, seeds[0]) for policy, seeds in policies.items()}
    return lambda image, row: {
        policy: of[row["group"]](image).probability for policy, of in of_policy.items()
    }


def score(probability: Tensor, truth: Tensor, summed: Tensor) -> list[dict[str, float]]:
    """Scores of the maps of one image, one per seed.

    Maps are ``(S, C, H, W)``, see `probabilities`, the truth uint8 ``(H, W)``, numbers in
    `CLASS_NAMES`, ``summed`` bool ``(S, H, W)``: what is predicted with the sum of the logits.
    Scores are ``iou``; ``changed``, the share of all pixels that is predicted otherwise than by the
    sum; for each class ``predicted <class>``, the predicted share of its pixels; and of three
    classes ``<truth> as <class>``, the share of the pixels of a class that is called another (by
    the largest probability); nan without such pixels.
    """
    predicted = probability[:, -1] > 0.5
    classes = F.one_hot(truth.flatten().long(), 3).float()  # (pixels, 3)

    def shares(pixels: Tensor) -> Tensor:
        """Of each class that is among pixels (S, H, W): (S, 3)."""
        return pixels.flatten(1).float() @ classes / classes.sum(0)

    iou = torch.from_numpy(overlap(predicted, truth == 2)["iou"])
    scores = {"iou": iou, "changed": (predicted != summed).float().mean((1, 2))}
    of_classes = {
        f"predicted {name}": of for name, of in zip(CLASS_NAMES, shares(predicted).T, strict=True)
    }
    if probability.shape[1] == 3:
        called = torch.from_numpy(probability.numpy().argmax(1))  # torch takes ten times as long
        for number, name in enumerate(CLASS_NAMES):
            of_called = zip(CLASS_NAMES, shares(called == number).T, strict=True)
            of_classes |= {f"{true} as {name}": of for true, of in of_called}
    scores |= of_classes
    return [
        {name: float(values[seed]) for name, values in scores.items()}
        for seed in range(len(probability))
    ]


def localization(rows: pd.DataFrame) -> pd.DataFrame:
    """IoU of the edit by policy, kind and whether the generator was trained on, and over all, where
    kind and seen are ``"all"``; as of `macro_table`."""
    forged = rows[~rows["kind"].isin(AUTHENTIC_KINDS) & (rows["reduce"] == "sum")]
    kinds = macro_table(forged, ["method", "kind", "seen"], "iou")
    return with_overall(kinds, macro_table(forged, ["method"], "iou"))


def predicted_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Predicted ``share`` of the ``pixels`` of each class by ``method, kind, seen``: of inpainted
    ones it is the recall, of all others the false-positive rate; as of `macro_table`."""
    names = [f"predicted {name}" for name in CLASS_NAMES]
    return _class_shares(rows, ["method", "kind", "seen"], ["pixels"], names)


def confusion(rows: pd.DataFrame) -> pd.DataFrame:
    """``share`` of the pixels of a class, ``truth``, that the three-class head calls each class,
    ``called``, for seen generators and others; as of `macro_table`."""
    names = [f"{truth} as {called}" for truth in CLASS_NAMES for called in CLASS_NAMES]
    return _class_shares(rows[rows["method"] == THREE], ["seen"], ["truth", "called"], names)


def _class_shares(
    rows: pd.DataFrame, by: list[str], names: list[str], scores: list[str]
) -> pd.DataFrame:
    """Table of some scores of `score`, a line each; their names' words become columns."""
    summed = rows[rows["reduce"] == "sum"]
    long = summed.melt([*by, "group", "image", "seed"], scores, "score", "share")
    long[names] = long["score"].str.removeprefix("predicted ").str.split(" as ", expand=True)
    return macro_table(long, [*by, *names], "share")


def background_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """False-positive rate of fully re-generated and of untouched backgrounds, by policy.

    They are the re-encoded pixels of ``fr`` images, and the real ones of ``sp`` images. Photographs
    count alike, those that have both; changes are against ``untouched``. As of `macro_table`;
    without a line where no photograph has both.
    """
    backgrounds = {"regenerated": ("fr", "re-encoded"), "untouched": ("sp", "real")}
    long = pd.concat(
        rows[(rows["kind"] == kind) & (rows["reduce"] == "sum")]
        .rename(columns={f"predicted {name}": RATE})
        .assign(background=background)[["method", "background", "group", RATE]]
        for background, (kind, name) in backgrounds.items()
    ).dropna()
    both = long.groupby("group")["background"].transform("nunique") == 2
    if not both.any():
        return pd.DataFrame(columns=["method", "background", RATE])
    known = long[both].assign(image=long["group"])
    return macro_table(known, ["method", "background"], RATE, {"background": "untouched"})


def calibration(measured: Measured) -> pd.DataFrame:
    """How good the probabilities are, with the logits of overlapping windows added or averaged.

    The columns are ``method, reduce, changed`` and ``iou`` (mean over families), of all images;
    ``ece`` (expected calibration error) with its interval and ``brier`` (mean squared error of the
    probability), over all pixels drawn and all seeds.
    """
    lines, cases = [], measured.rows.groupby(["method", "reduce"])
    for (method, reduce), drawn in measured.probability.items():
        truth, groups = (np.tile(each, len(drawn)) for each in (measured.edited, measured.group))
        part = cases.get_group((method, reduce))
        line = {"method": method, "reduce": reduce, "changed": part["changed"].mean()}
        line |= {"iou": part.groupby("family")["iou"].mean().mean()}
        line |= columns("ece", calibration_error(truth, drawn.ravel(), groups))
        lines.append(line | {"brier": brier_score_loss(truth, drawn.ravel())})
    return pd.DataFrame(lines)


def starred(table: pd.DataFrame) -> list[str]:
    """What the lines of a table are of; an asterisk marks generators that no training has met."""
    names = {"real": "photograph", "reencoded": "re-encoded"}
    marks = table["seen"].astype(bool).map({True: "", False: "*"})
    return list(table["kind"].replace(names) + marks)
