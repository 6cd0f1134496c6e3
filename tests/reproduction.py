"""The committed tables are those that the committed code makes.

Run after the notebooks were executed with ``$DINOLIZER_RESULTS`` (see the Makefile); pytest does
not collect this file by itself. Tables of times, ``NN-seconds...``, differ from run to
run and are not committed.
"""

import os
from pathlib import Path

import pandas as pd
import pytest

from dinolizer.paths import ROOT

# Read now: the fixture of conftest.py points the variable elsewhere while a test runs.
FRESH = Path(os.environ["DINOLIZER_RESULTS"]) / "pocket" / "tables"
COMMITTED = ROOT / "results" / "pocket" / "tables"


def tables(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.csv") if "-seconds" not in path.name}


@pytest.mark.parametrize("name", sorted(tables(COMMITTED)))
def test_table_is_made_again(name: str) -> None:
    fresh, committed = pd.read_csv(FRESH / name), pd.read_csv(COMMITTED / name)
    pd.testing.assert_frame_equal(fresh, committed, rtol=0, atol=0.01)


def test_no_table_is_missing() -> None:
    assert tables(FRESH) == tables(COMMITTED)
