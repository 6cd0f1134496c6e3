"""What several experiments compare in the same way, and how they say it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from dinolizer.study.samples import Sample
from dinolizer.study.statistics import Measured, macro_mean, macro_table
from dinolizer.training.heads import Heads, Loss, fit

SHAPES = {"linear": (1, 0, 0.05, 1), "3x3 convolution": (3, 0, 0.01, 4), "MLP": (1, 16, 0.01, 4)}
"""Kernel and hidden values of `Heads`; the learning rate, set before any was compared; by how much
epochs and batches are smaller than the linear head's (the number of steps is the same)."""
BATCH = 64
UNTRAINED, GENERIC, FORENSIC = "untrained", "generic", "forensic"
RATE = "false_positive_rate"


def compare(
    rows: pd.DataFrame,
    by: Sequence[str],
    against: Mapping[str, object],
    seed: int = 0,
    scores: Sequence[str] = ("iou",),
) -> pd.DataFrame:
    """Table of `macro_table`: ``scores`` of every variant and, where nothing is edited, its
    ``false_positive_rate`` (all images count alike). A row is of an image (or crop of it), variant
    and ``seed``: ``image, group, family``, the scores, ``predicted_area`` and the columns ``by``.
    """
    table = macro_table(rows[rows["iou"].notna()], by, scores, against, seed=seed)
    unedited = rows[rows["iou"].isna()].drop(columns="family").drop(columns=RATE, errors="ignore")
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
    Several rows of an image count by their mean; no rows where nothing else has the score."""
    scores = rows.pivot_table(score, ["family", "group", "image"], by)
    others = scores[[second] if second else scores.columns.drop(first)]
    best = others.groupby("family").mean().mean()
    if best.empty:
        return pd.DataFrame(columns=["family", "group", "image", "lead"])
    return (scores[first] - scores[best.idxmax()]).dropna().rename("lead").reset_index()


def mean_lead(lead: pd.DataFrame, seed: int = 0) -> Measured:
    """Mean over families of `leads`."""
    return macro_mean(lead["lead"], lead["group"], lead["family"], seed=seed)


def change_text(line: "Mapping[Any, Any] | pd.Series[Any]", name: str) -> str:
    """A change in words, and whether its interval, on the same line, leaves out zero."""
    clear = line[f"{name}_low"] > 0 or line[f"{name}_high"] < 0
    return f"{line[name]:+.3f}{'' if clear else ' (not significant)'}"


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
