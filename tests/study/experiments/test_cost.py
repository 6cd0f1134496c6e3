"""Costs are counted and put together right; no test here depends on how fast the machine is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import small_localizer, small_manifest

from dinolizer.data.manifest import read_manifest, read_pair
from dinolizer.study.experiments import cost


def edited_images(folder: Path) -> pd.DataFrame:
    manifest = read_manifest(small_manifest(folder, 12, ("test",)))
    return manifest[~manifest["authentic"]]


def test_map_and_backbone_are_timed_on_the_same_number_of_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    localizer, passed = small_localizer()
    seconds = iter([2.0, 1.5, 8.0, 6.0])
    counted = []

    def once(run, min_seconds):  # type: ignore[no-untyped-def]
        passed.clear()
        run()
        counted.append(sum(passed))
        return next(seconds)

    monkeypatch.setattr(cost, "median_seconds", once)
    points = cost.seconds_by_size(localizer, [1, 2], min_seconds=0)
    assert points["passes"].tolist() == [1, 9]  # of 112 pixels: at 0, 28 and 56
    assert counted == [1, 1, 9, 9]
    assert points["megapixels"].tolist() == [0.003136, 0.012544]
    assert points["backbone_share"].tolist() == [0.75, 0.75]


def test_a_run_is_repeated_for_the_time_asked() -> None:
    assert 0 < cost.median_seconds(lambda: None, 0.001) < 0.001


def test_a_small_image_becomes_a_mosaic_of_its_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "LARGE", 140)  # of images of 70 x 90 pixels: two by two
    edited = edited_images(tmp_path).assign(group=["a"] * 5 + ["b"] * 3)
    (name, image, truth), (other, *_) = cost.large_pictures(edited)
    assert (name, other) == ("a", "b")
    assert image.shape == (140, 180, 3)
    known = [read_pair(row) for row in edited[:5].to_dict("records")]
    used = set()
    for top, left in ((0, 0), (0, 90), (70, 0), (70, 90)):
        tile = (slice(top, top + 70), slice(left, left + 90))
        (number,) = [n for n, (own, _) in enumerate(known) if np.array_equal(own, image[tile])]
        np.testing.assert_array_equal(truth[tile], known[number][1])
        used.add(number)
    assert len(used) == 4  # none twice, as there are enough


def test_a_large_image_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE", 70)
    edited = edited_images(tmp_path)
    ((name, image, truth),) = cost.large_pictures(edited, count=1)
    row = edited.set_index("group", drop=False).loc[name].to_dict()
    for ours, expected in zip((image, truth), read_pair(row), strict=True):
        np.testing.assert_array_equal(ours, expected)
