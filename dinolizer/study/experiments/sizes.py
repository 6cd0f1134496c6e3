"""What the size of an edit does to its detection, and what training on small edits changes."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dinolizer.study.experiments.halfway import (
    DETECTED,
    LARGEST,
    RESAMPLES,
    SMALLEST,
    interval,
    thresholds,
)
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import bootstrap_interval
from dinolizer.training.heads import Heads, fit

BINS = 8
SMALL, LARGE = 0.1, 0.2
"""Edits up to the one share are called small here, and from the other on large."""
REPEATS = 5


def training_weights(sample: Sample, extra: Sample, drawn: Tensor) -> dict[str, Tensor]:
    """How much each window counts in each way of training on small edits.

    Parameters
    ----------
    sample, extra
        Windows as they are, and windows of enlarged images that come behind them.
    drawn
        ``(S, F, N)`` of both together, see `Sample.drawn`.

    Returns
    -------
    From the name of the way to weights ``(S, F, N)``. Windows without an edit stay in all of them.
    """
    share = np.concatenate([sample.rows["share"], extra.rows["share"]])
    native = np.arange(len(share)) < len(sample.rows)
    small = (share > 0) & (share <= SMALL)
    ways = {
        "all windows": native,
        f"small edits {REPEATS} times": native * np.where(small, REPEATS, 1),
        "small edits only": native & (small | (share == 0)),
        "enlarged images too": np.ones_like(native),
    }
    return {name: drawn * drawn.new_tensor(counted) for name, counted in ways.items()}


def fit_ways(
    tokens: Tensor, sample: Sample, weights: Mapping[str, Tensor], *, epochs: int, seed: int
) -> Heads:
    """Fit the linear heads of all ways, seeds and folds in one pass; so their axes are named.

    Parameters
    ----------
    tokens, sample
        Windows as they are and the extra ones behind them.
    weights
        Of `training_weights`.
    seed
        Of the order of the windows.
    """
    train = torch.stack(list(weights.values()))  # (W, S, F, N)
    axes = dict(zip(("way", "seed", "fold"), train.shape[:3], strict=True))
    heads = Heads(axes, tokens.shape[1])
    fit(heads, tokens, sample.targets, train, epochs=epochs, seed=seed)
    return heads.requires_grad_(False)


def alike_cuts(
    heads: Heads, tokens: Tensor, sample: Sample, weights: Mapping[str, Tensor]
) -> Tensor:
    """Logit of each head over which it raises as many false alarms as one of the first way at 0.

    A head that marks more finds more: at one half, ways of training differ in both. At these cuts
    the same share of the patches is marked in the unedited windows that a head was fitted on.

    Parameters
    ----------
    heads, tokens, sample, weights
        As `fit_ways` gives and takes them.

    Returns
    -------
    float32 ``(K,)``; 0 in the first way, and for a head fitted on no window without an edit.
    """
    clean = torch.from_numpy(np.flatnonzero(sample.rows["share"] == 0))
    own = torch.cat([of_way.flatten(0, 1) for of_way in weights.values()])  # (K, N)
    reference = len(own) // len(weights)
    cuts = torch.zeros(len(own))
    if not len(clean):
        return cuts
    with torch.no_grad():
        asked = (tokens[some].to(heads.bias.device, torch.float32) for some in clean.split(64))
        logits = torch.cat([heads(some)[:, :, 0].cpu() for some in asked])  # (n, K, h, w)
    for head, used in enumerate(own[:, clean] > 0):
        if head >= reference and used.any():
            rate = (logits[used, head % reference] > 0).float().mean().item()
            cuts[head] = float(np.quantile(logits[used, head].numpy(), 1 - rate))
    return cuts


def window_rows(logits: Tensor, sample: Sample, names: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Scores of every tested window, counted in whole patches: a marked patch marks its pixels.

    Parameters
    ----------
    logits
        ``(N, H, h, w)`` of H heads, see `dinolizer.study.heads.left_out_logits`; over 0 is marked.
    names
        What each of the H heads is, as columns.

    Returns
    -------
    A row per window and head: `names`, ``image, group, family, kind, area, share``; ``iou`` and
    ``recall``, nan without an edit; ``marked``, the marked share of the window.
    """
    tested = sample.fold >= 0
    marked = (logits[tested] > 0).float()
    truth = sample.targets[tested][:, None]
    found = (marked * truth).mean((2, 3)).numpy()  # (N, H), shares of the window
    edited, whole = truth.mean((2, 3)).numpy(), marked.mean((2, 3)).numpy()
    with np.errstate(invalid="ignore"):
        scores = {
            "iou": np.where(edited > 0, found / (edited + whole - found), np.nan),
            "recall": np.where(edited > 0, found / edited, np.nan),
            "marked": whole,
        }
    rows = sample.rows[tested]
    return pd.concat(
        [
            rows.assign(**name, **{score: values[:, head] for score, values in scores.items()})
            for head, name in enumerate(names)
        ],
        ignore_index=True,
    )


def by_size(rows: pd.DataFrame, share: str, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Mean IoU, recall and miss rate in logarithmic bins of the edited share.

    Parameters
    ----------
    rows
        Of one method, one or more a window or image (of several seeds): ``iou, recall, group`` and
        the shares.
    share
        Name of the column of the share.

    Returns
    -------
    A line per bin that has an edit: ``share`` (geometric middle), ``from, to``, ``n`` (rows),
    ``n_photos``; ``iou, recall, missed``, each with its 95 % interval over photographs.
    """
    edges = np.geomspace(SMALLEST, LARGEST, BINS + 1)
    place = np.digitize(rows[share], edges) - 1
    lines = []
    for number, (low, high) in enumerate(pairwise(edges)):
        own = rows[place == number]
        if own.empty:
            continue
        line = {"share": (low * high) ** 0.5, "from": low, "to": high}
        line |= {"n": len(own), "n_photos": own["group"].nunique()}
        missed = own.assign(missed=own["recall"] < DETECTED)
        for score in ("iou", "recall", "missed"):
            ends = bootstrap_interval(
                missed[score].astype(float), own["group"], seed=seed, resamples=resamples
            )
            line |= {score: missed[score].mean(), f"{score}_low": ends[0], f"{score}_high": ends[1]}
        lines.append(line)
    return pd.DataFrame(lines)


def compare_ways(
    rows: pd.DataFrame, share: str, reference: str, seed: int = 0, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """What each way gains for small edits over the reference, and what it costs elsewhere.

    Parameters
    ----------
    rows
        Of several ways and seeds, see `window_rows`, with the columns ``way`` and ``seed``; the
        same windows or images for all.
    share
        Name of the column of the share.
    reference
        The way that all are compared with, edit by edit.

    Returns
    -------
    A line per way: ``threshold`` and its ``shift`` against the reference, ``small_iou`` and
    ``large_iou`` and their changes, and ``marked``, the share that is marked where nothing is
    edited, and its change; intervals are 95 % over photographs. ``threshold_sd`` is the standard
    deviation over seeds.
    """
    rows = rows.assign(number=rows.groupby(["way", "seed"]).cumcount())  # of the window or image
    base = thresholds(rows[rows["way"] == reference], share, seed, resamples)
    parts = {
        "small_iou": ("iou", rows[share].between(0, SMALL, inclusive="right")),
        "large_iou": ("iou", rows[share] >= LARGE),
        "marked": ("marked", rows[share] == 0),
    }
    lines = []
    for way in rows["way"].unique():
        own = rows["way"] == way
        draws = thresholds(rows[own], share, seed, resamples)
        of_seeds = [thresholds(of, share, seed, 0)[0] for _, of in rows[own].groupby("seed")]
        line = {"way": way, **_with_ends("threshold", draws[0], interval(draws))}
        line |= {"threshold_sd": float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else np.nan}
        line |= _with_ends("shift", draws[0] - base[0], interval(draws - base))
        for name, (score, chosen) in parts.items():
            means = rows[chosen].groupby(["way", "group", "number"])[score].mean()
            if means.empty:
                nothing = (np.nan, np.nan)
                line |= {name: np.nan, **_with_ends(f"{name}_change", np.nan, nothing)}
                continue
            change = (means[way] - means[reference]).reset_index()
            ends = bootstrap_interval(change[score], change["group"], seed=seed)
            line[name] = means[way].mean()
            line |= _with_ends(f"{name}_change", change[score].mean(), ends)
        lines.append(line)
    return pd.DataFrame(lines)


def _with_ends(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
