"""The images of a bulk run: one list, whatever order it came in."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dinolizer.data.files import list_images, read_csv
from dinolizer.errors import InputError

TABLE = "localized.parquet"
"""Name of the folder of a run's rows; where it is, all is the run's output, and no image."""


@dataclass(frozen=True)
class Listing:
    """Images below a folder: its absolute path; their paths relative to it, or absolute where an
    image lies elsewhere, sorted, each once; and paths of what is left out, by what it is."""

    root: Path
    names: tuple[str, ...]
    left_out: Mapping[str, list[str]] = field(default_factory=dict, compare=False)


def list_hash(names: Iterable[str]) -> str:
    """SHA-256 of names in sorted order: the same for the same images, listed in any order."""
    return hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()


def read_listing(source: Path, out: Path | None = None) -> Listing:
    """List the images in and below a folder, or those in the column ``image`` of a CSV file.

    Of a folder, `Listing.left_out` names what is left out: hidden files, other suffixes than images
    have, what cannot be read, and results, as are all in ``out``. A file's paths are relative to
    its own folder or absolute. Raises `InputError` where there is no such file, or no image.
    """
    # os.path: pathlib takes ten times as long, which counts with a million rows.
    root = os.path.abspath(source if source.is_dir() else source.parent)  # noqa: PTH100

    def of_results(folder: str) -> str | None:
        is_out = out is not None and out.is_dir() and out.samefile(folder)
        return "folders of results" if is_out or (Path(folder) / TABLE).is_dir() else None

    if source.is_dir():
        paths, left_out = list_images(root, of_results)
    else:
        paths, left_out = (
            list(read_csv(source, ["image"], usecols=["image"], dtype=str)["image"]),
            {},
        )
    if not all(paths):
        count = f"{paths.count('')} images without a path and {len(paths)} in all"
        raise InputError(f"{source} lists {count}; give every image its path.")
    inside = root.rstrip(os.sep) + os.sep
    names = {os.path.normpath(os.path.join(root, path)).removeprefix(inside) for path in paths}  # noqa: PTH118
    return Listing(Path(root), tuple(sorted(names)), left_out)
