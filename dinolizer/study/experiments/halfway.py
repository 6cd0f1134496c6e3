"""The share of a window, or of an image, at which half of the edits are detected."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dinolizer.study.statistics import bootstrap_draws, percentile_interval

SMALLEST, LARGEST = 0.005, 0.6
DETECTED = 0.5
"""An edit is detected when at least this share of its pixels is marked."""
PAPER_RANGE = (0.12, 0.20)
"""The paper: edits below 12 to 20 % of a window are missed."""
RESAMPLES = 300
WEAK = 1e4
"""Inverse of the penalty on the slope: no more than what a share that tells all apart needs."""
SIZE_RULE = (
    f"An edit is detected where at least {DETECTED:.0%} of its pixels are marked; the threshold is "
    "the share at which a logistic curve over the logarithm of the share is at one half"
)


def thresholds(
    rows: pd.DataFrame, share: str, seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Share at which detection is at one half, of all photographs and of bootstrap draws of them.

    The curve is a logistic regression of detected or not on the logarithm of the share, over edits
    from `SMALLEST` to `LARGEST`.

    Parameters
    ----------
    rows, share
        As in `dinolizer.study.experiments.sizes.by_size`.
    seed, resamples
        Of the draws; the same photographs give the same draws, so that ways can be compared.

    Returns
    -------
    float ``(1 + resamples,)``: that of all photographs first. 1 where the whole window would not
    be enough, or detection does not grow with the share: half is never reached. `SMALLEST` where
    half is reached at every size that was measured. nan without any edit of these sizes.
    """
    known = rows[rows[share].between(SMALLEST, LARGEST)]
    if known.empty:
        return np.full(1 + resamples, np.nan)
    photos, photo = np.unique(known["group"].to_numpy(str), return_inverse=True)
    logarithm = np.log(known[share].to_numpy(float))
    detected = known["recall"].to_numpy(float) >= DETECTED
    # Rows of several seeds are counted together: how many of the same edit were detected, or not.
    edits, edit = np.unique(np.stack([photo, logarithm]), axis=1, return_inverse=True)
    tallies = [np.bincount(edit.ravel(), weights=of) for of in (detected, ~detected)]
    counts = np.concatenate(tallies)
    places, owner = np.tile(edits[1], 2)[:, None], np.tile(edits[0].astype(int), 2)
    yes = np.repeat([True, False], edits.shape[1])
    blocks = bootstrap_draws(len(photos), seed, resamples)
    weights = [counts, *(counts * draw[owner] for draws in blocks for draw in draws)]
    return np.array([_half(places, yes, weight) for weight in weights])


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile interval of the draws of `thresholds`, or of differences between them."""
    return percentile_interval(draws[1:])


def _half(
    places: NDArray[np.float64], yes: NDArray[np.bool_], weight: NDArray[np.float64]
) -> float:
    """Share at which the weighted logistic curve is at one half, from `SMALLEST` to 1."""
    there = weight > 0
    if not there.any() or yes[there].all():
        return SMALLEST
    if not yes[there].any():
        return 1.0
    curve = LogisticRegression(C=WEAK, solver="newton-cholesky")
    curve.fit(places[there], yes[there], sample_weight=weight[there])
    slope, offset = float(curve.coef_[0, 0]), float(curve.intercept_[0])
    return float(np.clip(np.exp(min(-offset / slope, 0.0)), SMALLEST, 1)) if slope > 0 else 1.0
