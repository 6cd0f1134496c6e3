"""The methods side by side: baselines with thresholds of their own, and every method degraded."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.data.manifest import read_pair
from dinolizer.study.baselines import BASELINES
from dinolizer.study.evaluation import Predict, Row, edited_truth, evaluate
from dinolizer.study.material import Material
from dinolizer.study.thresholds import choose_threshold, cross_fit_thresholds

Image = NDArray[np.uint8]
Map = NDArray[np.floating]

THRESHOLD_IMAGES = 300
"""Edited images of a training set that a threshold is chosen on, drawn by the seed."""


def evaluate_baselines(material: Material, seed: int = 0) -> pd.DataFrame:
    """Rows of all `BASELINES` on the test images, with thresholds of `baseline_thresholds`."""
    rows = []
    for name in BASELINES:
        predict = _baseline(name, remember=material.train is None)
        thresholds = baseline_thresholds(material, predict, seed)
        rows.append(evaluate(name, predict, material.test, thresholds))
    return pd.concat(rows)


def evaluate_baselines_degraded(
    material: Material, images: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Rows of all `BASELINES` on degraded images, with thresholds for images as they are."""
    rows = []
    for name in BASELINES:
        predict = _baseline(name, remember=False)
        thresholds = baseline_thresholds(material, predict, seed)
        rows.append(evaluate_degraded(name, predict, images, thresholds, seed))
    return pd.concat(rows)


def evaluate_degraded(
    method: str,
    predict: Predict,
    images: pd.DataFrame,
    threshold: float | Mapping[str, float],
    seed: int,
) -> pd.DataFrame:
    """Rows of a method on the images as they are and at every level of `DEGRADATIONS`."""
    cases = [("none", float("nan"))]
    cases += [(name, level) for name, case in DEGRADATIONS.items() for level in case.levels]
    return pd.concat(
        evaluate(
            method,
            predict,
            images,
            threshold,
            degradation=name,
            level=level,
            seed=seed,
            ranking=False,
        )
        for name, level in cases
    )


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
