"""Tables that are computed once, and again when they are damaged or their code has changed."""

import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dinolizer.errors import InputError
from dinolizer.study import cache as store
from dinolizer.study.cache import source_hash, stored

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
    first = stored("tables", "all it depends on", lambda: TABLE)
    pd.testing.assert_frame_equal(first.drop(columns="values"), TABLE.drop(columns="values"))
    assert [list(values) for values in first["values"]] == list(TABLE["values"])
    pd.testing.assert_frame_equal(stored("tables", "all it depends on", again), first)
    for kind, depends in (("tables", "something else"), ("others", "all it depends on")):
        with pytest.raises(AssertionError):
            stored(kind, depends, again)
    assert len(list(cache.rglob("*.parquet"))) == 1


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "a bit"])
def test_a_damaged_table_is_computed_again(cache: Path, damage: str) -> None:
    table = pd.DataFrame({"value": np.random.default_rng(0).standard_normal(1000)})
    stored("tables", "", lambda: table)
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
    pd.testing.assert_frame_equal(stored("tables", "", lambda: table), table)
    pd.testing.assert_frame_equal(stored("tables", "", again), table)


def test_a_full_disk_is_one_sentence_and_leaves_no_half(cache: Path) -> None:
    table = pd.DataFrame({"value": np.random.default_rng(0).standard_normal(1000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written to .* make room"):
            stored("tables", "", lambda: table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_the_hash_follows_imports_however_deep_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "dinolizer"
    sources = {
        "study/first.py": "import numpy\nfrom dinolizer.study import second\n",
        "study/second.py": "def f():\n    from dinolizer.model.third import g\n",
        "model/third.py": "from dinolizer.study.first import h\n",  # in a circle
        "model/other.py": "from dinolizer.study.first import h\n",
    }
    for name, source in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    monkeypatch.setattr(store, "PACKAGE", package)

    def hashed() -> str:
        source_hash.cache_clear()
        return source_hash("dinolizer.study.first")

    before = hashed()
    (package / "model/other.py").write_text("changed = True\n")
    assert hashed() == before
    (package / "model/third.py").write_text("changed = True\n")
    assert hashed() != before
    source_hash.cache_clear()
