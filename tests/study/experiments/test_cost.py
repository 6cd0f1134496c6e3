"""Costs are counted and put together right; no test here depends on how fast the machine is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import random_head, random_image, small_backbone, small_localizer, small_manifest

from dinolizer.data.manifest import read_manifest
from dinolizer.study.evaluation import evaluate
from dinolizer.study.experiments import cost
from dinolizer.study.heads import predict_with
from dinolizer.study.machine import Demand


def test_an_image_is_repeated_to_fill_a_square() -> None:
    image = random_image(3, 2)
    square = cost.tiled(image, 5)
    rows, columns = np.mgrid[:5, :5]
    np.testing.assert_array_equal(square, image[rows % 3, columns % 2])


def test_time_is_taken_of_every_size_in_every_round() -> None:
    localizer, passed = small_localizer()
    points = cost.seconds_by_pixels(localizer, random_image(70, 60), [1, 2], repeats=3)
    assert points["side"].tolist() == [56] * 3 + [112] * 3
    assert points["passes"].tolist() == [1] * 3 + [9] * 3  # of 112 pixels: at 0, 28 and 56
    assert points["megapixels"].tolist() == [0.003136] * 3 + [0.012544] * 3
    assert sum(passed) == 4 * (1 + 9)  # with the round that is not counted
    assert (points["seconds"] > 0).all()


def test_the_line_and_its_interval_are_those_of_numpy_and_of_a_table() -> None:
    points = pd.DataFrame({"megapixels": [1, 2, 3, 4, 5], "seconds": [2.1, 3.9, 6.2, 7.8, 10.1]})
    (slope, start), covariance = np.polyfit(points["megapixels"], points["seconds"], 1, cov=True)
    line = cost.line_fit(points).iloc[0]
    assert line["seconds_per_megapixel"] == pytest.approx(slope)
    assert line["seconds_at_zero"] == pytest.approx(start)
    reach = 3.182 * covariance[0, 0] ** 0.5  # Student's t, 97.5 %, three degrees of freedom
    assert line["high"] - slope == pytest.approx(reach, rel=1e-3)
    assert slope - line["low"] == pytest.approx(reach, rel=1e-3)
    assert line["r_squared"] == pytest.approx(np.corrcoef(points.T)[0, 1] ** 2)
    assert line["n"] == 5


def test_stages_are_those_of_the_way_from_file_to_file() -> None:
    localizer, passed = small_localizer()
    stages = cost.stage_seconds(localizer, random_image(84, 84), repeats=2)
    assert stages["stage"].tolist() == [
        *("read", "prepare", "backbone", "head", "assemble", "mask and score", "save")
    ]
    assert passed == [4] * 3
    np.testing.assert_allclose(stages["share"], stages["seconds"] / stages["seconds"].sum())


def test_limits_are_amounts_over_rates() -> None:
    asked = Demand(flops=4 * 10**9, least_bytes=10**9, most_bytes=3 * 10**9)
    limits = cost.limits(asked, peak=8e9, bandwidth=10e9, seconds=2.0)
    assert limits["amount"].tolist()[:3] == [4, 1, 3]
    assert limits["rate"].tolist()[:3] == [8, 10, 10]
    assert limits["milliseconds"].tolist() == [500, 100, 300, 2000]
    assert limits["share"].tolist() == [0.25, 0.05, 0.15, 1]


def test_every_mode_maps_every_image_and_says_what_it_took(tmp_path: Path) -> None:
    backbone = small_backbone()
    manifest = read_manifest(small_manifest(tmp_path, 6, ("test",)))
    edited = manifest[~manifest["authentic"]]
    heads = {group: random_head(backbone.dim) for group in edited["group"]}
    rows = cost.mode_rows(backbone, heads, edited, [cost.EXACT])
    assert rows["passes"].tolist() == [6] * 4  # 70 x 90: at 0 and 14, at 0, 28 and 34
    assert rows["tokens"].tolist() == [6 * 16] * 4
    expected = evaluate(cost.EXACT, predict_with(backbone, heads), edited, 0.5, ranking=False)
    pd.testing.assert_series_equal(rows["iou"], expected["iou"])


def test_passes_of_larger_images_are_counted_without_running_any() -> None:
    localizer, passed = small_localizer()
    lines = cost.passes_by_size(localizer, [1, 3], ["exact", "tiles"])
    assert lines["side"].tolist() == [56, 168] * 2
    assert lines["passes"].tolist() == [1, 25, 1, 9]  # every 28 pixels, and side by side
    assert lines["most_passes"].tolist() == lines["passes"].tolist()
    assert lines["tokens"].tolist() == [16 * passes for passes in lines["passes"]]
    assert passed == []


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two modes on four images of two families; every number of the table follows by hand."""
    common = {"kind": "sp", "seen": True, "tp": 1, "fp": 1, "fn": 1, "tn": 1, "ap": np.nan}
    images = [("a", "x", "one"), ("b", "x", "two"), ("c", "y", "one"), ("d", "y", "two")]
    values = {
        "exact": ([0.4, 0.6, 0.2, 0.4], [4, 4, 4, 4], [2.0, 2.0, 4.0, 4.0]),
        "fast": ([0.4, 0.5, 0.2, 0.5], [1, 1, 2, 2], [1.0, 0.5, 1.0, 2.0]),
    }
    return pd.DataFrame(
        [
            {"method": mode, "image": image, "family": family, "group": group, "iou": iou}
            | {"f1": 2 * iou / (1 + iou), "best_iou": np.nan, "passes": passes, "seconds": seconds}
            | {"tokens": 16 * passes, **common}
            for mode, (ious, of_passes, of_seconds) in values.items()
            for (image, family, group), iou, passes, seconds in zip(
                images, ious, of_passes, of_seconds, strict=True
            )
        ]
    )


def test_the_modes_table_holds_costs_scores_and_paired_changes(rows: pd.DataFrame) -> None:
    exact, fast = cost.mode_table(rows).to_dict("records")
    assert (exact["mode"], fast["mode"]) == ("exact", "fast")
    assert (exact["passes"], fast["passes"]) == (4, 1.5)
    assert (exact["tokens"], fast["tokens"]) == (64, 24)
    assert fast["fewer_passes"] == fast["fewer_tokens"] == pytest.approx(4 / 1.5)
    assert exact["iou"] == pytest.approx((0.5 + 0.3) / 2)
    assert fast["iou"] == pytest.approx((0.45 + 0.35) / 2)
    # Changes: 0 of photograph one; -0.1 and 0.1 of two, one in each family.
    assert fast["iou_change"] == pytest.approx(0)
    assert (fast["iou_change_low"], fast["iou_change_high"]) == pytest.approx((0, 0))
    f1 = [2 * iou / (1 + iou) for iou in (0.5, 0.6, 0.5, 0.4)]
    assert fast["f1_change"] == pytest.approx((f1[0] - f1[1] + f1[2] - f1[3]) / 4)
    assert exact["iou_change"] == exact["f1_change"] == 0


def test_times_of_modes_are_compared_image_by_image(rows: pd.DataFrame) -> None:
    exact, fast = cost.mode_seconds(rows).to_dict("records")
    assert (exact["seconds"], exact["faster"]) == (3.0, 1.0)
    assert fast["seconds"] == 1.0
    assert fast["faster"] == 3.0  # 2, 4, 4 and 2 times


def test_the_goal_asks_for_fewer_passes_and_for_accuracy() -> None:
    table = pd.DataFrame(
        {
            "mode": ["slow", "poor", "good", "better"],
            "fewer_passes": [3.9, 16, 4, 5],
            "iou_change": [0.01, -0.0051, -0.005, 0.02],
        }
    )
    assert cost.reaches_goal(table)["mode"].tolist() == ["good", "better"]
