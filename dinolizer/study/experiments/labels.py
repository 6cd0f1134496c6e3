"""What re-encoded pixels are called in training, and what that does to the map.

Heads of all policies, for several seeds, are fitted on the same tokens and applied as one stacked
head, so that an image is met once. Tables average seeds on each image first.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.data.manifest import POLICIES, read_pair, target
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES, make_head, probabilities
from dinolizer.model.windows import REDUCTIONS
from dinolizer.study.experiments.comparisons import RATE
from dinolizer.study.heads import EPOCHS, fit, localizers, overlap
from dinolizer.study.metrics import calibration_error
from dinolizer.study.samples import Dataset, window_sample
from dinolizer.study.statistics import columns, macro_table
from dinolizer.training.heads import fit_heads

Policies = dict[str, list[dict[str, nn.Conv2d]]]
"""From each policy to its heads of each seed: from a photograph to the one that never met it."""
Probabilities = dict[tuple[str, str], NDArray[np.float32]]
"""Of pixels, that they are edited, by policy and reduction of logits: ``(seeds, N)``."""
CLASS_NAMES = ("real", "re-encoded", "inpainted")  # as the three-class head's channels
PRISTINE, FAKE, THREE = POLICIES
KEPT = 0.8  # share of the training images that each seed draws, with leave-one-photo-out
PIXELS = 200  # of each image, drawn at random, that calibration is measured on


def fit_policies(
    dataset: Dataset, backbone: Backbone, seeds: Sequence[int], epochs: int = EPOCHS
) -> Policies:
    """Fit heads of all policies, for each seed, as `dinolizer.study.heads.fit` does; but without a
    training set all seeds together, each on a share of `KEPT` of the images, the same for all
    policies."""
    if dataset.train is not None:

        def trained(policy: str, seed: int) -> dict[str, nn.Conv2d]:
            fits = fit(dataset, backbone, epochs=epochs, seed=seed, policy=policy)
            return fits.heads(dataset.test)

        return {policy: [trained(policy, seed) for seed in seeds] for policy in POLICIES}
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
    """One head with the channels of all, and a last channel of ones: added up over windows it
    counts them, so that the mean of the logits is the sum over it."""
    dim = heads[0].in_channels
    biases = [*(head.state_dict()["bias"].cpu() for head in heads), torch.ones(1)]
    weights = [*(head.weight.cpu() for head in heads), torch.zeros(1, dim, 1, 1)]
    joined = {"weight": torch.cat(weights), "bias": torch.cat(biases)}
    stacked = make_head(dim, len(joined["bias"]))
    stacked.load_state_dict(joined)
    return stacked.requires_grad_(False)


def measure(
    dataset: Dataset, backbone: Backbone, policies: Policies, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, Probabilities]:
    """Apply all heads to every test image: rows of `score` for each image, policy (``method``),
    ``seed`` and ``reduce`` (how the logits of windows are put together); the ``group`` of each
    pixel drawn and whether it is ``edited``; and the probabilities of that."""
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
        places = torch.from_numpy(rng.integers(truth.numel(), size=PIXELS))
        edited.append((truth.flatten()[places] == 2).numpy())
        about = {name: row[name] for name in ("image", "group", "family", "kind", "seen")}
        *of_policies, count = of_group[row["group"]].logits(image).cpu().split([*sizes, 1])
        for policy, summed in zip(policies, of_policies, strict=True):
            of_seeds = summed.unflatten(0, (-1, CLASSES[policy]))  # (seeds, C, H, W)
            by_sum = probabilities(of_seeds)[:, -1] > 0.5
            for reduce in REDUCTIONS:
                probability = probabilities(of_seeds if reduce == "sum" else of_seeds / count)
                for number, scores in enumerate(score(probability, truth, by_sum)):
                    case = {"method": policy, "reduce": reduce, **about, "seed": number}
                    rows.append(case | scores)
                of_pixels = probability[:, -1].flatten(1)[:, places].numpy()
                drawn.setdefault((policy, reduce), []).append(of_pixels)
    said = {case: np.concatenate(parts, axis=1) for case, parts in drawn.items()}
    groups = np.repeat(dataset.test["group"].to_numpy(str), PIXELS)
    pixels = pd.DataFrame({"group": groups, "edited": np.concatenate(edited)})
    return pd.DataFrame(rows), pixels, said


def score(probability: Tensor, truth: Tensor, summed: Tensor) -> list[dict[str, float]]:
    """Scores of the maps of one image, one per seed: maps ``(S, C, H, W)``, see `probabilities`,
    the truth uint8 ``(H, W)``, numbers in `CLASS_NAMES`, and what is predicted with the sum of the
    logits, bool ``(S, H, W)``.

    They are ``iou``; ``changed``, the share of all pixels that is predicted otherwise than by the
    sum; ``predicted <class>``, the predicted share of a class; and of three classes
    ``<truth> as <class>``, the share of a class that is called another (of the largest
    probability); nan without pixels.
    """
    predicted = probability[:, -1] > 0.5
    iou = overlap(predicted, truth == 2)["iou"].tolist()
    scores = {"iou": iou, "changed": (predicted != summed).float().mean((1, 2)).tolist()}
    masks = {"predicted {}": predicted}
    if probability.shape[1] == 3:
        called = torch.from_numpy(probability.numpy().argmax(1))  # torch takes ten times as long
        masks |= {f"{{}} as {name}": called == number for number, name in enumerate(CLASS_NAMES)}
    classes = F.one_hot(truth.flatten().long(), 3).float()  # (pixels, 3)
    for text, pixels in masks.items():
        shares = pixels.flatten(1).float() @ classes / classes.sum(0)  # (S, 3)
        scores |= {text.format(name): shares[:, n].tolist() for n, name in enumerate(CLASS_NAMES)}
    return [dict(zip(scores, line, strict=True)) for line in zip(*scores.values(), strict=True)]


def class_shares(rows: pd.DataFrame, by: list[str], names: list[str]) -> pd.DataFrame:
    """Table of `macro_table`: the ``share`` of the pixels of each class that is predicted, with the
    names ``pixels`` (of inpainted ones the recall, of all others the false-positive rate), or that
    three classes call each class, with the names ``truth, called``."""
    scores = [f"predicted {name}" for name in CLASS_NAMES]
    if names != ["pixels"]:
        scores = [f"{truth} as {called}" for truth in CLASS_NAMES for called in CLASS_NAMES]
    summed = rows[rows["reduce"] == "sum"]
    long = summed.melt([*by, "group", "image", "seed"], scores, "score", "share")
    long[names] = long["score"].str.removeprefix("predicted ").str.split(" as ", expand=True)
    return macro_table(long, [*by, *names], "share")


def background_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Table of `macro_table`: false-positive rate of fully re-generated backgrounds (``fr``),
    against untouched ones (``sp``), by policy. Photographs count alike, those that have both; no
    line without."""
    rows = rows[(rows["reduce"] == "sum") & rows["kind"].isin(["fr", "sp"])]
    whole = rows["kind"] == "fr"
    rate = rows["predicted re-encoded"].where(whole, rows["predicted real"])
    named = rows.assign(**{RATE: rate}, background=np.where(whole, "regenerated", "untouched"))
    long = named[["method", "background", "group", RATE]].dropna()
    long = long.sort_values("background", kind="stable").assign(image=long["group"])
    both = long.groupby("group")["background"].transform("nunique") == 2
    if not both.any():
        return pd.DataFrame(columns=["method", "background", RATE])
    return macro_table(long[both], ["method", "background"], RATE, {"background": "untouched"})


def calibration(rows: pd.DataFrame, pixels: pd.DataFrame, said: Probabilities) -> pd.DataFrame:
    """How good the probabilities of `measure` are: ``method, reduce, changed, iou`` (mean over
    families), ``ece`` (expected calibration error) with its interval and ``brier`` (mean squared
    error), over all pixels drawn and all seeds."""
    lines, cases = [], rows.groupby(["method", "reduce"])
    for (method, reduce), drawn in said.items():
        truth, groups = (np.tile(pixels[name], len(drawn)) for name in ("edited", "group"))
        part = cases.get_group((method, reduce))
        line = {"method": method, "reduce": reduce, "changed": part["changed"].mean()}
        line |= {"iou": part.groupby("family")["iou"].mean().mean()}
        line |= columns("ece", calibration_error(truth, drawn.ravel(), groups))
        lines.append(line | {"brier": brier_score_loss(truth, drawn.ravel())})
    return pd.DataFrame(lines)
