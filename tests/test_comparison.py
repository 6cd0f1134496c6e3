"""Thresholds that never met what they are used on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from dinolizer.data.images import write_image
from dinolizer.study import comparison
from dinolizer.study.comparison import (
    baseline_methods,
    baseline_thresholds,
    evaluate_baselines,
    evaluate_degraded,
    leads,
    mean_lead,
)
from dinolizer.study.evaluation import Method, Predict, Row, evaluate
from dinolizer.study.material import Material

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
    found = baseline_thresholds(Material(images, None, ()), brightness, seed=0)
    # Photo a's maps are 1 and 1.39, b's 0 and 0.78; each threshold parts the other's.
    assert 1 <= found["b"] < 1.39
    assert 0 <= found["a"] < 0.78


def test_with_a_training_set_it_is_chosen_there_for_all(images: pd.DataFrame) -> None:
    train = images[(images["group"] == "a") & (images["generator"] != "unseen")]
    test = images[images["group"] == "b"]
    found = baseline_thresholds(Material(test, train, ()), brightness, seed=0)
    assert set(found) == {"b"}
    assert 1 <= found["b"] < 1.39


@pytest.mark.parametrize("cross_fitted", [True, False])
def test_every_baseline_maps_every_test_image(images: pd.DataFrame, cross_fitted: bool) -> None:
    rows = evaluate_baselines(Material(images, None if cross_fitted else images, ()))
    assert list(rows["method"].unique()) == list(comparison.BASELINES)
    assert len(rows) == len(comparison.BASELINES) * len(images)


def test_degraded_as_each_case_says(images: pd.DataFrame) -> None:
    cases: list[list[tuple[str, float]]] = [[], [("noise", 3)], [("blur", 3), ("jpeg", 50)]]
    rows = evaluate_degraded({"method": (brightness, 0.5)}, images.iloc[:2], cases, seed=0)
    assert rows["degradation"].tolist() == ["none", "none", "noise", "noise", "jpeg", "jpeg"]
    assert rows["before"].tolist() == ["none"] * 4 + ["blur 3"] * 2
    # At the first row the image is as it was: 4 of 12 rows edited, and none of the others marked.
    assert rows.iloc[0][["tp", "fp", "fn", "tn"]].tolist() == [48, 96, 0, 0]


def test_several_methods_see_the_same_degraded_image(images: pd.DataFrame) -> None:
    seen: dict[str, list[NDArray[np.uint8]]] = {"first": [], "second": []}

    def remember(name: str) -> Predict:
        def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
            seen[name].append(image)
            return brightness(image, row)

        return predict

    methods: dict[str, Method] = {name: (remember(name), 0.5) for name in seen}
    rows = evaluate_degraded(methods, images, [[("noise", 5)]], seed=1)
    np.testing.assert_array_equal(seen["first"], seen["second"])
    alone = evaluate("second", remember("second"), images, 0.5, steps=[("noise", 5)], seed=1)
    np.testing.assert_array_equal(seen["first"], seen["second"][len(images) :])
    both = rows[rows["method"] == "second"][["image", "tp", "fp"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone[["image", "tp", "fp"]])


def test_baselines_get_the_thresholds_of_the_benchmark(images: pd.DataFrame) -> None:
    material = Material(images, None, ())
    methods = baseline_methods(material, seed=0)
    assert list(methods) == list(comparison.BASELINES)
    rows = evaluate_baselines(material, seed=0).drop_duplicates(["method", "group"])
    used = rows.set_index(["method", "group"])["threshold"].to_dict()
    given = {name: threshold for name, (_, threshold) in methods.items()}
    assert used == {(name, group): given[name][group] for name, group in used}  # type: ignore[index]


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
