"""Was anything edited at all? One score an image, its decision and its probability.

The score is the 99th percentile of the map (see `dinolizer.study.evaluation`). Thresholds and
calibrations are fitted on other photographs than those they are used on.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.calibration import CALIBRATIONS, Error, calibrate, calibration_error, folds
from dinolizer.study.metrics import bootstrap_draws, percentile_interval

UNEDITED = {"real": ("real",), "reencoded": ("reencoded",), "both": AUTHENTIC_KINDS}
"""The kinds of images without an edit that edited ones are told from."""
COLUMNS = (
    *("method", "unedited", "n_edited", "n_unedited", "auc", "auc_low", "auc_high"),
    *("balanced_accuracy", "ece", "ece_low", "ece_high", "ece_platt", "ece_isotonic"),
)
DETECTION_RULE = (
    "Score: 99th percentile of the map. Balanced accuracy at the threshold that is best on other "
    "photographs; ece: expected calibration error of the score as it is, where the map is a "
    "probability, and after Platt's and isotonic calibration fitted on other photographs; all "
    "depend on the share of edited images among these"
)


def summarise_detection(
    rows: pd.DataFrame, probabilities: Sequence[str], seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """Make the table of image-level detection.

    Parameters
    ----------
    rows : of `dinolizer.study.evaluation.evaluate`, of one or more methods.
    probabilities : the methods whose maps are probabilities; only they have an ``ece`` of their
        score as it is.
    seed, resamples : of the bootstrap over photographs; intervals are 95 %.

    Returns
    -------
    The columns `COLUMNS`: a line for each method and each of `UNEDITED` that there are images of.
    """
    lines = []
    for method in rows["method"].unique():
        for unedited in UNEDITED:
            images = images_to_tell(rows, method, unedited)
            edited, groups = images["edited"].to_numpy(bool), images["group"]
            if edited.all() or not edited.any():
                continue
            scores = images["score"].to_numpy(float)
            low, high = auc_interval(scores, edited, groups, seed=seed, resamples=resamples)
            line = {
                "method": method,
                "unedited": unedited,
                "n_edited": int(edited.sum()),
                "n_unedited": int((~edited).sum()),
                "auc": roc_auc_score(edited, scores),
                "auc_low": low,
                "auc_high": high,
                "balanced_accuracy": cross_fit_accuracy(scores, edited, groups),
            }
            if method in probabilities:
                error = calibration_error(edited, scores, groups, seed=seed)
                line |= {"ece": error.value, "ece_low": error.low, "ece_high": error.high}
            for how in CALIBRATIONS:
                said = calibrate(scores, edited, groups, how)
                line[f"ece_{how}"] = _known_error(said, edited, groups).value
            lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS)


def images_to_tell(rows: pd.DataFrame, method: str, unedited: str = "both") -> pd.DataFrame:
    """Rows of a method's edited images and of one of `UNEDITED`, with the column ``edited``."""
    own = rows[rows["method"] == method]
    edited = ~own["kind"].isin(AUTHENTIC_KINDS)
    return own.assign(edited=edited)[edited | own["kind"].isin(UNEDITED[unedited])]


def cross_fit_accuracy(
    scores: NDArray[np.floating], edited: NDArray[np.bool_], groups: "pd.Series[str]"
) -> float:
    """Balanced accuracy, each photograph decided by the threshold that is best on others.

    Best is where the true positive rate is furthest over the false positive rate. Photographs whose
    others hold but one of both sorts are left out; nan where none is left.
    """
    called = np.full(len(scores), np.nan)
    for others, own in folds(groups):
        if len(np.unique(edited[others])) == 2:
            false, true, thresholds = roc_curve(edited[others], scores[others])
            called[own] = scores[own] >= thresholds[np.argmax(true - false)]
    known = ~np.isnan(called)
    if len(np.unique(edited[known])) < 2:
        return float("nan")
    return float(balanced_accuracy_score(edited[known], called[known].astype(bool)))


def auc_interval(
    scores: NDArray[np.floating],
    edited: NDArray[np.bool_],
    groups: "pd.Series[str]",
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """95 % percentile interval of the area under the ROC curve, over photographs.

    A photograph that is drawn twice counts twice: a draw is a weight of each image. Draws without
    images of both sorts are left out; nan for fewer than two photographs.
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


def _known_error(
    probability: NDArray[np.floating], edited: NDArray[np.bool_], groups: "pd.Series[str]"
) -> Error:
    known = ~np.isnan(probability)
    if not known.any():
        return Error(float("nan"), float("nan"), float("nan"))
    return calibration_error(edited[known], probability[known], groups[known], resamples=1)
