"""Methods compared at one false-positive rate, and by how they rank pixels, whatever threshold."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from dinolizer.data.manifest import read_pair
from dinolizer.study.evaluation import Method, edited_truth
from dinolizer.study.metrics import counts

RATES = (0.01, 0.05)
"""False-positive rates: shares of the pixels of unedited photographs that are marked."""
GRID = np.linspace(0, 1, 41)
"""False-positive rates of a ROC curve."""
LEVELS = np.linspace(0, 1, 2001)
"""Quantiles that stand for the values of one map, so that large images count like small ones."""


def matched_rows(
    methods: Collection[Method], manifest: pd.DataFrame, rates: Sequence[float] = RATES
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every edited image at thresholds that mark the same share of unedited photographs.

    The threshold of an image is chosen on the photographs (kind ``real``) of all other groups;
    without any, what depends on it is nan.

    Returns
    -------
    rows, curves
        Of each method and edited image ``method, image, group, family, kind``; ``auc`` of its
        pixels, and for a rate of 1 % ``iou_at_1`` and ``recall_at_1``. The curves are the mean over
        images of the true-positive rate at each of `GRID`: ``method, false, true``.
    """
    real = manifest[manifest["kind"] == "real"]
    edited = manifest[~manifest["authentic"]]
    rows, curves = [], []
    for method in methods:
        values = [
            np.quantile(method(read_pair(row)[0], row), LEVELS) for row in real.to_dict("records")
        ]
        thresholds = {}
        for group in set(edited["group"]):
            of_others = [
                of for of, name in zip(values, real["group"], strict=True) if name != group
            ]
            known = np.concatenate(of_others) if of_others else np.array([np.nan])
            thresholds[group] = np.quantile(known, 1 - np.array(rates))
        for row in edited.to_dict("records"):
            image, mask = read_pair(row)
            truth, found = edited_truth(mask, row), method(image, row)
            if truth.all():
                continue
            names = ("image", "group", "family", "kind")
            line = {"method": method.name} | {name: row[name] for name in names}
            line["auc"] = roc_auc_score(truth.ravel(), found.ravel())
            for rate, threshold in zip(rates, thresholds[row["group"]], strict=True):
                scores = counts(found > threshold, truth)
                both = (scores.iou, scores.tp / (scores.tp + scores.fn))
                for name, score in zip(("iou", "recall"), both, strict=True):
                    line[f"{name}_at_{100 * rate:g}"] = np.nan if np.isnan(threshold) else score
            rows.append(line)
            passed = np.sort(found[truth])
            cuts = np.quantile(found[~truth], 1 - GRID)
            true = 1 - np.searchsorted(passed, cuts, side="right") / len(passed)
            true[-1] = 1.0  # everything is marked
            curves += [
                {"method": method.name, "false": false, "true": share}
                for false, share in zip(GRID, true, strict=True)
            ]
    frame = pd.DataFrame(curves)
    return pd.DataFrame(rows), frame.groupby(["method", "false"], sort=False).mean().reset_index()
