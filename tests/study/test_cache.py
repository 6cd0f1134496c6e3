"""Tables that are computed once, and again when they are damaged or their code has changed."""

import resource
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import small_manifest

from dinolizer.data import fetch
from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.study import cache as store
from dinolizer.study import evaluation, methods, metrics
from dinolizer.study.cache import cache_key, cached, images_hash, probe_hash
from dinolizer.study.evaluation import evaluation_hash
from dinolizer.study.methods import baseline_method
from dinolizer.study.samples import Dataset

TABLE = pd.DataFrame(
    {
        "name": ["a", "b"],
        "count": [1, 2],
        "share": [0.1, float("nan")],
        "known": [True, False],
        "values": [[0.5, 1.5], [2.5]],
    }
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def again() -> pd.DataFrame:
    raise AssertionError


def test_a_table_is_computed_once_and_read_as_it_was(cache: Path) -> None:
    first = cached("tables", "all it depends on", lambda: TABLE)
    pd.testing.assert_frame_equal(first.drop(columns="values"), TABLE.drop(columns="values"))
    assert [list(values) for values in first["values"]] == list(TABLE["values"])
    pd.testing.assert_frame_equal(cached("tables", "all it depends on", again), first)
    for kind, depends in (("tables", "something else"), ("others", "all it depends on")):
        with pytest.raises(AssertionError):
            cached(kind, depends, again)
    assert len(list(cache.rglob("*.parquet"))) == 1


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "a bit"])
def test_a_damaged_table_is_computed_again(cache: Path, damage: str) -> None:
    table = pd.DataFrame({"value": np.random.default_rng(0).standard_normal(1000)})
    cached("tables", "", lambda: table)
    (path,) = cache.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of the values
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "a bit":
            path.write_bytes(content)
    pd.testing.assert_frame_equal(cached("tables", "", lambda: table), table)
    pd.testing.assert_frame_equal(cached("tables", "", again), table)


def test_a_full_disk_is_one_sentence_and_leaves_no_half(cache: Path) -> None:
    table = pd.DataFrame({"value": np.random.default_rng(0).standard_normal(1000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written to .* make room"):
            cached("tables", "", lambda: table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_key_follows_settings_and_library_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache_key(seed=1, weights="a")
    assert cache_key(weights="a", seed=1) == key
    assert cache_key(seed=2, weights="a") != key
    monkeypatch.setattr(store, "version", lambda name: "2.99" if name == "torch" else version(name))
    assert cache_key(seed=1, weights="a") != key


def test_a_changed_constant_is_another_key_and_a_docstring_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    dataset = Dataset(read_manifest(small_manifest(tmp_path / "images", 6)).assign(seen=True))

    def key() -> str:
        return baseline_method("noise inconsistency", dataset).key

    first = key()
    monkeypatch.setattr(methods.noise_inconsistency, "__doc__", "Other words.")
    monkeypatch.setattr(fetch, "__doc__", "Other words.")
    assert key() == first
    monkeypatch.setattr(methods, "NOISE_KERNEL", methods.NOISE_KERNEL * 2)
    assert key() != first


def test_code_that_scores_or_degrades_otherwise_is_another_key(monkeypatch) -> None:
    case = (("jpeg", 80),)
    first = evaluation_hash(case)
    assert evaluation_hash(()) != first == evaluation_hash(case)
    monkeypatch.setattr(metrics, "SCORE_PERCENTILE", 95)
    scored = evaluation_hash(case)
    monkeypatch.setattr(evaluation, "degrade", lambda name, level, image, seed: image)
    assert len({first, scored, evaluation_hash(case)}) == 3


def test_rounding_hides_the_last_digits_and_no_more() -> None:
    values = np.array([0.1, -0.25, 3.0])
    assert probe_hash(values) == probe_hash(values + 1e-7)
    assert probe_hash(values) != probe_hash(values + 1e-2)
    assert probe_hash(np.zeros(2)) == probe_hash(np.array([-1e-9, 0.0]))


def test_other_pixels_or_rows_are_another_hash(tmp_path: Path) -> None:
    manifest = read_manifest(small_manifest(tmp_path, 3))
    first = images_hash(manifest)
    assert images_hash(manifest.assign(group="x")) != first
    moved = read_manifest(small_manifest(tmp_path / "elsewhere" / tmp_path.name, 3))
    assert images_hash(moved) == first
    write_image(tmp_path / "mask.png", np.zeros((70, 90), np.uint8))
    assert images_hash(manifest) != first
