"""Notebooks executed in the process of a test: without a kernel, which takes seconds to start."""

from collections.abc import Mapping
from pathlib import Path

import nbformat


def execute(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Run the code cells, with parameters in place of those of the cell that is tagged so.

    Returns
    -------
    dict
        The names that the notebook leaves.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook.name}, cell {cell.id}", "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= {name: parameters[name] for name in namespace.keys() & parameters}
    return namespace
