"""Scores of one map: counts first, scores from counts, by the `METRIC_RULE`.

Maps are float ``(H, W)``, higher = more suspicious, masks and truths bool ``(H, W)``, empty for an
authentic image. Without an edit IoU and F1 are nan, neither 0 nor 1.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from dinolizer.errors import InputError

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
        sizes = (" x ".join(map(str, array.shape)) for array in (mask, truth))
        raise InputError(
            "The mask is {} and the truth {} pixels, but they must be of one size; resize neither, "
            "find the pair that belongs together.".format(*sizes)
        )
    tp = int(np.count_nonzero(mask & truth))
    predicted, edited = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    return Counts(tp, predicted - tp, edited - tp, truth.size - predicted - edited + tp)


def ranking_scores(values: Map, truth: Mask) -> tuple[float, float]:
    """Average precision and the IoU at the best threshold, 0 to 1; nan where nothing is edited. The
    latter knows the truth, so it is an upper bound and never the first number."""
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
    """Score one map: ``tp, fp, fn, tn, iou, f1, best_iou, ap, predicted_area`` and, of the image,
    ``score``, the `SCORE_PERCENTILE` of the map. An edit is predicted strictly over the threshold.
    Without ``ranking``, ``best_iou`` and ``ap``, which sort all pixels, are nan."""
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
        raise InputError(
            "A threshold is chosen on forged images, but there are none or one has an empty "
            "truth; leave authentic images out."
        )
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
        if (of == photo).all():
            raise InputError(
                f"Leaving one photo out needs images of two or more, but all are of {photo!r}."
            )
        best = np.stack(ious)[of != photo].mean(axis=0).argmax()
        chosen[photo] = float(thresholds[best])
    return chosen
