"""Scores of maps, by the `METRIC_RULE`, and of whole images: was anything edited at all?

Maps are float ``(H, W)``, higher = more suspicious, masks and truths bool ``(H, W)``, empty for an
authentic image; without an edit IoU and F1 are nan, neither 0 nor 1. Of images, scores, truth
(bool) and the photographs, ``groups``, are ``(N,)`` each."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_curve
from sklearn.model_selection import GroupKFold

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.errors import InputError
from dinolizer.study.statistics import Measured, Statistic, columns, measured, quotient

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]
RING = 8
"""Pixels: a cell of the latents, of Stable Diffusion's auto-encoder as well as of those here."""
METRIC_RULE = (
    "IoU and F1: forged images only, one fixed threshold, mean over images (macro) unless pooled "
    "(micro); authentic images are reported apart, by the false-positive rate of their pixels; in "
    f"re-generated images {RING} pixels on both sides of an edit's edge do not count"
)
SCORE_PERCENTILE = 99
"""By its score an image is called forged if an edit is predicted on over 1 % of its pixels."""
LEVELS = np.linspace(0, 1, 257)
"""Quantiles that a row keeps of its map: what is predicted at any threshold follows from them."""
RATES = {"1": 0.01, "5": 0.05}
"""Shares of the pixels of unedited photographs at which methods are compared."""
GRID = np.linspace(0, 1, 41)  # false-positive rates of a ROC curve
Values = NDArray[np.float64]
UNEDITED = {"real": ("real",), "reencoded": ("reencoded",), "both": AUTHENTIC_KINDS}
"""The kinds of images without an edit that edited ones are told from."""
FOLDS = 10
"""At most so many folds of photographs."""
DETECTION_RULE = (
    "Score: 99th percentile of the map. Balanced accuracy at the threshold that is best on other "
    "photographs (Youden's index); Brier skill of the probability that a logistic curve over the "
    "score gives, fitted on other photographs, against their share of edited images"
)


def score_mask(mask: Mask, truth: Mask) -> dict[str, float]:
    """Score a predicted mask against the truth, both bool ``(H, W)``: ``tp, fp, fn, tn`` in pixels,
    and the shares ``iou, f1, recall, false_positive_rate, predicted_area``."""
    if mask.shape != truth.shape:
        sizes = f"The mask is {mask.shape} and the truth {truth.shape} pixels (H, W)"
        raise InputError(f"{sizes}: find those of one size.")
    tn, fp, fn, tp = np.bincount((2 * truth + mask).ravel(), minlength=4).tolist()
    edited = tp + fn
    return {
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
        "iou": tp / (edited + fp) if edited else np.nan,
        "f1": 2 * tp / (2 * tp + fp + fn) if edited else np.nan,
        "recall": tp / edited if edited else np.nan,
        "false_positive_rate": fp / (fp + tn) if fp + tn else np.nan,
        "predicted_area": (tp + fp) / truth.size,
    }


def score_image(values: Map, threshold: float, truth: Mask) -> dict[str, Any]:
    """Score one map: `score_mask` at the threshold (if that is nan, no shares); average precision
    ``ap``, ``auc``, and ``best_iou``, an upper bound; ``score``, the `SCORE_PERCENTILE`; and the
    quantiles, at `LEVELS`, of the map where it is edited and where not, ``inside, outside``."""
    scores: dict[str, Any] = score_mask(values > threshold, truth)
    if np.isnan(threshold):
        scores |= dict.fromkeys(list(scores)[4:], np.nan)
    inside, outside = np.sort(values[truth]), np.sort(values[~truth])
    scores |= ranking_scores(inside, outside)
    scores["score"] = float(np.percentile(values, SCORE_PERCENTILE))
    return scores | {"inside": _quantiles(inside), "outside": _quantiles(outside)}


def ranking_scores(inside: Map, outside: Map) -> dict[str, float]:
    """Average precision, ROC area and best IoU, over all thresholds, of the sorted values of edited
    pixels and of the others: those of scikit-learn, without sorting all of them again for each."""
    names, least = ("ap", "auc", "best_iou"), np.searchsorted(outside, inside, "left")
    if not len(inside):
        return dict.fromkeys(names, np.nan)
    # At the value of each edited pixel as the threshold, itself included.
    tp = len(inside) - np.searchsorted(inside, inside, "left")
    fp = len(outside) - least
    below = (least + np.searchsorted(outside, inside, "right")) / 2  # of equals, half
    area = below.mean() / len(outside) if len(outside) else np.nan
    scores = np.mean(tp / (tp + fp)), area, np.max(tp / (len(inside) + fp))
    return dict(zip(names, map(float, scores), strict=True))


def _quantiles(ordered: Map) -> Map:
    places = np.rint(LEVELS * (len(ordered) - 1)).astype(int)
    return (ordered[places] if len(ordered) else ordered).astype(np.float32)


def over(quantiles: Iterable[Map], thresholds: Iterable[float]) -> Values:
    """Share of the pixels of each image that is over its threshold; nan without pixels."""
    pairs = zip(thresholds, quantiles, strict=True)
    return np.array([1 - np.interp(at, of, LEVELS) if len(of) else np.nan for at, of in pairs])


def matched_thresholds(rows: pd.DataFrame, groups: Iterable[str], rate: float) -> dict[str, float]:
    """From each photograph to the threshold over which lies the ``rate`` of the pixels of all other
    photographs: of rows of unedited images, those of kind ``real``; nan without any."""
    real = rows[rows["kind"] == "real"]
    # Sorted, as they are part of the key that rows are cached by.
    named = sorted(set(groups))
    others = {group: real.loc[real["group"] != group, "outside"] for group in named}
    return {
        group: float(np.quantile(np.concatenate([*of]), 1 - rate)) if len(of) else np.nan
        for group, of in others.items()
    }


def with_matched(rows: pd.DataFrame, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Add to rows what each value of ``by`` scores on edited images where it marks the same share
    of unedited photographs (see `matched_thresholds`): ``iou_at_1``, ``recall_at_1``
    for 1 % and so on for `RATES`; nan without other photographs."""
    parts = []
    for _, part in rows.reset_index(drop=True).groupby(list(by), sort=False):
        edited = part[~part["kind"].isin(AUTHENTIC_KINDS)]
        share = chance(edited)
        scores: dict[str, Values] = {}
        for name, rate in RATES.items():
            at = edited["group"].map(matched_thresholds(part, part["group"], rate))
            recall, false = over(edited["inside"], at), over(edited["outside"], at)
            predicted = recall * share + np.nan_to_num(false) * (1 - share)
            iou = recall * share / (share + predicted - recall * share)
            scores |= {f"iou_at_{name}": iou, f"recall_at_{name}": recall}
        parts.append(part.join(pd.DataFrame(scores, index=edited.index)))
    return pd.concat(parts)


def chance(rows: pd.DataFrame) -> "pd.Series[float]":
    """Edited share of the pixels that count: the AP of chance, the IoU of predicting everything."""
    return rows[["tp", "fn"]].sum(axis=1) / rows[["tp", "fp", "fn", "tn"]].sum(axis=1)


def roc_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean ROC curve of edited images' pixels, at the points of `GRID`: ``method, false, true``."""
    curves = []
    for row in rows[rows["auc"].notna()].to_dict("records"):
        true = over([row["inside"]] * len(GRID), np.quantile(row["outside"], 1 - GRID))
        true[-1] = 1.0  # everything is marked
        curves.append(pd.DataFrame({"method": row["method"], "false": GRID, "true": true}))
    return pd.concat(curves).groupby(["method", "false"], sort=False).mean().reset_index()


def detection_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Image-level detection by method and `UNEDITED`: AUC with interval, balanced accuracy."""
    lines = []
    for method, unedited in product(rows["method"].unique(), UNEDITED):
        images = edited_or_not(rows, method, unedited)
        scores, edited, groups = (images[name].to_numpy() for name in ("score", "edited", "group"))
        if edited.all() or not edited.any():
            continue
        line = {"method": method, "unedited": unedited}
        line |= {"n_edited": int(edited.sum()), "n_unedited": int((~edited).sum())}
        line |= columns("auc", auc(scores, edited, groups, seed=seed))
        lines.append(line | left_out_skill(scores, edited, groups))
    return pd.DataFrame(lines or {name: [] for name in ("method", "unedited", "auc")})


def left_out_skill(scores: Values, edited: Mask, groups: NDArray[Any]) -> dict[str, float]:
    """``balanced_accuracy`` and ``brier_skill``, see `DETECTION_RULE`, in at most `FOLDS` folds of
    photographs; a skill of 0 is that of the base rate. nan unless both sorts are called."""
    called, probability, base = np.full((3, len(scores)), np.nan)
    folds = min(FOLDS, len(np.unique(groups)))
    for others, left_out in GroupKFold(folds).split(scores, groups=groups) if folds > 1 else []:
        if len(np.unique(edited[others])) == 2:
            false, true, thresholds = roc_curve(edited[others], scores[others])
            called[left_out] = scores[left_out] >= thresholds[np.argmax(true - false)]
            curve = LogisticRegression(C=1e4).fit(scores[others, None], edited[others])
            probability[left_out] = curve.predict_proba(scores[left_out, None])[:, 1]
            base[left_out] = edited[others].mean()
    known = ~np.isnan(called)
    if len(np.unique(edited[known])) < 2:
        return {"balanced_accuracy": np.nan, "brier_skill": np.nan}
    accuracy = balanced_accuracy_score(edited[known], called[known] > 0)
    ours, theirs = (brier_score_loss(edited[known], of[known]) for of in (probability, base))
    return {"balanced_accuracy": float(accuracy), "brier_skill": float(1 - ours / theirs)}


def edited_or_not(rows: pd.DataFrame, method: str, unedited: str = "both") -> pd.DataFrame:
    """Rows of a method's edited images and of one of `UNEDITED`, with the column ``edited``."""
    of_method = rows[rows["method"] == method]
    edited = ~of_method["kind"].isin(AUTHENTIC_KINDS)
    return of_method.assign(edited=edited)[edited | of_method["kind"].isin(UNEDITED[unedited])]


def auc(scores: ArrayLike, edited: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Measured:
    """Area under the ROC curve, of images of both sorts."""
    return measured(*auc_statistic(scores, edited, groups), bounds=(0, 1), seed=seed)


def auc_statistic(scores: ArrayLike, edited: ArrayLike, groups: ArrayLike) -> tuple[Statistic, int]:
    """Area under the ROC curve as a statistic, and its number of photographs."""
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

    return area, len(photos)
