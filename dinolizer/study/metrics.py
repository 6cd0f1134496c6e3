"""Scores of one map: counts first, scores from counts, by the `METRIC_RULE`.

Without an edit IoU and F1 are nan, neither 0 nor 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from dinolizer.errors import InputError

METRIC_RULE = (
    "IoU and F1: forged images only, one fixed threshold, mean over images (macro) unless pooled "
    "(micro); authentic images are reported apart, by the false-positive rate of their pixels"
)

SCORE_PERCENTILE = 99
"""By its score an image is called forged if an edit is predicted on over 1 % of its pixels."""


@dataclass(frozen=True)
class Counts:
    """Pixels of one image."""

    tp: int  # predicted, edited
    fp: int  # predicted, not edited
    fn: int  # not predicted, edited
    tn: int  # not predicted, not edited

    @property
    def iou(self) -> float:
        """``tp / (tp + fp + fn)``, 0 to 1; nan when nothing is edited."""
        return self.tp / (self.tp + self.fp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        """``2 tp / (2 tp + fp + fn)``, 0 to 1; nan when nothing is edited."""
        edited = self.tp + self.fn
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if edited else float("nan")

    @property
    def predicted_area(self) -> float:
        """Share of all pixels that is predicted to be edited, 0 to 1."""
        return (self.tp + self.fp) / (self.tp + self.fp + self.fn + self.tn)


def counts(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Count the pixels of a predicted mask against the truth, both bool ``(H, W)``."""
    if mask.shape != truth.shape:
        raise InputError(
            f"The mask is {_size(mask)} and the truth {_size(truth)} pixels, but they must be of "
            "one size; resize neither, find the pair that belongs together."
        )
    tp = int(np.count_nonzero(mask & truth))
    predicted, edited = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    return Counts(tp, predicted - tp, edited - tp, truth.size - predicted - edited + tp)


def ranking_scores(values: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Average precision and the IoU at the best threshold, 0 to 1; nan where nothing is edited.

    The latter knows the truth, so it is an upper bound and never the first number. ``values`` is
    float ``(H, W)``, higher = more suspicious.
    """
    if not truth.any():
        return float("nan"), float("nan")
    precision, recall, _ = precision_recall_curve(truth.ravel(), values.ravel())
    # The steps of sklearn.metrics.average_precision_score, without sorting the pixels again.
    average_precision = -np.sum(np.diff(recall) * precision[:-1])
    any_recall = recall > 0  # there 1 / IoU = 1 / precision + 1 / recall - 1
    best_iou = np.max(1 / (1 / precision[any_recall] + 1 / recall[any_recall] - 1), initial=0)
    return float(average_precision), float(best_iou)


def score_image(
    values: NDArray[np.floating],
    threshold: float,
    truth: NDArray[np.bool_],
    *,
    ranking: bool = True,
) -> dict[str, float]:
    """Score one map: ``tp, fp, fn, tn, iou, f1, best_iou, ap, predicted_area`` and, of the image,
    ``score``, the `SCORE_PERCENTILE` of the map.

    The map is float ``(H, W)``, higher = more suspicious; an edit is predicted strictly over the
    threshold. The truth is bool ``(H, W)``, empty for an authentic image. Without ``ranking``,
    ``best_iou`` and ``ap``, which sort all pixels, are nan.
    """
    counted = counts(values > threshold, truth)
    ap, best_iou = ranking_scores(values, truth) if ranking else (float("nan"), float("nan"))
    return {
        **vars(counted),
        "iou": counted.iou,
        "f1": counted.f1,
        "best_iou": best_iou,
        "ap": ap,
        "predicted_area": counted.predicted_area,
        "score": float(np.percentile(values, SCORE_PERCENTILE)),
    }


def choose_threshold(
    maps: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.bool_]], candidates: int = 512
) -> float:
    """Choose the one threshold that maximises the macro IoU of forged training images.

    The maps are float ``(H, W)``, in a unit of their own; the ``candidates`` are their quantiles.
    No truth may be empty: authentic images have no IoU.
    """
    thresholds, curves = _iou_curves(maps, truths, candidates)
    return float(thresholds[curves.mean(axis=0).argmax()])


def leave_one_out_thresholds(
    maps: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.bool_]],
    groups: Sequence[str],
    photos: Iterable[str],
    candidates: int = 512,
) -> dict[str, float]:
    """For each of the photos, the threshold that `choose_threshold` finds on the images of all
    others; ``groups`` says of which photo each image is. Candidates are quantiles of all maps."""
    thresholds, curves = _iou_curves(maps, truths, candidates)
    if len(set(groups)) < 2:
        raise InputError(
            f"Leaving one photo out needs images of two or more, but all are of {groups[0]!r}."
        )
    of = np.asarray(groups)
    return {photo: float(thresholds[curves[of != photo].mean(axis=0).argmax()]) for photo in photos}


def _iou_curves(
    maps: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.bool_]], candidates: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds (T,), and the IoU of each image at each of them (N, T)."""
    if not maps or not all(truth.any() for truth in truths):
        raise InputError(
            "A threshold is chosen on forged images, but there are none or one has an empty "
            "truth; leave authentic images out."
        )
    levels = np.linspace(0, 1, candidates)
    # Sorted first: five times faster than to let `quantile` search so many levels.
    ranked = (np.sort(values, axis=None) for values in maps)
    thresholds = np.unique(np.quantile([np.quantile(values, levels) for values in ranked], levels))
    curves = []
    for values, truth in zip(maps, truths, strict=True):
        edited, rest = np.sort(values[truth]), np.sort(values[~truth])
        tp = len(edited) - np.searchsorted(edited, thresholds, side="right")
        fp = len(rest) - np.searchsorted(rest, thresholds, side="right")
        curves.append(tp / (len(edited) + fp))
    return thresholds, np.stack(curves)


def _size(array: NDArray[np.generic]) -> str:
    return " x ".join(map(str, array.shape))
