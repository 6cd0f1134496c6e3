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
    """Images below a folder."""

    root: Path
    """Absolute."""
    names: tuple[str, ...]
    """Paths relative to it, or absolute where an image lies elsewhere; sorted, each once."""
    left_out: Mapping[str, list[str]] = field(default_factory=dict, compare=False)
    """Paths of what was found beside them and is not localized, by what it is."""


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

    paths, left_out = list_images(root, of_results) if source.is_dir() else (_column(source), {})
    inside = root.rstrip(os.sep) + os.sep
    names = {os.path.normpath(os.path.join(root, path)).removeprefix(inside) for path in paths}  # noqa: PTH118
    return Listing(Path(root), tuple(sorted(names)), left_out)


def _column(path: Path) -> list[str]:
    names = list(read_csv(path, ["image"], usecols=["image"], dtype=str)["image"])
    if not all(names):
        raise InputError(
            f"{path} lists {names.count('')} images without a path and {len(names)} in all; give "
            "every image its path."
        )
    return names
