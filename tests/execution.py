"""Notebooks executed in the process of a test: without a kernel, which takes seconds to start."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
import torch
from threadpoolctl import threadpool_limits

from dinolizer.study import results


@contextmanager
def miniature(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """What profiles on miniatures share: a cache in the folder, and small what takes most of the
    time and proves nothing there. Threads wait for each other longer than they work on such
    pictures, and figures have few pixels."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        torch.set_num_threads(1)
        patch.setattr(results, "DPI", 40)
        patch.setenv("DINOLIZER_CACHE", str(folder / "cache"))
        yield patch
    torch.set_num_threads(threads)


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
