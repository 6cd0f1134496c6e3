"""Rows computed in parts, by several processes of which some die, are those of one call."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from processes import in_a_process_that_dies, started
from small import small_backbone, small_manifest

from dinolizer.data.manifest import read_manifest
from dinolizer.study import methods as comparison
from dinolizer.study import parts
from dinolizer.study.baselines import BASELINES
from dinolizer.study.dataset import Dataset
from dinolizer.study.evaluation import evaluate_all
from dinolizer.study.experiments.robustness import Case
from dinolizer.study.methods import Contenders
from dinolizer.study.parts import Part, benchmark_parts, degraded_parts, rows_of

CASES: list[Case] = [(), (("resize", 0.9), ("noise", 5))]
QUICK = {"error": BASELINES["error level analysis"], "noise": BASELINES["noise inconsistency"]}


@pytest.fixture
def contenders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contenders:
    """Of six images of two datasets, at most two of them in a part."""
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "IMAGES", 2)
    monkeypatch.setattr(comparison, "BASELINES", QUICK)
    images = read_manifest(small_manifest(tmp_path / "images", 6)).assign(seen=True)
    images["dataset"] = ["one"] * 2 + ["two"] * 4
    images["group"] = [f"photo {number // 3}" for number in range(6)]
    return Contenders("own", Dataset(images, None), small_backbone(), epochs=2, seed=3)


def all_parts(contenders: Contenders) -> list[Part]:
    edited = contenders.dataset.test.query("not authentic").reset_index(drop=True)
    return [*benchmark_parts(contenders), *degraded_parts(contenders, edited, CASES)]


def timeless(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="seconds")


def files(contenders: Contenders, tmp_path: Path) -> dict[str, int]:
    """Of each stored part, when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache/rows").iterdir()}


def one_call(contenders: Contenders) -> pd.DataFrame:
    """The rows without parts: each method on all images, then all methods on each case."""
    test = contenders.dataset.test
    edited = test.query("not authentic").reset_index(drop=True)
    plain = [
        evaluate_all({name: contenders.method(name, test, degraded=False)}, test)
        for name in ("own", *QUICK)
    ]
    methods = {name: contenders.method(name, edited, degraded=True) for name in ("own", *QUICK)}
    degraded = [evaluate_all(methods, edited, steps=case, seed=3, ranking=False) for case in CASES]
    return timeless(pd.concat([*plain, *degraded], ignore_index=True))


def test_parts_give_the_rows_of_one_call_whoever_computes_them(
    contenders: Contenders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = all_parts(contenders)
    # Datasets of 2 and 4 images give one part and two; of the edited ones, 1 and 3, also.
    assert len(wanted) == 3 * (1 + 2) + 2 * (1 + 2)
    for number in (2, 0, 1):
        rows_of(wanted[number::3])
    assert rows_of(wanted[len(wanted) :: 3]).empty  # of more jobs than there are parts
    computed = files(contenders, tmp_path)
    assert len(computed) == len(wanted)
    expected = one_call(contenders)

    def compute(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(parts, "evaluate_all", compute)
    unfitted = Contenders("own", contenders.dataset, small_backbone(), epochs=2, seed=3)
    found = timeless(rows_of(all_parts(unfitted)))
    pd.testing.assert_frame_equal(found, expected)
    assert "fits" not in vars(unfitted)  # whoever only reads, fits nothing
    assert files(contenders, tmp_path) == computed


def test_what_is_lost_or_damaged_is_computed_again_and_nothing_else(
    contenders: Contenders, tmp_path: Path
) -> None:
    wanted = all_parts(contenders)
    expected = timeless(rows_of(wanted))
    before = files(contenders, tmp_path)
    lost, cut, *_ = sorted((tmp_path / "cache/rows").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    pd.testing.assert_frame_equal(timeless(rows_of(wanted)), expected)
    after = files(contenders, tmp_path)
    assert {name for name in before if before[name] != after[name]} == {lost.name, cut.name}


@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_at_once_and_killed_at_random_moments(
    seed: int, contenders: Contenders, tmp_path: Path
) -> None:
    wanted = all_parts(contenders)
    expected = timeless(rows_of(wanted))
    shutil.rmtree(tmp_path / "cache/rows")
    rng = np.random.default_rng(seed)
    for _ in range(2):
        in_a_process_that_dies(lambda: rows_of(wanted), after=float(rng.uniform(0, 0.2)))
    both = [started(lambda: rows_of(wanted)) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    pd.testing.assert_frame_equal(timeless(rows_of(wanted)), expected)
    assert len([name for name in files(contenders, tmp_path) if name[0] != "."]) == len(wanted)


def test_what_rows_depend_on_is_in_their_name(contenders: Contenders, tmp_path: Path) -> None:
    rows_of(benchmark_parts(contenders))
    dataset, backbone = contenders.dataset, contenders.backbone
    count = len(files(contenders, tmp_path))

    def computed(changed: Contenders, names: Sequence[str] = ()) -> int:
        before = len(files(contenders, tmp_path))
        rows_of([part for part in benchmark_parts(changed) if not names or part.names[0] in names])
        return len(files(contenders, tmp_path)) - before

    assert computed(Contenders("own", dataset, small_backbone(), 2, 3)) == 0
    # Another backbone or other epochs change the localizer, and no baseline.
    assert computed(Contenders("own", dataset, small_backbone(seed=1), 2, 3)) == count // 3
    assert computed(Contenders("own", dataset, backbone, 1, 3)) == count // 3
    assert computed(Contenders("own", dataset, backbone, 2, 4)) == count
    others = Dataset(dataset.test.assign(seen=dataset.test["kind"] != "fr"), None)
    assert computed(Contenders("own", others, backbone, 2, 3)) == count


def test_a_dataset_more_leaves_the_rows_of_the_others(
    contenders: Contenders, tmp_path: Path
) -> None:
    images = contenders.dataset.test
    training = read_manifest(tmp_path / "images/manifest.csv")
    few, many = (
        Contenders("own", Dataset(test, training), contenders.backbone, 1)
        for test in (images[2:].reset_index(drop=True), images)
    )
    first = rows_of(benchmark_parts(few))
    before = files(contenders, tmp_path)
    rows = rows_of(benchmark_parts(many))
    assert len(files(contenders, tmp_path)) - len(before) == 3  # of the other dataset only
    again = rows[rows["image"].isin(images["image"][2:])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, first)  # the seconds too: they were not run again
