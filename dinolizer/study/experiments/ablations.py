"""What the parts are worth: the backbone, the layer of the tokens, the head and its loss."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from dinolizer.study.samples import Sample
from dinolizer.study.statistics import macro_table
from dinolizer.training.heads import Heads, fit
from dinolizer.training.losses import Loss


@dataclass(frozen=True)
class Shape:
    """A head's shape, see `dinolizer.training.heads.Heads`, and how it is fitted.

    Attributes
    ----------
    lr
        Learning rate; ours, set before any was compared.
    pace
        By how much fewer epochs it gets than the linear head, with as much smaller batches: the
        number of steps is the same.
    """

    kernel: int = 1
    hidden: int = 0
    lr: float = 0.05
    pace: int = 1


SHAPES = {
    "linear": Shape(),
    "3x3 convolution": Shape(kernel=3, lr=0.01, pace=4),
    "MLP": Shape(hidden=16, lr=0.01, pace=4),
}
BATCH = 64
UNTRAINED, GENERIC, FORENSIC = "untrained", "generic", "forensic"


def pretraining(backbone: str) -> str:
    """What a backbone of `dinolizer.model.backbones.BACKBONES` was pre-trained for, by its name."""
    if backbone.startswith("untrained-"):
        return UNTRAINED
    return FORENSIC if backbone.startswith(("bfree", "pocket")) else GENERIC


@dataclass(frozen=True)
class Fitted:
    """Heads of one shape: ``names`` says of each, folds apart, what it is (loss and seed)."""

    heads: Heads
    names: list[dict[str, object]]
    seconds: float


def fit_shape(
    name: str,
    losses: Sequence[Loss],
    tokens: Tensor,
    sample: Sample,
    *,
    seeds: Sequence[int],
    epochs: int,
) -> Fitted:
    """Fit the heads of one of the `SHAPES`: one for each loss, seed and fold, in one pass.

    Parameters
    ----------
    tokens, sample
        ``(N, D, h, w)`` and their labels.
    seeds
        Of the images drawn, see `dinolizer.study.samples.Sample.drawn`; the first one also of the
        order and, where there are hidden values, of the start.
    epochs
        Of the linear head.
    """
    shape = SHAPES[name]
    drawn = sample.drawn(seeds)  # (S, F, N)
    heads = Heads(
        {"loss": len(losses), "seed": len(seeds), "fold": drawn.shape[1]},
        tokens.shape[1],
        kernel=shape.kernel,
        hidden=shape.hidden,
        seed=seeds[0],
    ).to(tokens.device)
    start = time.perf_counter()
    fit(
        heads,
        tokens,
        sample.targets.to(tokens.device),
        drawn.expand(len(losses), *drawn.shape),
        losses=[loss for loss in losses for _ in range(drawn.shape[0] * drawn.shape[1])],
        epochs=max(1, epochs // shape.pace),
        batch_size=BATCH // shape.pace,
        lr=shape.lr,
        seed=seeds[0],
    )
    seconds = time.perf_counter() - start
    names: list[dict[str, object]] = [
        {"head": name, "loss": loss, "seed": seed} for loss in losses for seed in seeds
    ]
    return Fitted(heads.requires_grad_(False), names, seconds)


def compare(
    rows: pd.DataFrame, by: Sequence[str], against: Mapping[str, object], seed: int = 0
) -> pd.DataFrame:
    """Macro IoU of every variant, its change, and its false-positive rate where nothing is edited.

    Parameters
    ----------
    rows
        A row per image (or crop of it), variant and ``seed``: ``image, group, family, iou, marked``
        and the columns ``by``. The same images for all.
    by, against
        As for `dinolizer.study.statistics.macro_table`.

    Returns
    -------
    As of `macro_table`, of ``iou`` and ``false_positive_rate``, whose images count alike.
    """
    table = macro_table(rows[rows["iou"].notna()], by, "iou", against, seed=seed)
    rate = "false_positive_rate"
    unedited = rows[rows["iou"].isna()].drop(columns="family").rename(columns={"marked": rate})
    if unedited.empty:
        return table
    rates = macro_table(unedited, by, rate, seed=seed)
    return table.merge(rates[[*by, rate, f"{rate}_low", f"{rate}_high"]], "left", list(by))


def change_text(line: Mapping[Any, Any], name: str) -> str:
    """A change in words, of a line with its interval, and whether that leaves out zero."""
    clear = line[f"{name}_low"] > 0 or line[f"{name}_high"] < 0
    return f"{line[name]:+.3f}{'' if clear else ' (not significant)'}"
