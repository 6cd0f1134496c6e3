"""Scores of maps, by the `METRIC_RULE`, and of whole images: was anything edited at all?

Maps are float ``(H, W)``, higher = more suspicious, masks and truths bool ``(H, W)``, empty for an
authentic image; without an edit IoU and F1 are nan, neither 0 nor 1. Of images, scores, truth
(bool) and the photographs, ``groups``, are ``(N,)`` each.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, precision_recall_curve, roc_curve
from sklearn.model_selection import GroupKFold

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.errors import InputError
from dinolizer.study.statistics import Measured, columns, macro_mean, measured, quotient

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]
METRIC_RULE = (
    "IoU and F1: forged images only, one fixed threshold, mean over images (macro) unless pooled "
    "(micro); authentic images are reported apart, by the false-positive rate of their pixels"
)
SCORE_PERCENTILE = 99
"""By its score an image is called forged if an edit is predicted on over 1 % of its pixels."""
CANDIDATES = 512
"""Quantiles of the maps that a threshold is chosen from."""
Values = NDArray[np.float64]
UNEDITED = {"real": ("real",), "reencoded": ("reencoded",), "both": AUTHENTIC_KINDS}
"""The kinds of images without an edit that edited ones are told from."""
BINS = FOLDS = 10
"""Bins of equal width between 0 and 1: the usual number. At most so many folds of photographs."""
CALIBRATIONS = ("platt", "isotonic")
DETECTION_RULE = (
    "Score: 99th percentile of the map. Balanced accuracy at the threshold that is best on other "
    "photographs; ece: expected calibration error of the score as it is, where the map is a "
    "probability, and after Platt's and isotonic calibration fitted on other photographs; all "
    "depend on the share of edited images among these"
)


class Counts(NamedTuple):
    """Pixels of one image; ``p`` is predicted, ``t`` rightly. Scores are from 0 to 1."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def iou(self) -> float:
        return self.tp / (self.tp + self.fp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        edited = self.tp + self.fn
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if edited else float("nan")

    @property
    def predicted_area(self) -> float:
        return (self.tp + self.fp) / sum(self)


def counts(mask: Mask, truth: Mask) -> Counts:
    """Count the pixels of a predicted mask against the truth, both bool ``(H, W)``."""
    if mask.shape != truth.shape:
        sizes = [" x ".join(map(str, array.shape)) for array in (mask, truth)]
        raise InputError(
            "The mask is {} and the truth {} pixels: find those of one size.".format(*sizes)
        )
    tp = int(np.count_nonzero(mask & truth))
    predicted, edited = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    return Counts(tp, predicted - tp, edited - tp, truth.size - predicted - edited + tp)


def ranking_scores(values: Map, truth: Mask) -> tuple[float, float]:
    """Average precision, and IoU at the best threshold: an upper bound, not the first number."""
    if not truth.any():
        return float("nan"), float("nan")
    precision, recall, _ = precision_recall_curve(truth.ravel(), values.ravel())
    # The steps of sklearn.metrics.average_precision_score, without sorting the pixels again.
    average_precision = -np.sum(np.diff(recall) * precision[:-1])
    any_recall = recall > 0  # there 1 / IoU = 1 / precision + 1 / recall - 1
    best_iou = np.max(1 / (1 / precision[any_recall] + 1 / recall[any_recall] - 1), initial=0)
    return float(average_precision), float(best_iou)


def score_image(
    values: Map, threshold: float, truth: Mask, *, ranking: bool = True
) -> dict[str, float]:
    """Score one map: ``tp, fp, fn, tn, iou, f1, best_iou, ap, predicted_area`` and ``score``, its
    `SCORE_PERCENTILE`. Without ``ranking``, ``best_iou`` and ``ap``, which sort pixels, are nan."""
    counted = counts(values > threshold, truth)
    ap, best_iou = ranking_scores(values, truth) if ranking else (float("nan"), float("nan"))
    scores = {"iou": counted.iou, "f1": counted.f1, "best_iou": best_iou, "ap": ap}
    scores["predicted_area"] = counted.predicted_area
    scores["score"] = float(np.percentile(values, SCORE_PERCENTILE))
    return counted._asdict() | scores


def left_out_thresholds(
    maps: Sequence[Map], truths: Sequence[Mask], groups: Sequence[str], photos: Iterable[str]
) -> dict[str, float]:
    """For each of the photos, the one threshold that maximises the macro IoU of all forged images
    but its own; ``groups`` says of which photo each is. Candidates are quantiles of all maps."""
    if not maps or not all(truth.any() for truth in truths):
        raise InputError("A threshold is chosen on forged images, with an edit in each of them.")
    of, levels, ious = np.array(list(groups)), np.linspace(0, 1, CANDIDATES), []
    # Sorted first: five times faster than to let `quantile` search so many levels.
    ranked = (np.sort(values, axis=None) for values in maps)
    thresholds = np.unique(np.quantile([np.quantile(values, levels) for values in ranked], levels))
    for values, truth in zip(maps, truths, strict=True):
        edited, rest = np.sort(values[truth]), np.sort(values[~truth])
        tp = len(edited) - np.searchsorted(edited, thresholds, side="right")
        fp = len(rest) - np.searchsorted(rest, thresholds, side="right")
        ious.append(tp / (len(edited) + fp))
    chosen = {}
    for photo in photos:
        best = np.stack(ious)[of != photo].mean(axis=0).argmax()
        chosen[photo] = float(thresholds[best])
    return chosen


def detection_table(
    rows: pd.DataFrame, probabilities: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Image-level detection, a line for each method and each of `UNEDITED` with images: ``n_edited,
    n_unedited, auc, balanced_accuracy, ece`` (of ``probabilities``, the methods whose maps are
    such), ``ece_platt, ece_isotonic``; ``auc`` and ``ece`` have intervals."""
    lines = []
    for method, unedited in product(rows["method"].unique(), UNEDITED):
        images = edited_or_not(rows, method, unedited)
        scores, edited, groups = (images[name].to_numpy() for name in ("score", "edited", "group"))
        if edited.all() or not edited.any():
            continue
        line = {"method": method, "unedited": unedited}
        line |= {"n_edited": int(edited.sum()), "n_unedited": int((~edited).sum())}
        line |= columns("auc", auc(scores, edited, groups, seed=seed))
        said = {how: calibrate(scores, edited, groups, how) for how in (*CALIBRATIONS, "threshold")}
        called = said.pop("threshold")
        truth, called = edited[~np.isnan(called)], called[~np.isnan(called)]
        both = len(np.unique(truth)) == 2
        line["balanced_accuracy"] = balanced_accuracy_score(truth, called > 0) if both else np.nan
        own = scores if method in probabilities else np.full(len(scores), np.nan)
        line |= columns("ece", calibration_error(edited, own, groups, seed=seed))
        errors = {how: calibration_error(edited, of, groups)[0] for how, of in said.items()}
        lines.append(line | {f"ece_{how}": error for how, error in errors.items()})
    return pd.DataFrame(lines or {name: [] for name in ("method", "unedited", "auc")})


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
    """Points of a reliability curve, for each bin of probabilities that is not empty: ``predicted``
    (mean), ``observed`` (true share) with its ends ``low, high``, ``n``. nan is left out."""
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
    """Expected calibration error, ``sum over bins of n_b / N |observed_b - predicted_b|`` (Naeini,
    Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015); nan probabilities are left out. It is over 0 also by chance."""
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
