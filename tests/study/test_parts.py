"""Rows computed in parts, by several processes of which some die, are those of one call."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from processes import in_a_process_that_dies, started
from small import small_backbone, small_manifest

from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.study import evaluation
from dinolizer.study.evaluation import (
    Case,
    Method,
    evaluate,
    rows_of,
)
from dinolizer.study.heads import fit
from dinolizer.study.methods import BASELINES, localizer_method
from dinolizer.study.samples import Dataset

CASES: list[Case] = [(), (("resize", 0.9), ("noise", 5))]


def methods_of(dataset: Dataset, seed: int = 0, epochs: int = 2) -> list[Method]:
    """A localizer and a baseline."""
    backbone = small_backbone(seed)
    fits = fit(dataset, backbone, epochs=epochs)
    error = Method("error", lambda image, row: BASELINES["error level analysis"](image), 1.0, "key")
    return [localizer_method("localizer", backbone, fits, dataset.test), error]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Six images of two datasets, at most two of them in a part."""
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluation, "IMAGES", 2)
    images = read_manifest(small_manifest(tmp_path / "images", 6)).assign(seen=True)
    images["dataset"] = ["one"] * 2 + ["two"] * 4
    images["group"] = [f"photo {number // 3}" for number in range(6)]
    return Dataset(images.assign(family=images["generator"]))


def computed(dataset: Dataset, number: int = 1, count: int = 1) -> pd.DataFrame:
    """Every count-th part of both."""
    edited = dataset.test.query("not authentic").reset_index(drop=True)
    methods = methods_of(dataset)
    plain = rows_of(methods, dataset.test, number=number, count=count)
    return pd.concat([plain, rows_of(methods, edited, CASES, 3, number, count)], ignore_index=True)


def files(tmp_path: Path) -> dict[str, int]:
    """Of each cached part, when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache/rows").iterdir()}


def one_call(dataset: Dataset) -> pd.DataFrame:
    """The rows without parts: each method on all images, then all methods on each case."""
    edited = dataset.test.query("not authentic").reset_index(drop=True)
    methods = methods_of(dataset)
    plain = [evaluate([method], dataset.test) for method in methods]
    degraded = [evaluate(methods, edited, steps=case, seed=3, ranking=False) for case in CASES]
    return pd.concat([*plain, *degraded], ignore_index=True)


def test_parts_give_the_rows_of_one_call_whoever_computes_them(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (3, 1, 2):
        computed(dataset, number, 3)
    assert computed(dataset, 99, 99).empty  # of more jobs than there are parts
    made = files(tmp_path)
    # Datasets of 2 and 4 images give one part and two; of the edited ones, 1 and 3, also.
    assert len(made) == 2 * (1 + 2) + 2 * (1 + 2)
    expected = one_call(dataset)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(computed(dataset), expected)
    assert files(tmp_path) == made


def test_what_is_lost_or_damaged_is_computed_again_and_nothing_else(
    dataset: Dataset, tmp_path: Path
) -> None:
    expected = computed(dataset)
    before = files(tmp_path)
    lost, cut, *_ = sorted((tmp_path / "cache/rows").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    pd.testing.assert_frame_equal(computed(dataset), expected)
    after = files(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {lost.name, cut.name}


def test_two_processes_at_once_and_killed_at_random_moments(
    dataset: Dataset, tmp_path: Path
) -> None:
    expected = computed(dataset)
    shutil.rmtree(tmp_path / "cache/rows")
    rng = np.random.default_rng(0)
    for _ in range(2):
        in_a_process_that_dies(lambda: computed(dataset), after=float(rng.uniform(0, 0.2)))
    both = [started(lambda: computed(dataset)) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    pd.testing.assert_frame_equal(computed(dataset), expected)
    assert len([name for name in files(tmp_path) if name[0] != "."]) == 12


def test_what_rows_depend_on_is_in_their_name(dataset: Dataset, tmp_path: Path) -> None:
    rows_of(methods_of(dataset), dataset.test)
    count = len(files(tmp_path))

    def more(methods: list[Method], images: pd.DataFrame = dataset.test) -> int:
        before = len(files(tmp_path))
        rows_of(methods, images)
        return len(files(tmp_path)) - before

    assert more(methods_of(dataset)) == 0
    # Another backbone or other epochs change the localizer, and no baseline.
    assert more(methods_of(dataset, seed=1)) == count // 2
    assert more(methods_of(dataset, epochs=1)) == count // 2
    # Other pixels under the same name: one of the parts, of both methods.
    path = Path(dataset.test["image"].iloc[0])
    write_image(path, 255 - read_image(path))
    assert more(methods_of(dataset)[1:]) == 1


def test_a_dataset_more_leaves_the_rows_of_the_others(dataset: Dataset, tmp_path: Path) -> None:
    error = methods_of(dataset)[1:]
    first = rows_of(error, dataset.test[2:])
    before = files(tmp_path)
    rows = rows_of(error, dataset.test)
    assert len(files(tmp_path)) - len(before) == 1  # of the other dataset only
    again = rows[rows["image"].isin(first["image"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, first)
