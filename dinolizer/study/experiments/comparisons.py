"""What several experiments compare in the same way, and how they say it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from torch import Tensor

from dinolizer.data.manifest import read_pair
from dinolizer.study.evaluation import Method, edited_truth
from dinolizer.study.metrics import counts
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import Measured, macro_mean, macro_table
from dinolizer.training.heads import Heads, Loss, fit

SHAPES = {"linear": (1, 0, 0.05, 1), "3x3 convolution": (3, 0, 0.01, 4), "MLP": (1, 16, 0.01, 4)}
"""Kernel and hidden values of `Heads`; the learning rate, set before any was compared; by how much
epochs and batches are smaller than the linear head's (the number of steps is the same)."""
BATCH = 64
UNTRAINED, GENERIC, FORENSIC = "untrained", "generic", "forensic"
RATE = "false_positive_rate"
RATES = {"1": 0.01, "5": 0.05}  # shares of the pixels of unedited photographs that are marked
GRID = np.linspace(0, 1, 41)  # false-positive rates of a ROC curve
LEVELS = np.linspace(0, 1, 2001)
"""Quantiles that stand for the values of one map, so that large images count like small ones."""


def compare(
    rows: pd.DataFrame, by: Sequence[str], against: Mapping[str, object], seed: int = 0
) -> pd.DataFrame:
    """Table of `macro_table`: ``iou`` of every variant and, where nothing is edited, its
    ``false_positive_rate`` (all images count alike). A row is of an image (or crop of it), variant
    and ``seed``: ``image, group, family, iou, predicted_area`` and the columns ``by``."""
    table = macro_table(rows[rows["iou"].notna()], by, "iou", against, seed=seed)
    unedited = rows[rows["iou"].isna()].drop(columns="family")
    if unedited.empty:
        return table
    rates = macro_table(unedited.rename(columns={"predicted_area": RATE}), by, RATE, seed=seed)
    return table.merge(rates[[*by, RATE, f"{RATE}_low", f"{RATE}_high"]], "left", list(by))


def by_generators(rows: pd.DataFrame, unedited: "pd.Series[bool]") -> pd.DataFrame:
    """Rows by ``generators``, seen in training or held out, if they have edits; unedited rows are
    of both."""
    seen = rows["seen"].astype(bool)
    return pd.concat(
        rows[of | unedited].assign(generators=name)
        for name, of in (("seen", seen), ("held out", ~seen))
        if (of & ~unedited).any()
    )


def leads(
    rows: pd.DataFrame, first: str, second: str = "", by: str = "method", score: str = "iou"
) -> pd.DataFrame:
    """How far a score of one value of ``by`` is above that of another, by default of the next best
    (the highest mean over families), for each image that has both: ``family, group, image, lead``.
    Several rows of an image count by their mean."""
    scores = rows.pivot_table(score, ["family", "group", "image"], by)
    second = second or str(scores.groupby("family").mean().mean().drop(first).idxmax())
    return (scores[first] - scores[second]).dropna().rename("lead").reset_index()


def mean_lead(lead: pd.DataFrame, seed: int = 0) -> Measured:
    """Mean over families of `leads`."""
    return macro_mean(lead["lead"], lead["group"], lead["family"], seed=seed)


def change_text(line: "Mapping[Any, Any] | pd.Series[Any]", name: str) -> str:
    """A change in words, and whether its interval, on the same line, leaves out zero."""
    clear = line[f"{name}_low"] > 0 or line[f"{name}_high"] < 0
    return f"{line[name]:+.3f}{'' if clear else ' (not significant)'}"


def matched_rows(
    methods: Collection[Method], manifest: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every edited image at thresholds that mark the same share of the unedited photographs
    (kind ``real``) of all other groups; nan without any.

    Rows, of each method and image, have ``auc`` of the pixels, and for each of `RATES`, say 1 %,
    ``iou_at_1`` and ``recall_at_1``. Curves, ``method, false, true``, are the mean over images of
    the true-positive rate at each of `GRID`.
    """
    real, edited = manifest[manifest["kind"] == "real"], manifest[~manifest["authentic"]]
    rows, curves = [], []
    for method in methods:
        maps = [(row["group"], method(read_pair(row)[0], row)) for row in real.to_dict("records")]
        values = [(group, np.quantile(of, LEVELS)) for group, of in maps]
        for row in edited.to_dict("records"):
            image, mask = read_pair(row)
            truth, found = edited_truth(mask, row), method(image, row)
            if truth.all():
                continue
            others = [of for group, of in values if group != row["group"]]
            known = np.concatenate(others or [np.array([np.nan])])
            line = {name: row[name] for name in ("image", "group", "family", "kind")}
            line |= {"method": method.name, "auc": roc_auc_score(truth.ravel(), found.ravel())}
            for name, rate in RATES.items():
                threshold = np.quantile(known, 1 - rate)
                scores = counts(found > threshold, truth)
                recall = scores.tp / (scores.tp + scores.fn)
                line[f"iou_at_{name}"] = np.nan if np.isnan(threshold) else scores.iou
                line[f"recall_at_{name}"] = np.nan if np.isnan(threshold) else recall
            rows.append(line)
            passed, cuts = np.sort(found[truth]), np.quantile(found[~truth], 1 - GRID)
            true = 1 - np.searchsorted(passed, cuts, side="right") / len(passed)
            true[-1] = 1.0  # everything is marked
            curves.append(pd.DataFrame({"method": method.name, "false": GRID, "true": true}))
    curve = pd.concat(curves).groupby(["method", "false"], sort=False).mean().reset_index()
    return pd.DataFrame(rows), curve


def pretraining(backbone: str) -> str:
    """What a backbone of `dinolizer.model.backbones.BACKBONES` was pre-trained for, by its name."""
    if backbone.startswith("untrained-"):
        return UNTRAINED
    return FORENSIC if backbone.startswith(("bfree", "pocket")) else GENERIC


def fit_shape(
    name: str,
    losses: Sequence[Loss],
    tokens: Tensor,
    sample: Sample,
    seeds: Sequence[int],
    epochs: int,
) -> tuple[Heads, list[dict[str, object]]]:
    """Fit heads of one of the `SHAPES`, axes ``loss, seed, fold``, on tokens ``(N, D, h, w)``; and
    say of each, folds apart, what it is: ``head, loss, seed``. The seeds draw the images, see
    `Sample.drawn`; the first one is also that of the fit. ``epochs`` are those of the linear head.
    """
    kernel, hidden, lr, pace = SHAPES[name]
    drawn = sample.drawn(seeds)  # (S, F, N)
    axes = {"loss": len(losses), "seed": len(seeds), "fold": drawn.shape[1]}
    heads = Heads(axes, tokens.shape[1], 1, kernel, hidden, seeds[0]).to(tokens.device)
    settings: dict[str, Any] = {"lr": lr, "seed": seeds[0]}
    settings |= {"epochs": max(1, epochs // pace), "batch_size": BATCH // pace}
    targets, train = sample.targets.to(tokens.device), drawn.expand(len(losses), *drawn.shape)
    of_heads = [loss for loss in losses for _ in range(drawn.shape[0] * drawn.shape[1])]
    fit(heads, tokens, targets, train, losses=of_heads, **settings)
    return heads, [{"head": name, "loss": loss, "seed": seed} for loss in losses for seed in seeds]
