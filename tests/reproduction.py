"""The committed tables and notebooks are those that the committed code makes.

Run after the workflow with ``$DINOLIZER_RESULTS`` (see the Makefile); pytest does not collect this
file by itself. Tables are compared as `dinolizer verify` does. Of the notebooks the text of cells
with the tag ``nbval-check-output`` is compared.
"""

import os
from pathlib import Path

import nbformat
import pytest

from dinolizer.paths import PROFILES, ROOT
from dinolizer.study.results import compare, tables

# Read now: the fixture of conftest.py points the variable elsewhere while a test runs.
FRESH = Path(os.environ["DINOLIZER_RESULTS"]) / "pocket"
COMMITTED = ROOT / "results" / "pocket"


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


def test_every_table_is_made_again() -> None:
    assert compare(FRESH, COMMITTED) == []
    assert len(tables(COMMITTED)) > 30


@pytest.mark.parametrize("notebook", sorted(PROFILES.parent.glob("*.ipynb")), ids=lambda n: n.stem)
def test_notebook_prints_the_same(notebook: Path) -> None:
    assert checked(FRESH / "notebooks" / notebook.name) == checked(notebook)
