"""The methods side by side: baselines with thresholds of their own, and every method degraded."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.degradations import Step
from dinolizer.data.manifest import read_pair
from dinolizer.study.baselines import BASELINES
from dinolizer.study.evaluation import (
    Method,
    Predict,
    Row,
    edited_truth,
    evaluate_all,
)
from dinolizer.study.material import Material
from dinolizer.study.metrics import macro_mean
from dinolizer.study.thresholds import choose_threshold, cross_fit_thresholds

Image = NDArray[np.uint8]
Map = NDArray[np.floating]

THRESHOLD_IMAGES = 300
"""Edited images of a training set that a threshold is chosen on, drawn by the seed."""


def evaluate_baselines(material: Material, seed: int = 0) -> pd.DataFrame:
    """Rows of all `BASELINES` on the test images, with thresholds of `baseline_thresholds`."""
    remember = material.train is None
    return pd.concat(
        evaluate_all({name: _method(name, material, seed, remember=remember)}, material.test)
        for name in BASELINES
    )


def baseline_methods(material: Material, seed: int) -> dict[str, Method]:
    """All `BASELINES`, for images of any kind, with the thresholds of `baseline_thresholds`."""
    return {name: _method(name, material, seed, remember=False) for name in BASELINES}


def evaluate_degraded(
    methods: Mapping[str, Method],
    images: pd.DataFrame,
    cases: Sequence[Sequence[Step]],
    seed: int,
) -> pd.DataFrame:
    """Rows of methods on the images after the steps of each case (see `evaluate`)."""
    return pd.concat(
        evaluate_all(methods, images, steps=steps, seed=seed, ranking=False) for steps in cases
    )


def leads(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """By how much a method's IoU is higher than the next best's, image by image.

    The next best is the other method of the highest IoU, the mean over families; where an image
    has several rows of a method (degraded at several levels), their mean counts.

    Parameters
    ----------
    rows : of `evaluate`, of two methods or more; authentic images are left out.
    method : whose lead.

    Returns
    -------
    A line per edited image: ``family, group, image, lead``.
    """
    iou = rows.pivot_table("iou", ["family", "group", "image"], "method")
    means = iou.groupby("family").mean().mean().drop(method)
    return (iou[method] - iou[means.idxmax()]).rename("lead").reset_index()


def mean_lead(lead: pd.DataFrame, seed: int = 0) -> tuple[float, float, float]:
    """Mean over families of `leads`, and its 95 % interval by a bootstrap over photographs."""
    return macro_mean(lead["lead"], lead["family"], lead["group"], seed=seed)


def baseline_thresholds(material: Material, predict: Predict, seed: int) -> dict[str, float]:
    """From each group of the test images to a threshold that was chosen without it.

    Where there is a training set, on `THRESHOLD_IMAGES` of its edited images; else on those of all
    other photographs. As the heads, thresholds are not chosen on the held-out generator.
    """
    if material.train is not None:
        edited = material.train[~material.train["authentic"] & (material.train["split"] != "test")]
        chosen = edited.sample(min(THRESHOLD_IMAGES, len(edited)), random_state=seed)
        threshold = choose_threshold(*_maps(chosen, predict))
        return dict.fromkeys(material.test["group"], threshold)
    edited = material.test[~material.test["authentic"] & material.test["seen"]]
    return cross_fit_thresholds(*_maps(edited, predict), list(edited["group"]))


def _maps(manifest: pd.DataFrame, predict: Predict) -> tuple[list[Map], list[NDArray[np.bool_]]]:
    rows = manifest.to_dict("records")
    pairs = [(read_pair(row), row) for row in rows]
    return (
        [predict(image, row) for (image, _), row in pairs],
        [edited_truth(mask, row) for (_, mask), row in pairs],
    )


def _method(name: str, material: Material, seed: int, *, remember: bool) -> Method:
    predict = _baseline(name, remember=remember)
    return predict, baseline_thresholds(material, predict, seed)


def _baseline(name: str, *, remember: bool) -> Predict:
    """A baseline as a method; where images are few, each is mapped only once."""
    maps: dict[str, Map] = {}

    def predict(image: Image, row: Row) -> Map:
        if not remember:
            return BASELINES[name](image)
        if row["image"] not in maps:
            maps[row["image"]] = BASELINES[name](image)
        return maps[row["image"]]

    return predict
