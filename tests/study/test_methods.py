"""Thresholds that never met what they are used on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from small import random_head, random_image, small_backbone

from dinolizer.data.images import write_image
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study import methods as comparison
from dinolizer.study.evaluation import Method, Row, evaluate
from dinolizer.study.heads import Fits
from dinolizer.study.methods import (
    baseline_method,
    baseline_thresholds,
    error_level,
    localizer_method,
)
from dinolizer.study.samples import Dataset
from dinolizer.training.heads import Fit

SIDE = 12


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    """Of two photos each: an edit of a seen and of an unseen generator, and the photo itself."""
    rows = []
    for group in "ab":
        for generator in ("x", "unseen", "none"):
            edited = generator != "none"
            image = np.zeros((SIDE, SIDE, 3), np.uint8)
            image[:4] = 200 * edited
            path, mask = (tmp_path / f"{group}-{generator}{end}.png" for end in ("", "-mask"))
            write_image(path, image)
            write_image(mask, (image[..., 0] > 0).astype(np.uint8) * 255)
            rows.append(
                {
                    "image": str(path),
                    "mask": str(mask) if edited else "",
                    "authentic": not edited,
                    "generator": generator,
                    "kind": "sp" if edited else "real",
                    "background": "real",
                    "group": group,
                    "split": "train",
                    "seen": generator == "x",
                }
            )
    return pd.DataFrame(rows)


def brightness(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
    """0.39 where photo a is edited and 0.78 where b is; 5 everywhere for the unseen generator."""
    if row["generator"] == "unseen":
        return np.full(image.shape[:2], 5.0)
    return image[..., 0] / 255 * (0.5 if row["group"] == "a" else 1) + (row["group"] == "a")


def test_with_one_photo_left_out_it_is_chosen_on_the_other_photos(images: pd.DataFrame) -> None:
    found = baseline_thresholds(Dataset(images, None), brightness, seed=0)
    # Photo a's maps are 1 and 1.39, b's 0 and 0.78; each threshold parts the other's.
    assert 1 <= found["b"] < 1.39
    assert 0 <= found["a"] < 0.78


def test_with_a_training_set_it_is_chosen_there_for_all(images: pd.DataFrame) -> None:
    train = images[(images["group"] == "a") & (images["generator"] != "unseen")]
    test = images[images["group"] == "b"]
    found = baseline_thresholds(Dataset(test, train), brightness, seed=0)
    assert set(found) == {"b"}
    assert 1 <= found["b"] < 1.39


def test_several_methods_see_the_same_degraded_image(images: pd.DataFrame) -> None:
    met: dict[str, list[NDArray[np.uint8]]] = {"first": [], "second": []}

    def remember(name: str) -> Method:
        def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
            met[name].append(image)
            return brightness(image, row)

        return Method(name, predict)

    methods = [remember(name) for name in met]
    rows = evaluate(methods, images, steps=[("noise", 5)], seed=1, ranking=False)
    np.testing.assert_array_equal(met["first"], met["second"])
    alone = evaluate(methods[1:], images, steps=[("noise", 5)], seed=1)
    np.testing.assert_array_equal(met["first"], met["second"][len(images) :])
    both = rows[rows["method"] == "second"][["image", "tp", "fp"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone[["image", "tp", "fp"]])


@pytest.mark.parametrize("left_out", [True, False])
def test_thresholds_are_chosen_once(
    images: pd.DataFrame, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    dataset, name = Dataset(images, None if left_out else images), "error level analysis"
    first = baseline_method(name, dataset)
    assert first.threshold == baseline_thresholds(dataset, lambda image, _: error_level(image), 0)
    monkeypatch.setattr(comparison, "baseline_thresholds", lambda *_: pytest.fail("chosen again"))
    again = baseline_method(name, dataset)
    assert (again.threshold, again.key) == (first.threshold, first.key)
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(again(image, {}), error_level(image))
    for changed in (
        Dataset(images.assign(group="c"), dataset.train),
        Dataset(images.iloc[:5], None if left_out else images.iloc[:5]),
    ):
        with pytest.raises(pytest.fail.Exception, match="chosen again"):
            baseline_method(name, changed)


def test_the_localizer_takes_the_head_that_never_met_the_photograph(images: pd.DataFrame) -> None:
    backbone = small_backbone()
    heads = {group: random_head(backbone.dim) for group in "ab"}
    heads["b"].weight.data *= 2
    left_out = {group: Fit(head, pd.DataFrame()) for group, head in heads.items()}
    method = localizer_method("own", backbone, Fits(left_out, left_out["a"]), images)
    image = random_image(70, 60)
    for group in "ab":
        expected = Localizer(backbone, heads[group], card_for(backbone))(image).probability
        np.testing.assert_array_equal(method(image, {"group": group}), expected)
