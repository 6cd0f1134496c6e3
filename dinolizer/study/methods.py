"""The methods side by side: the localizer, and baselines with thresholds of their own."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.manifest import read_pair
from dinolizer.model.backbones import Backbone
from dinolizer.study.baselines import BASELINES
from dinolizer.study.cache import source_hash, stored
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import Method, Predict, edited_truth
from dinolizer.study.heads import EPOCHS, Fits, fit, predict_own, predict_with
from dinolizer.study.metrics import choose_threshold, leave_one_out_thresholds
from dinolizer.study.statistics import macro_mean

Map = NDArray[np.floating]

THRESHOLD_IMAGES = 300
"""Edited images of a training set that a threshold is chosen on, drawn by the seed."""


@dataclass(frozen=True)
class Contenders:
    """The localizer and the baselines of a study, fitted only when a map is asked for.

    Attributes
    ----------
    own
        Name of the localizer in the tables.
    dataset, backbone, epochs, seed
        As `dinolizer.study.heads.fit` takes them.
    """

    own: str
    dataset: Dataset
    backbone: Backbone
    epochs: int = EPOCHS
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of all methods, the localizer first."""
        return self.own, *BASELINES

    @cached_property
    def fits(self) -> Fits:
        """The heads."""
        return fit(self.dataset, self.backbone, epochs=self.epochs, seed=self.seed)

    @cached_property
    def thresholds(self) -> dict[str, dict[str, float]]:
        """Of each baseline, its `baseline_thresholds`; kept in the cache."""
        groups = sorted(set(self.dataset.test["group"]))
        depends = f"{source_hash(__name__)} {self.seed} {groups} {self._fitted_on}"
        table = stored("thresholds", depends, self._choose)
        return {name: dict(zip(table["group"], table[name], strict=True)) for name in BASELINES}

    def _choose(self) -> pd.DataFrame:
        found = {
            name: baseline_thresholds(self.dataset, _predict(name), self.seed) for name in BASELINES
        }
        return pd.DataFrame(found).rename_axis("group").reset_index()

    def method(self, name: str, images: pd.DataFrame, *, degraded: bool) -> Method:
        """One of them, ready to map test images: as they are, or after any degradation."""
        if name != self.own:
            return _predict(name), self.thresholds[name]
        if degraded:
            return predict_with(self.backbone, self.fits.heads(images)), 0.5
        return self._predict_own, 0.5

    @cached_property
    def _predict_own(self) -> Predict:
        return predict_own(self.dataset, self.backbone, self.fits)

    def depends(self, name: str) -> str:
        """In words, all that the maps and the threshold of a method depend on."""
        fitted = f"{self.backbone.hash} {self.epochs}" if name == self.own else ""
        return f"{name} {fitted} {self.seed} {self._fitted_on}"

    @cached_property
    def _fitted_on(self) -> str:
        train = self.dataset.train
        manifest = self.dataset.test if train is None else train
        return hashlib.sha256(f"{train is None} {manifest.to_csv()}".encode()).hexdigest()


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


def baseline_thresholds(dataset: Dataset, predict: Predict, seed: int) -> dict[str, float]:
    """From each group of the test images to a threshold that was chosen without it.

    Where there is a training set, on `THRESHOLD_IMAGES` of its edited images; else on those of all
    other photographs. As the heads, thresholds are not chosen on the held-out generator.
    """
    if dataset.train is not None:
        edited = dataset.train[~dataset.train["authentic"] & (dataset.train["split"] != "test")]
        chosen = edited.sample(min(THRESHOLD_IMAGES, len(edited)), random_state=seed)
        threshold = choose_threshold(*_maps(chosen, predict))
        return dict.fromkeys(dataset.test["group"], threshold)
    edited = dataset.test[~dataset.test["authentic"] & dataset.test["seen"]]
    return leave_one_out_thresholds(*_maps(edited, predict), list(edited["group"]))


def _maps(manifest: pd.DataFrame, predict: Predict) -> tuple[list[Map], list[NDArray[np.bool_]]]:
    rows = manifest.to_dict("records")
    pairs = [(read_pair(row), row) for row in rows]
    return (
        [predict(image, row) for (image, _), row in pairs],
        [edited_truth(mask, row) for (_, mask), row in pairs],
    )


def _predict(name: str) -> Predict:
    return lambda image, row: BASELINES[name](image)
