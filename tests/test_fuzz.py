"""What the fuzzer calls a crash, and that it finds none in a few readers; `make fuzz` has all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import fuzz
import pandas as pd
import pytest

from dinolizer.errors import InputError
from dinolizer.paths import ROOT


def fuzzed(out: Path, *words: str) -> pd.DataFrame:
    """What a program of its own counts: a fork of one with a library's threads may never end."""
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", *words, "--out", out]
    subprocess.run(command, check=True, timeout=100)
    return pd.read_csv(out, index_col="reader")


def test_no_reader_crashes(tmp_path: Path) -> None:
    few = ["image", "manifest", "head"]
    table = fuzzed(tmp_path / "fuzz.csv", "--seconds", "300", "--most", "40", "--readers", *few)
    assert set(table.index) == set(few)
    assert (table["executions"] >= 40).all()
    assert not (tmp_path / "crashes").exists()


def test_a_share_under_a_second_comes_to_an_end(tmp_path: Path) -> None:
    table = fuzzed(tmp_path / "fuzz.csv", "--seconds", "0.1", "--readers", "manifest")
    assert table.loc["manifest", "executions"] > 0
    assert table.loc["manifest", "crashes"] == 0


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (InputError("A sentence."), ""),
        (FileNotFoundError(2, "No such file", "a.png"), ""),
        (OSError("Invalid data stream"), "without the name of a file"),
        (KeyError("step"), "KeyError in test_fuzz.py"),
        (MemoryError(), "MemoryError in test_fuzz.py"),
    ],
)
def test_what_is_no_sentence_is_a_crash_and_its_input_is_kept(
    error: Exception, wrong: str, tmp_path: Path
) -> None:
    def read(path: Path) -> None:
        raise error

    reader = fuzz.Reader("reader", read, tmp_path / "a.txt", [b"seed"])
    assert wrong in reader.execute(b"content", tmp_path / "crashes")
    kept = [path.read_bytes() for path in tmp_path.glob("crashes/*.txt")]
    assert kept == ([b"content"] if wrong else [])


def test_a_process_that_dies_is_a_crash_and_its_input_is_kept(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        if path.read_bytes() == b"seed":
            os.kill(os.getpid(), signal.SIGKILL)

    reader = fuzz.Reader("reader", read, tmp_path / "a.txt", [b"seed"])
    _, crashes = fuzz.in_a_process(reader, 5, tmp_path / "crashes")
    assert crashes == 1
    assert [path.read_bytes() for path in tmp_path.glob("crashes/*")] == [b"seed"]


def test_checksums_of_a_mutated_png_are_right() -> None:
    """An IHDR and an IEND chunk; the last one's checksum is known from the PNG specification."""
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x01IHDRx....\0\0\0\0IEND...."
    assert fuzz.mend_png(png).endswith(b"\0\0\0\0IEND\xaeB`\x82")
    assert fuzz.mend_png(b"no PNG") == b"no PNG"
