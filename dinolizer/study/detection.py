"""Was anything edited at all? One score per image, its decision and its probability.

Thresholds and calibrations are fitted on other photographs than they are used on; intervals are
those of `dinolizer.study.statistics`. Scores, truth (bool) and the photographs, ``groups``, are
``(N,)`` each.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_curve
from sklearn.model_selection import GroupKFold

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.statistics import Measured, columns, macro_mean, measured, quotient

Values = NDArray[np.float64]
UNEDITED = {"real": ("real",), "reencoded": ("reencoded",), "both": AUTHENTIC_KINDS}
"""The kinds of images without an edit that edited ones are told from."""
BINS = 10
"""Bins of equal width between 0 and 1: the usual number."""
FOLDS = 10
CALIBRATIONS = ("platt", "isotonic")
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
    lines = []
    for method, unedited in product(rows["method"].unique(), UNEDITED):
        images = edited_or_not(rows, method, unedited)
        scores, edited, groups = (images[name].to_numpy() for name in ("score", "edited", "group"))
        if edited.all() or not edited.any():
            continue
        line = {"method": method, "unedited": unedited, "n_edited": int(edited.sum())}
        line |= {"n_unedited": int((~edited).sum())}
        line |= columns("auc", auc(scores, edited, groups, seed=seed))
        line |= {"balanced_accuracy": left_out_accuracy(scores, edited, groups)}
        said = scores if method in probabilities else np.full(len(scores), np.nan)
        line |= columns("ece", calibration_error(edited, said, groups, seed=seed))
        for how in CALIBRATIONS:
            said = calibrate(scores, edited, groups, how)
            line[f"ece_{how}"] = calibration_error(edited, said, groups)[0]
        lines.append(line)
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
    curves = {name: reliability(edited, values, groups) for name, values in said.items()}
    return {name: points for name, points in curves.items() if len(points)}


def left_out_accuracy(scores: ArrayLike, edited: ArrayLike, groups: ArrayLike) -> float:
    """Balanced accuracy, each photograph decided by the threshold that is best on the others; nan
    without both sorts. Photographs whose others are all of one sort are left out."""
    called, truth = calibrate(scores, edited, groups, "threshold"), np.asarray(edited, dtype=bool)
    known = ~np.isnan(called)
    if len(np.unique(truth[known])) < 2:
        return float("nan")
    return float(balanced_accuracy_score(truth[known], called[known].astype(bool)))


def auc(scores: ArrayLike, edited: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Measured:
    """Area under the ROC curve, of images of both sorts."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(edited, dtype=bool)
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(values[~truth])
    rest, rest_photo = values[~truth][order], photo[~truth][order]
    # How many of the unedited images an edited one is over; of equals it is over half.
    left, right = (np.searchsorted(rest, values[truth], side) for side in ("left", "right"))

    def area(counts: Values) -> Values:
        passed = np.pad(np.cumsum(counts[:, rest_photo], axis=1), ((0, 0), (1, 0)))
        weight = counts[:, photo[truth]]
        over = np.sum(weight * (passed[:, left] + passed[:, right]) / 2, axis=1)
        return quotient(over, weight.sum(axis=1) * passed[:, -1])

    return measured(area, len(photos), bounds=(0, 1), seed=seed)


def reliability(truth: ArrayLike, probability: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Points of a reliability curve, one for each bin of probabilities (in [0, 1]; nan is left out)
    that is not empty: ``predicted`` (the bin's mean), ``observed`` (true share), ``low, high`` (its
    interval), ``n``."""
    cases = pd.DataFrame({"said": probability, "true": truth, "group": groups}).dropna()
    cases = cases.astype({"said": float, "true": float})
    lines = []
    for _, inside in cases.groupby(bin_numbers(cases["said"].to_numpy())):
        numbers = macro_mean(inside["true"], inside["group"], bounds=(0, 1))
        lines.append((inside["said"].mean(), *numbers, len(inside)))
    return pd.DataFrame(lines, columns=["predicted", "observed", "low", "high", "n"])


def calibration_error(
    truth: ArrayLike, probability: ArrayLike, groups: ArrayLike, *, seed: int = 0
) -> Measured:
    """Expected calibration error, 0 to 1, and its interval; nan probabilities are left out.

    It is ``sum over bins of (n_b / N) |observed_b - predicted_b|`` (Naeini, Cooper and Hauskrecht,
    "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo et al., "On
    calibration of modern neural networks", ICML 2017). A mean of absolute values, it is over 0 also
    by chance.
    """
    known = ~np.isnan(np.asarray(probability, dtype=float))
    if not known.any():
        return np.nan, np.nan, np.nan
    said, true = (np.asarray(of, dtype=float)[known] for of in (probability, truth))
    photos, photo = np.unique(np.asarray(groups)[known], return_inverse=True)
    # n_b (observed_b - predicted_b) is a sum over members, and so over photographs.
    gaps = np.zeros((len(photos), BINS))
    np.add.at(gaps, (photo, bin_numbers(said)), true - said)
    sizes = np.bincount(photo, minlength=len(photos))

    def error(counts: Values) -> Values:
        return np.asarray(np.abs(counts @ gaps).sum(axis=1) / (counts @ sizes))

    return measured(error, len(photos), bounds=(0, 1), seed=seed)


def bin_numbers(probability: NDArray[np.floating]) -> NDArray[np.int64]:
    """From 0 to `BINS` - 1; a bin has its upper edge, the first one both, as in scikit-learn."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)


def calibrate(
    scores: ArrayLike, truth: ArrayLike, groups: ArrayLike, how: str
) -> NDArray[np.float64]:
    """Turn scores, higher = more likely, into probabilities, fitted on other photographs, in at
    most `FOLDS` folds; nan where the others are all of one sort.

    ``how``: ``"platt"``, a logistic curve (Platt 1999); ``"isotonic"``, steps that never fall
    (Zadrozny and Elkan 2002); or ``"threshold"``, 1 over the one with the largest difference of
    true and false positive rate (Youden's index), else 0.
    """
    values, happened = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    photos, said = np.asarray(groups), np.full(len(values), np.nan)
    count = min(FOLDS, len(np.unique(photos)))
    for others, left_out in GroupKFold(count).split(photos, groups=photos) if count > 1 else []:
        if len(np.unique(happened[others])) == 2:
            said[left_out] = _fitted(how, values[others], happened[others], values[left_out])
    return said


def _fitted(how: str, scores: Values, truth: NDArray[np.bool_], new: Values) -> NDArray[Any]:
    """Probabilities of the new scores, as in `calibrate`."""
    if how == "isotonic":
        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, truth)
        return np.asarray(steps.predict(new))
    if how == "platt":  # with no penalty to speak of: the curve is to be that of the scores
        centre, scale = scores.mean(), scores.std() or 1.0
        curve = LogisticRegression(C=1e6).fit((scores[:, None] - centre) / scale, truth)
        return np.asarray(curve.predict_proba((new[:, None] - centre) / scale)[:, 1])
    false, true, thresholds = roc_curve(truth, scores)
    return np.asarray(new >= thresholds[np.argmax(true - false)])
