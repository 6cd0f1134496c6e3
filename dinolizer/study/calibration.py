"""Does it happen as often as the probability says? Reliability, its error, and its repair.

Intervals are 95 % percentile intervals of a bootstrap over photographs, as those of
`dinolizer.study.metrics`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from dinolizer.study.metrics import bootstrap_draws, bootstrap_interval, percentile_interval

BINS = 10
"""Bins of equal width between 0 and 1: the usual number."""
FOLDS = 10
"""At most so many parts that photographs are divided into for cross-fitting."""
CALIBRATIONS = ("platt", "isotonic")


@dataclass(frozen=True)
class Error:
    """Expected calibration error, 0 to 1, with its interval (nan for fewer than two photographs).

    A mean of absolute values, it is over 0 also by chance; resampling adds to it, so that the
    interval lies rather high.
    """

    value: float
    low: float
    high: float


def reliability(truth: ArrayLike, probability: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """The points of a reliability curve, one for each bin that holds anything.

    Parameters
    ----------
    truth : bool (N,), what happened.
    probability : float (N,) in [0, 1], what was said.
    groups : (N,), the photograph of each.

    Returns
    -------
    Columns ``predicted`` (mean probability in the bin), ``observed`` (share that happened), ``low,
    high`` (the interval of it) and ``n``.
    """
    happened, said = np.asarray(truth, dtype=bool), np.asarray(probability, dtype=float)
    photos, number = np.asarray(groups), bin_numbers(said)
    observed, predicted = calibration_curve(happened, said, n_bins=BINS)
    lines = []
    for place, bin_ in enumerate(np.unique(number)):
        inside = number == bin_
        low, high = bootstrap_interval(happened[inside], photos[inside])
        lines.append((predicted[place], observed[place], low, high, int(inside.sum())))
    return pd.DataFrame(lines, columns=["predicted", "observed", "low", "high", "n"])


def calibration_error(
    truth: ArrayLike,
    probability: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Error:
    """Expected calibration error: ``sum over bins of (n_b / N) |observed_b - predicted_b|``.

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015; Guo et al., "On calibration of modern neural networks", ICML 2017.

    Parameters
    ----------
    truth, probability, groups : as for `reliability`.
    seed, resamples : of the bootstrap.
    """
    said = np.asarray(probability, dtype=float)
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    # n_b (observed_b - predicted_b) is a sum over members, and so over photographs.
    gaps = np.zeros((len(photos), BINS))
    np.add.at(gaps, (photo, bin_numbers(said)), np.asarray(truth, dtype=float) - said)
    sizes = np.bincount(photo, minlength=len(photos))
    value = float(np.abs(gaps.sum(axis=0)).sum() / sizes.sum())
    if len(photos) < 2:
        return Error(value, float("nan"), float("nan"))
    errors = [
        np.abs(draws @ gaps).sum(axis=1) / (draws @ sizes)
        for draws in bootstrap_draws(len(photos), seed, resamples)
    ]
    return Error(value, *percentile_interval(np.concatenate(errors)))


def calibrate(
    scores: ArrayLike, truth: ArrayLike, groups: ArrayLike, how: str
) -> NDArray[np.float64]:
    """Turn scores into probabilities that are fitted on other photographs than they are given to.

    Parameters
    ----------
    scores : float (N,), in any unit, higher = more likely.
    truth : bool (N,).
    groups : (N,), the photograph of each; see `folds`.
    how : ``"platt"``: a logistic curve (Platt 1999); ``"isotonic"``: steps that never fall
        (Zadrozny and Elkan 2002).

    Returns
    -------
    float (N,) in [0, 1]; nan where the other photographs hold but one of both sorts.
    """
    values, happened = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    found = np.full(len(values), np.nan)
    for others, own in folds(groups):
        if len(np.unique(happened[others])) < 2:
            continue
        if how == "isotonic":
            steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            found[own] = steps.fit(values[others], happened[others]).predict(values[own])
        else:
            centre, scale = values[others].mean(), values[others].std() or 1.0
            standard = ((values - centre) / scale)[:, None]
            # No penalty to speak of: the curve is to be that of the scores.
            curve = LogisticRegression(C=1e6).fit(standard[others], happened[others])
            found[own] = curve.predict_proba(standard[own])[:, 1]
    return found


def folds(groups: ArrayLike) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of the other photographs and of the own ones, for each part of the photographs.

    Each photograph is a part of its own where there are no more than `FOLDS`; none for a single
    photograph, which has no others.
    """
    photos = np.asarray(groups)
    count = min(FOLDS, len(np.unique(photos)))
    return list(GroupKFold(count).split(photos, groups=photos)) if count > 1 else []


def bin_numbers(probability: NDArray[np.floating]) -> NDArray[np.int64]:
    """From 0 to `BINS` - 1; a bin has its upper edge, the first one both, as in scikit-learn."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
