"""Was anything edited at all? One score per image, its decision and its probability.

Thresholds and calibrations are fitted on other photographs than they are used on. Intervals are
95 % percentile intervals of a bootstrap over photographs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve
from sklearn.model_selection import GroupKFold

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.statistics import bootstrap_draws, bootstrap_interval, percentile_interval

Values = NDArray[np.float64]
UNEDITED = {"real": ("real",), "reencoded": ("reencoded",), "both": AUTHENTIC_KINDS}
"""The kinds of images without an edit that edited ones are told from."""
BINS = 10
"""Bins of equal width between 0 and 1: the usual number."""
FOLDS = 10
"""At most so many folds of photographs."""
DETECTION_RULE = (
    "Score: 99th percentile of the map. Balanced accuracy at the threshold that is best on other "
    "photographs; ece: expected calibration error of the score as it is, where the map is a "
    "probability, and after Platt's and isotonic calibration fitted on other photographs; all "
    "depend on the share of edited images among these"
)


def detection_table(
    rows: pd.DataFrame, probabilities: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Table of image-level detection: a line for each method and each of `UNEDITED` with images.

    The columns are ``method, unedited, n_edited, n_unedited, auc, auc_low, auc_high,
    balanced_accuracy, ece, ece_low, ece_high, ece_platt, ece_isotonic``; ``ece`` with its interval
    is nan except for the methods in ``probabilities``, whose maps are such.
    """
    ends = ("", "_low", "_high")
    lines = []
    for method in rows["method"].unique():
        for unedited in UNEDITED:
            images = edited_or_not(rows, method, unedited)
            edited, groups = images["edited"].to_numpy(bool), images["group"]
            if edited.all() or not edited.any():
                continue
            scores = images["score"].to_numpy(float)
            auc = (roc_auc_score(edited, scores), *auc_interval(scores, edited, groups, seed=seed))
            errors = (np.nan,) * 3
            if method in probabilities:
                errors = calibration_error(edited, scores, groups, seed=seed)
            lines.append(
                {
                    "method": method,
                    "unedited": unedited,
                    "n_edited": int(edited.sum()),
                    "n_unedited": int((~edited).sum()),
                    **{f"auc{end}": number for end, number in zip(ends, auc, strict=True)},
                    "balanced_accuracy": left_out_accuracy(scores, edited, groups),
                    **{f"ece{end}": number for end, number in zip(ends, errors, strict=True)},
                }
            )
            for how in CALIBRATIONS:
                said = calibrate(scores, edited, groups, how)
                known = ~np.isnan(said)
                error = calibration_error(edited[known], said[known], groups[known], resamples=1)
                lines[-1][f"ece_{how}"] = error[0]
    return pd.DataFrame(lines)


def edited_or_not(rows: pd.DataFrame, method: str, unedited: str = "both") -> pd.DataFrame:
    """Rows of a method's edited images and of one of `UNEDITED`, with the column ``edited``."""
    of_method = rows[rows["method"] == method]
    edited = ~of_method["kind"].isin(AUTHENTIC_KINDS)
    return of_method.assign(edited=edited)[edited | of_method["kind"].isin(UNEDITED[unedited])]


def reliability_curves(rows: pd.DataFrame, method: str) -> dict[str, pd.DataFrame]:
    """Reliability of a score, as it is and calibrated; empty unless images are of both sorts."""
    images = edited_or_not(rows, method)
    scores, edited, groups = (images[name].to_numpy() for name in ("score", "edited", "group"))
    if len(np.unique(edited)) < 2:
        return {}
    said = {"score as it is": scores}
    said |= {how: calibrate(scores, edited, groups, how) for how in CALIBRATIONS}
    known = {name: ~np.isnan(values) for name, values in said.items()}
    return {
        name: reliability(edited[known[name]], values[known[name]], groups[known[name]])
        for name, values in said.items()
        if known[name].any()
    }


def left_out_accuracy(scores: ArrayLike, edited: ArrayLike, groups: ArrayLike) -> float:
    """Balanced accuracy, each photograph decided by the threshold that is best on the others; nan
    without both sorts. Photographs whose others are all of one sort are left out."""
    called, truth = calibrate(scores, edited, groups, "threshold"), np.asarray(edited, dtype=bool)
    known = ~np.isnan(called)
    if len(np.unique(truth[known])) < 2:
        return float("nan")
    return float(balanced_accuracy_score(truth[known], called[known].astype(bool)))


def auc_interval(
    scores: NDArray[np.floating],
    edited: NDArray[np.bool_],
    groups: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """95 % interval of the area under the ROC curve, over photographs; nan for fewer than two.

    A draw weights the images; draws without both sorts are left out.
    """
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    if len(photos) < 2:
        return float("nan"), float("nan")
    order = np.argsort(scores[~edited])
    rest, rest_photo = scores[~edited][order], photo[~edited][order]
    # How many of the unedited images an edited one is over; of equals it is over half.
    places = [np.searchsorted(rest, scores[edited], side) for side in ("left", "right")]
    areas = []
    for draws in bootstrap_draws(len(photos), seed, resamples):
        for draw in draws:
            passed = np.concatenate([[0], np.cumsum(draw[rest_photo])])
            weight = draw[photo[edited]]
            if passed[-1] and weight.any():
                over = weight @ (passed[places[0]] + passed[places[1]]) / 2
                areas.append(over / (weight.sum() * passed[-1]))
    return percentile_interval(np.array(areas))


def reliability(truth: ArrayLike, probability: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Points of a reliability curve, one for each bin that is not empty.

    ``(N,)`` each: the truth, bool; the probability, in [0, 1]; the photograph. Columns:
    ``predicted`` (the bin's mean), ``observed`` (true share), ``low, high`` (its interval), ``n``.
    """
    happened, said = np.asarray(truth, dtype=bool), np.asarray(probability, dtype=float)
    photos, number = np.asarray(groups), bin_numbers(said)
    observed, predicted = calibration_curve(happened, said, n_bins=BINS)
    lines = []
    for point, bin_ in enumerate(np.unique(number)):
        inside = number == bin_
        low, high = bootstrap_interval(happened[inside], photos[inside])
        lines.append((predicted[point], observed[point], low, high, int(inside.sum())))
    return pd.DataFrame(lines, columns=["predicted", "observed", "low", "high", "n"])


def calibration_error(
    truth: ArrayLike,
    probability: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """Expected calibration error, 0 to 1, and its interval (nan for fewer than two photographs).

    It is ``sum over bins of (n_b / N) |observed_b - predicted_b|`` (Naeini, Cooper and Hauskrecht,
    "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo et al., "On
    calibration of modern neural networks", ICML 2017). A mean of absolute values, it is over 0 also
    by chance; resampling adds to it, so the interval lies rather high. Arguments are as for
    `reliability`; without any values, all is nan.
    """
    said = np.asarray(probability, dtype=float)
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    # n_b (observed_b - predicted_b) is a sum over members, and so over photographs.
    gaps = np.zeros((len(photos), BINS))
    np.add.at(gaps, (photo, bin_numbers(said)), np.asarray(truth, dtype=float) - said)
    sizes = np.bincount(photo, minlength=len(photos))
    if not len(said):
        return float("nan"), float("nan"), float("nan")
    value = float(np.abs(gaps.sum(axis=0)).sum() / sizes.sum())
    if len(photos) < 2:
        return value, float("nan"), float("nan")
    errors = [
        np.abs(draws @ gaps).sum(axis=1) / (draws @ sizes)
        for draws in bootstrap_draws(len(photos), seed, resamples)
    ]
    return value, *percentile_interval(np.concatenate(errors))


def calibrate(
    scores: ArrayLike, truth: ArrayLike, groups: ArrayLike, how: str
) -> NDArray[np.float64]:
    """Turn scores, higher = more likely, into probabilities that are fitted on other photographs.

    ``how`` is a key of `FITS`. At most `FOLDS` folds; nan where the others are all of one sort.
    """
    values, happened = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    photos, said = np.asarray(groups), np.full(len(values), np.nan)
    count = min(FOLDS, len(np.unique(photos)))
    for others, left_out in GroupKFold(count).split(photos, groups=photos) if count > 1 else []:
        if len(np.unique(happened[others])) == 2:
            said[left_out] = FITS[how](values[others], happened[others], values[left_out])
    return said


def _platt(scores: Values, truth: NDArray[np.bool_], new: Values) -> Values:
    centre, scale = scores.mean(), scores.std() or 1.0
    # No penalty to speak of: the curve is to be that of the scores.
    curve = LogisticRegression(C=1e6).fit((scores[:, None] - centre) / scale, truth)
    return np.asarray(curve.predict_proba((new[:, None] - centre) / scale)[:, 1])


def _isotonic(scores: Values, truth: NDArray[np.bool_], new: Values) -> Values:
    steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, truth)
    return np.asarray(steps.predict(new))


def _best_threshold(scores: Values, truth: NDArray[np.bool_], new: Values) -> Values:
    false, true, thresholds = roc_curve(truth, scores)
    return np.asarray(new >= thresholds[np.argmax(true - false)], dtype=float)


FITS: dict[str, Callable[[Values, NDArray[np.bool_], Values], Values]] = {
    "platt": _platt,
    "isotonic": _isotonic,
    "threshold": _best_threshold,
}
"""From scores, truth and new scores to probabilities of the new: a logistic curve (Platt 1999),
steps that never fall (Zadrozny and Elkan 2002), or 1 over the threshold with the largest difference
of true and false positive rate (Youden's index), else 0."""
CALIBRATIONS = ("platt", "isotonic")


def bin_numbers(probability: NDArray[np.floating]) -> NDArray[np.int64]:
    """From 0 to `BINS` - 1; a bin has its upper edge, the first one both, as in scikit-learn."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
