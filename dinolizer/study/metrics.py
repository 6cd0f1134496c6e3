"""Counts first, scores from counts, intervals over photographs.

The rule of every table: IoU and F1 are of forged images, whose truth is not empty, at one fixed
threshold; macro is the mean over images, micro is the score of the pooled counts. An image with
nothing edited has no IoU and no F1 (nan, neither 0 nor 1): authentic images are reported apart, as
the share of their pixels that is marked and by image-level scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import balanced_accuracy_score, precision_recall_curve, roc_auc_score

from dinolizer.errors import InputError

METRIC_RULE = (
    "IoU and F1: forged images only, one fixed threshold, mean over images (macro) unless pooled "
    "(micro); authentic images are reported apart, as the share of pixels marked"
)

BLOCK = 10_000_000
"""Numbers drawn at once by a bootstrap: 80 MB."""


@dataclass(frozen=True)
class Counts:
    """Pixels of one image, or of many pooled by ``+``."""

    tp: int  # marked, edited
    fp: int  # marked, not edited
    fn: int  # not marked, edited
    tn: int  # not marked, not edited

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

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
    def marked(self) -> float:
        """Share of all pixels that is marked, 0 to 1."""
        return (self.tp + self.fp) / (self.tp + self.fp + self.fn + self.tn)


def counts(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Count the pixels of a predicted mask against the truth.

    Parameters
    ----------
    mask, truth : bool (H, W), True where marked and where edited.

    Raises
    ------
    InputError
        If the sizes differ.
    """
    if mask.shape != truth.shape:
        raise InputError(
            f"The mask is {_size(mask)} and the truth {_size(truth)} pixels, but they must be of "
            "one size; resize neither, find the pair that belongs together."
        )
    tp = int(np.count_nonzero(mask & truth))
    marked, edited = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    return Counts(tp, marked - tp, edited - tp, truth.size - marked - edited + tp)


def ranking_scores(values: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Average precision and the IoU at the image's best threshold: no threshold is fixed.

    The best-threshold IoU knows the truth, so it is an upper bound and never the first number.

    Parameters
    ----------
    values : float (H, W), in any unit, higher = more suspicious.
    truth : bool (H, W).

    Returns
    -------
    average precision, best IoU : each 0 to 1; both nan when nothing is edited.
    """
    if not truth.any():
        return float("nan"), float("nan")
    precision, recall, _ = precision_recall_curve(truth.ravel(), values.ravel())
    # The steps of sklearn.metrics.average_precision_score, without sorting the pixels again.
    average_precision = -np.sum(np.diff(recall) * precision[:-1])
    found = recall > 0  # there 1 / IoU = 1 / precision + 1 / recall - 1
    best_iou = np.max(1 / (1 / precision[found] + 1 / recall[found] - 1), initial=0)
    return float(average_precision), float(best_iou)


def image_scores(
    scores: ArrayLike, forged: ArrayLike, called_forged: ArrayLike
) -> tuple[float, float]:
    """Image-level area under the ROC curve, and balanced accuracy.

    Parameters
    ----------
    scores : float (N,), one per image, higher = more suspicious.
    forged : bool (N,), the truth.
    called_forged : bool (N,), the decision.

    Returns
    -------
    auc, balanced accuracy : each 0 to 1; both nan unless there are images of both sorts.
    """
    if len(np.unique(forged)) < 2:
        return float("nan"), float("nan")
    auc = roc_auc_score(forged, scores)
    return float(auc), float(balanced_accuracy_score(forged, called_forged))


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a mean, by a bootstrap over clusters (see `bootstrap_means`).

    Parameters
    ----------
    values, groups, strata, seed, resamples : as in `bootstrap_means`.
    level : coverage, between 0 and 1.

    Returns
    -------
    low, high : both nan when there are fewer than two photographs, which tell nothing of others.
    """
    means = bootstrap_means(values, groups, strata=strata, seed=seed, resamples=resamples)
    return percentile_interval(means, level)


def macro_mean(
    values: ArrayLike,
    families: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """Mean over the families of the mean over each one's images, and its 95 % interval.

    Parameters
    ----------
    values : float (N,), one per image; nan is left out.
    families, groups : (N,), the family and the photograph of each image.
    seed, resamples : as in `bootstrap_means`.
    """
    mean = pd.Series(np.asarray(values)).groupby(np.asarray(families)).mean().mean()
    ends = bootstrap_interval(values, groups, strata=families, seed=seed, resamples=resamples)
    return float(mean), *ends


def bootstrap_means(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> NDArray[np.float64]:
    """Means of resamples, by a bootstrap over clusters (Davison & Hinkley 1997, 3.8).

    Images made from one photograph are not independent, so whole photographs are drawn with
    replacement, and all images of the drawn photographs are averaged. With strata the statistic
    is the mean over the strata of the mean in each (a stratum that a draw misses is left out).
    The same photographs and seed give the same draws, so that two statistics can be compared.

    Parameters
    ----------
    values : float (N,), one per image; nan is left out.
    groups : (N,), the photograph of each image.
    strata : (N,), for instance the generator of each image; one stratum without it.
    seed : of the draws.
    resamples : number of draws.

    Returns
    -------
    float (resamples,); all nan when there are fewer than two photographs.
    """
    values = np.asarray(values, dtype=float)
    known = ~np.isnan(values)
    photos, photo = np.unique(np.asarray(groups)[known], return_inverse=True)
    if len(photos) < 2:
        return np.full(resamples, np.nan)
    labels = np.zeros(len(values)) if strata is None else np.asarray(strata)
    families, family = np.unique(labels[known], return_inverse=True)
    sums = np.zeros((len(photos), len(families)))
    sizes = np.zeros_like(sums)
    np.add.at(sums, (photo, family), values[known])
    np.add.at(sizes, (photo, family), 1)
    means = []
    for draws in bootstrap_draws(len(photos), seed, resamples):
        drawn = draws @ sizes  # (resamples of the block, families)
        empty = np.full(drawn.shape, np.nan)
        means.append(np.nanmean(np.divide(draws @ sums, drawn, out=empty, where=drawn > 0), axis=1))
    return np.concatenate(means)


def bootstrap_draws(photos: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each photograph is drawn in each resample, in blocks: (some resamples, photos).

    All that a resample's sums and means depend on; every row adds up to ``photos``.
    """
    rng, share = np.random.default_rng(seed), np.full(photos, 1 / photos)
    block = max(1, BLOCK // photos)
    for first in range(0, resamples, block):
        yield rng.multinomial(photos, share, size=min(block, resamples - first))


def percentile_interval(means: NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """The ends that leave out ``(1 - level) / 2`` of the resamples on each side; nan for nan."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _size(array: NDArray[np.generic]) -> str:
    return " x ".join(map(str, array.shape))
