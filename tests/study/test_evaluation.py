"""Rows from a manifest on disk, and tables against what is counted by hand."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from processes import in_a_process_that_dies, started
from small import small_backbone, small_manifest

from dinolizer.data.degradations import degrade
from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.study import evaluation
from dinolizer.study.evaluation import (
    Case,
    Method,
    Predict,
    authentic_table,
    benchmark_table,
    by_dataset,
    evaluate,
    rows_of,
    score_table,
)
from dinolizer.study.heads import fit
from dinolizer.study.methods import BASELINES, localizer_method
from dinolizer.study.samples import Dataset
from dinolizer.study.statistics import ALL_FAMILIES

HEIGHT, WIDTH = 10, 20  # 200 pixels; every edit is the top row (20) or the top two rows (40)


def red(image: NDArray[np.uint8], row: object) -> NDArray[np.float32]:
    """A method: the red channel is the suspicion, 0 to 1."""
    return image[..., 0].astype(np.float32) / 255


def evaluate_one(
    name: str,
    predict: Predict,
    frame: pd.DataFrame,
    threshold: float | dict[str, float],
    **settings: Any,
) -> pd.DataFrame:
    return evaluate(Method(name, predict, threshold), frame, **settings)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Two photos; per photo two edits, of two families, and the photo itself."""
    monkeypatch.setattr(evaluation, "RING", 0)  # the images are smaller than that
    rows: list[dict[str, Any]] = []
    for group, found in (("a", 20), ("b", 10)):
        for family, kind, edited in (("x", "sp", 1), ("y", "fr", 2), ("", "real", 0)):
            image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
            image[0, :found, 0] = 200  # `red` finds the top row, or the first half of it
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[:edited] = 255
            path, mask_path = tmp_path / f"{group}{kind}.png", tmp_path / f"{group}{kind}-mask.png"
            write_image(path, image)
            write_image(mask_path, mask)
            authentic = kind == "real"
            rows.append(
                {
                    "image": str(path),
                    "mask": "" if authentic else str(mask_path),
                    "authentic": authentic,
                    "generator": family,
                    "kind": kind,
                    "background": "reencoded" if kind == "fr" else "real",
                    "group": group,
                    "seen": family != "y",
                    "condition": "jpeg" if group == "b" else "clean",
                }
            )
    return pd.DataFrame(rows)


def test_rows_hold_counts_and_scores_of_each_image(manifest: pd.DataFrame) -> None:
    rows = evaluate_one("red", red, manifest, 0.5).set_index(["group", "kind"])
    counted = rows[["tp", "fp", "fn", "tn"]].to_dict("split")
    assert dict(zip(counted["index"], counted["data"], strict=True)) == {
        ("a", "sp"): [20, 0, 0, 180],
        ("a", "fr"): [20, 0, 20, 160],
        ("a", "real"): [0, 20, 0, 180],
        ("b", "sp"): [10, 0, 10, 180],
        ("b", "fr"): [10, 0, 30, 160],
        ("b", "real"): [0, 10, 0, 190],
    }
    assert rows["iou"].tolist()[:2] == [1, 0.5]
    assert rows["predicted_area"].tolist() == [0.1] * 3 + [0.05] * 3
    assert rows.loc[("a", "sp"), ["best_iou", "ap", "score"]].tolist() == pytest.approx(
        [1, 1, 200 / 255]
    )
    assert np.isnan(rows.loc[("a", "real"), ["iou", "f1", "ap", "best_iou"]].astype(float)).all()


def test_what_is_only_reencoded_is_not_edited(manifest: pd.DataFrame) -> None:
    # The same files, said to be re-encoded inside of the mask over a real background.
    frame = manifest[manifest["kind"] == "sp"].assign(kind="reencoded", authentic=True)
    rows = evaluate_one("red", red, frame, 0.5)
    assert rows[["tp", "fp", "fn", "tn"]].to_numpy().tolist() == [[0, 20, 0, 180], [0, 10, 0, 190]]


def test_at_the_edge_of_a_regenerated_edit_the_truth_is_not_known() -> None:
    """A prediction that is 8 pixels too wide, or too narrow, is right there, one of 9 is not; of an
    edit that is all edge the inside is kept."""
    truth = np.zeros((80, 80), bool)
    truth[20:60, 20:60] = True
    for wide, fp, fn in ((8, 0, 0), (-8, 0, 0), (9, 58**2 - 56**2, 0), (-9, 0, 24**2 - 22**2)):
        predicted = np.zeros((80, 80))
        predicted[20 - wide : 60 + wide, 20 - wide : 60 + wide] = 1
        of = evaluation.score_known(predicted, 0.5, truth, "fr")
        assert (of["fp"], of["fn"], of["tp"] + of["fn"]) == (fp, fn, 24**2)
        assert evaluation.score_known(predicted, 0.5, truth, "sp")["tp"] < 1600 + wide
    small = np.zeros((80, 80), bool)
    small[40:46, 40:46] = True
    assert evaluation.score_known(small.astype(float), 0.5, small, "fr")["iou"] == 1


def test_the_threshold_may_differ_between_photos(manifest: pd.DataFrame) -> None:
    rows = evaluate_one("red", red, manifest, {"a": 0.9, "b": 0.5})
    assert rows.groupby("group")["predicted_area"].max().to_dict() == {"a": 0, "b": 0.05}
    assert rows["threshold"].tolist() == [0.9] * 3 + [0.5] * 3


def test_the_method_sees_the_row_and_the_degraded_image(manifest: pd.DataFrame) -> None:
    seen: list[tuple[str, NDArray[np.uint8]]] = []

    def predict(image: NDArray[np.uint8], row: Any) -> NDArray[np.float32]:
        seen.append((row["group"], image))
        return red(image, row)

    rows = evaluate_one("red", predict, manifest, 0.3, steps=[("resize", 1.5)])
    assert [group for group, _ in seen] == ["a"] * 3 + ["b"] * 3
    assert {image.shape for _, image in seen} == {(15, 30, 3)}
    assert (rows[["tp", "fp", "fn", "tn"]].sum(axis=1) == 15 * 30).all()
    assert rows["degradation"].unique().tolist() == ["resize"]
    original = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    original[0, :, 0] = 200
    np.testing.assert_array_equal(seen[0][1], degrade("resize", 1.5, original, seed=0))


def test_steps_follow_each_other_and_the_rows_name_them(manifest: pd.DataFrame) -> None:
    seen: list[NDArray[np.uint8]] = []

    def predict(image: NDArray[np.uint8], row: object) -> NDArray[np.float32]:
        seen.append(image)
        return red(image, row)

    steps = [("blur", 3), ("resize", 0.5), ("jpeg", 90)]
    rows = evaluate_one("red", predict, manifest.iloc[:1], 0.1, steps=steps)
    original = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    original[0, :, 0] = 200
    expected = original
    for name, level in steps:
        expected = degrade(name, level, expected, seed=0)
    np.testing.assert_array_equal(seen[0], expected)
    assert (rows[["tp", "fp", "fn", "tn"]].sum(axis=1) == 5 * 10).all()
    (named,) = rows[["before", "degradation", "level"]].to_dict("records")
    assert named == {"before": "blur 3 + resize 0.5", "degradation": "jpeg", "level": 90}
    (none,) = evaluate_one("red", red, manifest.iloc[:1], 0.1)[["before", "degradation"]].to_numpy()
    assert none.tolist() == ["none", "none"]


def test_noise_differs_between_images_and_repeats_with_the_seed(manifest: pd.DataFrame) -> None:
    def run(seed: int) -> list[float]:
        noisy: list[float] = []

        def predict(image: NDArray[np.uint8], row: object) -> NDArray[np.float32]:
            noisy.append(float(image[5:].astype(float).mean()))
            return red(image, row)

        evaluate_one("red", predict, manifest, 0.5, steps=[("noise", 9)], seed=seed)
        return noisy

    first = run(0)
    assert len(set(first)) == len(first)
    assert first == run(0)
    assert set(first).isdisjoint(run(1))


def test_a_map_of_another_size_is_refused(manifest: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"\(10, 10\) and the truth \(10, 20\) pixels"):
        evaluate_one("cropped", lambda image, row: red(image, row)[:, :10], manifest, 0.5)


def test_the_table_by_hand(manifest: pd.DataFrame) -> None:
    table = benchmark_table(evaluate_one("red", red, manifest, 0.5))
    assert list(table.columns)[:8] == [
        *("method", "family", "kind", "seen", "n_images", "n_photos", "iou", "iou_low")
    ]
    spliced, regenerated, overall = table.to_dict("records")
    # Family x: IoU 1 and 1/2.
    assert (spliced["family"], spliced["kind"], spliced["seen"]) == ("x", "sp", True)
    assert (spliced["n_images"], spliced["iou"]) == (2, 0.75)
    assert np.isnan([spliced["iou_low"], spliced["iou_high"]]).all()  # of two photographs
    assert spliced["f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert spliced["micro_iou"] == 30 / 40
    # Family y: IoU 1/2 and 1/4.
    assert (regenerated["family"], regenerated["seen"]) == ("y", False)
    assert regenerated["iou"] == 0.375
    assert (overall["family"], overall["kind"], overall["n_images"]) == (ALL_FAMILIES, "all", 4)
    assert overall["iou"] == (0.75 + 0.375) / 2
    assert overall["micro_iou"] == 60 / 120


def test_families_count_equally_however_many_images_they_have(manifest: pd.DataFrame) -> None:
    rows = evaluate_one("red", red, manifest, 0.5)
    many = pd.concat([rows, *[rows[rows["family"] == "x"]] * 3])
    first, second = (
        benchmark_table(table).query("family == @ALL_FAMILIES").drop(columns="micro_iou")
        for table in (rows, many)
    )
    pd.testing.assert_frame_equal(first, second)


def test_datasets_count_equally_however_many_generators_and_images_they_have() -> None:
    """One dataset of two generators and three images, one of a single image: the mean over
    datasets is .3, that over images .4, and that over generators (.3 + .9 + .1) / 3."""
    lines = [("one", "sd2", "a", 0.2), ("one", "sd2", "b", 0.4), ("one", "flux", "a", 0.9)]
    lines.append(("two", "sdxl", "c", 0.1))
    rows = pd.DataFrame(lines, columns=["family", "generator", "group", "ap"])
    counts = {"tp": 1, "fp": 1, "fn": 1, "iou": 0.5, "f1": 0.5, "best_iou": 0.5}
    rows = rows.assign(method="m", kind=["sp", "sp", "fr", "sp"], seen=False, **counts)
    table = benchmark_table(by_dataset(rows)).set_index("family")
    assert table["ap"].to_dict() == pytest.approx({"one": 0.5, "two": 0.1, ALL_FAMILIES: 0.3})
    assert table["n_images"].to_dict() == {"one": 3, "two": 1, ALL_FAMILIES: 4}
    assert set(table["kind"]) == set(table["seen"]) == {"all"}


def test_methods_keep_their_order_and_have_their_own_lines(manifest: pd.DataFrame) -> None:
    def nothing(image: NDArray[np.uint8], row: object) -> NDArray[np.float32]:
        return np.zeros(image.shape[:2], dtype=np.float32)

    rows = pd.concat(
        [evaluate_one("red", red, manifest, 0.5), evaluate_one("nothing", nothing, manifest, 0.5)]
    )
    table = benchmark_table(rows)
    assert table["method"].tolist() == ["red"] * 3 + ["nothing"] * 3
    assert table["family"].tolist() == ["x", "y", ALL_FAMILIES] * 2
    assert table.query("method == 'nothing'")["iou"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("columns", [["condition"], ["before", "degradation", "level"]])
def test_other_cuts_of_the_rows(manifest: pd.DataFrame, columns: list[str]) -> None:
    clean = evaluate_one("red", red, manifest, 0.5)
    noisy = evaluate_one("red", red, manifest, 0.5, steps=[("jpeg", 100)])
    rows = clean if "condition" in columns else pd.concat([clean, noisy])
    table = score_table(rows, ["method", *columns])
    assert list(table.columns)[: len(columns) + 1] == ["method", *columns]
    # By photo's condition: a has IoU 1 and 1/2, b has 1/2 and 1/4. Undegraded: all four of them.
    expected = [0.75, 0.375] if "condition" in columns else [0.5625, 0.5625]
    assert table["iou"].tolist() == pytest.approx(expected, abs=0.02)
    assert table["n_images"].tolist() == [2, 2] if "condition" in columns else [4, 4]


def test_authentic_images_are_reported_apart(manifest: pd.DataFrame) -> None:
    rows = evaluate_one("red", red, manifest, 0.5)
    (line,) = authentic_table(rows).to_dict("records")
    assert (line["method"], line["kind"], line["n_images"]) == ("red", "real", 2)
    assert line["false_positive_rate"] == pytest.approx((0.05 + 0.1) / 2)
    assert authentic_table(rows[rows["kind"] != "real"]).empty


def test_there_must_be_forged_images(manifest: pd.DataFrame) -> None:
    rows = evaluate_one("red", red, manifest[manifest["authentic"]], 0.5)
    with pytest.raises(InputError, match="no row with iou"):
        benchmark_table(rows)


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
    """The rows without parts: each method on all images, then on each case."""
    edited = dataset.test.query("not authentic").reset_index(drop=True)
    methods = methods_of(dataset)
    plain = [evaluate(method, dataset.test) for method in methods]
    degraded = [
        evaluate(method, edited, steps=case, seed=3) for case in CASES for method in methods
    ]
    return pd.concat([*plain, *degraded], ignore_index=True)


def test_parts_give_the_rows_of_one_call_whoever_computes_them(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (3, 1, 2):
        computed(dataset, number, 3)
    assert computed(dataset, 99, 99).empty  # of more jobs than there are parts
    made = files(tmp_path)
    # Datasets of 2 and 4 images give one part and two; of the edited ones, 1 and 3, also.
    assert len(made) == 2 * (1 + 2) + 2 * 2 * (1 + 2)
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
    assert len([name for name in files(tmp_path) if name[0] != "."]) == 18


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
