"""Thresholds that never met what they are used on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from small import small_backbone

from dinolizer.data.images import write_image
from dinolizer.study import methods as comparison
from dinolizer.study.baselines import BASELINES
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import Method, Predict, Row, evaluate, evaluate_all
from dinolizer.study.methods import Contenders, baseline_thresholds, leads, mean_lead

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


def test_in_cross_fitting_it_is_chosen_on_the_other_photos(images: pd.DataFrame) -> None:
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
    seen: dict[str, list[NDArray[np.uint8]]] = {"first": [], "second": []}

    def remember(name: str) -> Predict:
        def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
            seen[name].append(image)
            return brightness(image, row)

        return predict

    methods: dict[str, Method] = {name: (remember(name), 0.5) for name in seen}
    rows = evaluate_all(methods, images, steps=[("noise", 5)], seed=1, ranking=False)
    np.testing.assert_array_equal(seen["first"], seen["second"])
    alone = evaluate("second", remember("second"), images, 0.5, steps=[("noise", 5)], seed=1)
    np.testing.assert_array_equal(seen["first"], seen["second"][len(images) :])
    both = rows[rows["method"] == "second"][["image", "tp", "fp"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone[["image", "tp", "fp"]])


@pytest.mark.parametrize("cross_fitted", [True, False])
def test_thresholds_are_chosen_once(
    images: pd.DataFrame, cross_fitted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    dataset = Dataset(images, None if cross_fitted else images)
    backbone = small_backbone()
    first = Contenders("own", dataset, backbone).thresholds
    assert first == {
        name: baseline_thresholds(dataset, lambda image, _, name=name: BASELINES[name](image), 0)  # type: ignore[misc]
        for name in BASELINES
    }

    def choose(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(comparison, "baseline_thresholds", choose)
    again = Contenders("own", dataset, backbone)
    assert again.thresholds == first
    for name in BASELINES:  # the same for images as they are and degraded
        for degraded in (True, False):
            predict, thresholds = again.method(name, images, degraded=degraded)
            assert thresholds == first[name]
            image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
            np.testing.assert_array_equal(predict(image, {}), BASELINES[name](image))
    for changed in (
        Contenders("own", dataset, backbone, seed=1),
        Contenders("own", Dataset(images.iloc[:5], images if not cross_fitted else None), backbone),
        Contenders("own", Dataset(images.assign(group="c"), dataset.train), backbone),
    ):
        if changed.seed or cross_fitted or "c" in set(changed.dataset.test["group"]):
            with pytest.raises(AssertionError):
                _ = changed.thresholds


def test_the_lead_is_over_the_next_best_of_all_images() -> None:
    # Families x (photos a, b) and y (photo a); "good" is the next best: 0.5 and 0.2 over families.
    ious = {"own": (0.6, 0.8, 0.5), "good": (0.4, 0.6, 0.2), "bad": (0.9, 0.0, 0.0)}
    rows = pd.DataFrame(
        [
            {"method": method, "family": family, "group": group, "image": image, "iou": iou}
            for method, values in ious.items()
            for (family, group, image), iou in zip(
                [("x", "a", "1"), ("x", "b", "2"), ("y", "a", "3")], values, strict=True
            )
        ]
    )
    found = leads(rows, "own")
    assert found["lead"].tolist() == pytest.approx([0.2, 0.2, 0.3])
    mean, low, high = mean_lead(found)
    assert mean == pytest.approx((0.2 + 0.3) / 2)
    # Drawing b alone leaves family y out.
    assert (low, high) == pytest.approx((0.2, 0.25))
