"""The methods side by side: the localizer, baselines and peers, each from an image to a map."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.manifest import read_pair
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study.baselines import BASELINES
from dinolizer.study.cache import cache_key, cached, images_hash, probe_hash
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import Method, Predict, Row, pictures, probe_image
from dinolizer.study.heads import Fits, localizers
from dinolizer.study.metrics import left_out_thresholds
from dinolizer.study.peers import read_peers

THRESHOLD_IMAGES = 300
"""Edited images of a training set that a threshold is chosen on, drawn by the seed."""


def all_methods(
    name: str,
    dataset: Dataset,
    backbone: Backbone,
    fits: Fits,
    peers: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Method]:
    """All methods of a study by name: the localizer, called ``name``, the baselines, and the peers,
    from folders of maps. The seed draws what the baselines' thresholds are chosen on."""
    baselines = [baseline_method(each, dataset, seed) for each in BASELINES]
    others = read_peers(peers, dataset.test, taken=(name, *BASELINES))
    localizer = localizer_method(name, backbone, fits, dataset.test)
    return {method.name: method for method in (localizer, *baselines, *others)}


def localizer_method(name: str, backbone: Backbone, fits: Fits, manifest: pd.DataFrame) -> Method:
    """The localizer, with the head that never met the photograph of an image."""
    of_group, side = localizers(backbone, fits.heads(manifest)), backbone.spec.window
    probe = Localizer(backbone, fits.whole.head, card_for(backbone))
    made = probe(probe_image(side, side + backbone.spec.patch)).probability
    key = f"{backbone.hash} {fits.hash} {probe_hash(np.quantile(made, np.linspace(0, 1, 9)))}"
    return Method(name, lambda image, row: of_group[row["group"]](image).probability, 0.5, key)


def baseline_method(name: str, dataset: Dataset, seed: int = 0) -> Method:
    """A baseline, with thresholds that are chosen once and kept in the cache."""
    baseline = BASELINES[name]
    code = probe_hash(baseline(probe_image(96, 80)))
    ramp = np.linspace(0, 1, 12)[None]
    choice = left_out_thresholds([ramp, ramp**2], [ramp > 0.5] * 2, "ab", "abc")
    key = cache_key(
        code=code,
        images=images_hash(dataset.test if dataset.train is None else dataset.train),
        settings=(dataset.train is None, seed, sorted(set(dataset.test["group"]))),
        choice=probe_hash(list(choice.values())),
    )

    def choose() -> pd.DataFrame:
        thresholds = baseline_thresholds(dataset, lambda image, row: baseline(image), seed)
        return pd.DataFrame(thresholds.items(), columns=["group", "threshold"])

    table = cached("thresholds", key, choose)
    thresholds = dict(zip(table["group"], table["threshold"], strict=True))
    return Method(name, lambda image, row: baseline(image), thresholds, code)


def baseline_thresholds(dataset: Dataset, predict: Predict, seed: int) -> dict[str, float]:
    """From each group of the test images to a threshold that was chosen without it.

    It is chosen on `THRESHOLD_IMAGES` edited images of the training set, or without one on those of
    all other photographs; as with the heads, never on the held-out generator.
    """
    if dataset.train is None:
        edited = dataset.test[~dataset.test["authentic"] & dataset.test["seen"]]
    else:
        edited = dataset.train[~dataset.train["authentic"] & (dataset.train["split"] != "test")]
        edited = edited.sample(min(THRESHOLD_IMAGES, len(edited)), random_state=seed)
    drawn = [(predict(image, row), truth) for image, truth, row in pictures(edited)]
    maps, truths = [values for values, _ in drawn], [truth for _, truth in drawn]
    photos = dataset.test["group"].unique()
    return left_out_thresholds(maps, truths, list(edited["group"]), photos)


def examples(
    manifest: pd.DataFrame, images: Iterable[str]
) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_], Row]]:
    """Image, mask and row of the images of these names, in their order, to be shown."""
    rows = manifest.set_index("image", drop=False).loc[list(images)].to_dict("records")
    return [(*read_pair(row), row) for row in rows]
