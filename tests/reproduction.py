"""The committed tables and notebooks are those that the committed code makes.

Run after the workflow with ``$DINOLIZER_RESULTS`` (see the Makefile); pytest does not collect this
file by itself. Tables of times, ``NN-seconds...``, differ from run to run and are not committed. Of
the notebooks the text of cells with the tag ``nbval-check-output`` is compared.
"""

import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from dinolizer.paths import PROFILES, ROOT

# Read now: the fixture of conftest.py points the variable elsewhere while a test runs.
FRESH = Path(os.environ["DINOLIZER_RESULTS"]) / "pocket"
COMMITTED = ROOT / "results" / "pocket"


def tables(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("tables/*.csv") if "-seconds" not in path.name}


def checked(notebook: Path) -> dict[str, str]:
    """Printed and returned text of the cells to be compared, by their ids."""
    return {
        cell.id: "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if output.get("name") != "stderr"
        )
        for cell in nbformat.read(notebook, 4).cells
        if "nbval-check-output" in cell.metadata.get("tags", [])
    }


@pytest.mark.parametrize("name", sorted(tables(COMMITTED)))
def test_table_is_made_again(name: str) -> None:
    fresh, committed = (pd.read_csv(folder / "tables" / name) for folder in (FRESH, COMMITTED))
    pd.testing.assert_frame_equal(fresh, committed, rtol=0, atol=0.01)


def test_no_table_is_missing() -> None:
    assert tables(FRESH) == tables(COMMITTED)


@pytest.mark.parametrize("notebook", sorted(PROFILES.parent.glob("*.ipynb")), ids=lambda n: n.stem)
def test_notebook_prints_the_same(notebook: Path) -> None:
    assert checked(FRESH / "notebooks" / notebook.name) == checked(notebook)
