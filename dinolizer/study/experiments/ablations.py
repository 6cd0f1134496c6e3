"""What the parts are worth: the backbone, the layer of the tokens, the head and its loss."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from dinolizer.study.samples import Sample
from dinolizer.study.statistics import macro_mean
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
    rows: pd.DataFrame, by: Sequence[str], reference: Mapping[str, object], seed: int = 0
) -> pd.DataFrame:
    """Macro IoU of every variant, and its difference to one of them, image by image.

    Parameters
    ----------
    rows
        A row per image (or crop of it), variant and ``seed``: ``image, group, family, iou, marked``
        and the columns ``by``. The same images for all.
    by
        Columns that tell the variants apart.
    reference
        Their values for the variant that all are compared with.

    Returns
    -------
    A line per variant: ``n`` images, ``iou`` (mean over seeds, images of a family, families) with
    its 95 % interval over photographs, ``iou_sd`` (standard deviation over seeds), ``change``, the
    difference to the reference, with its interval, and ``marked``, the mean share that is marked
    where nothing is edited (nan without such rows).
    """
    variants: dict[Any, pd.DataFrame] = dict(list(rows.groupby(list(by), sort=False)))
    base = _of_images(variants[tuple(reference[name] for name in by)])
    lines = []
    for values, own in variants.items():
        images = _of_images(own)
        line: dict[str, object] = {**dict(zip(by, values, strict=True)), "n": len(images)}
        line |= _with_interval("iou", images, seed)
        of_seeds = own.groupby(["seed", "family"])["iou"].mean().groupby("seed").mean()
        line |= {"iou_sd": of_seeds.std(ddof=1), **_with_interval("change", images - base, seed)}
        lines.append(line | {"marked": own.loc[own["iou"].isna(), "marked"].mean()})
    return pd.DataFrame(lines)


def _of_images(rows: pd.DataFrame) -> "pd.Series[float]":
    """IoU of every edited image, mean over seeds."""
    edited = rows[rows["iou"].notna()]
    return edited.groupby(["group", "family", "image"], sort=False)["iou"].mean()


def _with_interval(name: str, values: "pd.Series[float]", seed: int) -> dict[str, float]:
    """Macro mean of values that are indexed by group, family and image, and its interval."""
    families, groups = (values.index.get_level_values(level) for level in ("family", "group"))
    mean, low, high = macro_mean(values, families, groups, seed=seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
