"""A bulk run: every image of a list gets its row, once, however often the run is cut short."""

import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

import dinolizer
from dinolizer.bulk.stream import localize_many
from dinolizer.bulk.table import TABLE, Table, list_hash
from dinolizer.data.files import WHOLE, Shard, list_images, read_csv
from dinolizer.data.images import write_image
from dinolizer.errors import InputError, writing
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.paths import atomic, file_hash, file_name

PART_ROWS = 10_000
PART_SECONDS = 60.0
"""Rows are written to the disk after so many of them, or so many seconds."""


@dataclass(frozen=True)
class Listing:
    """Images below a folder: its absolute path; their paths relative to it, or absolute where an
    image lies elsewhere, sorted, each once; and paths of what is left out, by what it is."""

    root: Path
    names: tuple[str, ...]
    left_out: Mapping[str, list[str]] = field(default_factory=dict, compare=False)


def read_listing(source: Path, out: Path | None = None) -> Listing:
    """List the images in and below a folder, or those in the column ``image`` of a CSV file. Of a
    folder, `Listing.left_out` names what is left out: hidden files, other suffixes than images
    have, what cannot be read, and results, as are all in ``out``. A file's paths are relative to
    its own folder or absolute. Raises `InputError` where there is no such file, or no image."""
    # os.path: pathlib takes ten times as long, which counts with a million rows.
    root = os.path.abspath(source if source.is_dir() else source.parent)  # noqa: PTH100

    def of_results(folder: str) -> str | None:
        is_out = out is not None and out.is_dir() and out.samefile(folder)
        return "folders of results" if is_out or (Path(folder) / TABLE).is_dir() else None

    if source.is_dir():
        paths, left_out = list_images(root, of_results)
    else:
        table = read_csv(source, ["image"], usecols=["image"], dtype=str)
        paths, left_out = list(table["image"]), {}
    if not all(paths):
        count = f"{paths.count('')} images without a path and {len(paths)} in all"
        raise InputError(f"{source} lists {count}; give every image its path.")
    inside = root.rstrip(os.sep) + os.sep
    names = {os.path.normpath(os.path.join(root, path)).removeprefix(inside) for path in paths}  # noqa: PTH118
    return Listing(Path(root), tuple(sorted(names)), left_out)


def scan(
    localizer: Localizer,
    images: Listing,
    out: Path,
    *,
    shard: Shard = WHOLE,
    masks: bool = False,
    maps: bool = False,
    max_failures: int | None = None,
    add: bool = False,
) -> pa.Table:
    """Localize the images of a whole list, or of one shard of it, into a table of a row for each.

    What an earlier run with the same settings has done is not done again, but for the images that
    could not be read then, or are others now. ``out`` is the folder of the run, which all shards
    may share; see `dinolizer.bulk.table`. ``masks`` and ``maps`` write each mask to
    ``masks/<image>.mask.png`` (0 and 255), and each map to ``maps/<image>.map.npz``
    (``probability``, float16); long names, and those from outside of the list's folder, end in a
    hash. With ``add`` the list may have more images than when the folder was begun.

    Raises `InputError` for a folder of other settings or another list, for over ``max_failures``
    unreadable images (None: any number), and where nothing can be written; what is done stays."""
    settings = localizer.settings | {
        "version": dinolizer.__version__,
        "list": list_hash(images.names),
        "images": len(images.names),
        "masks": masks,
        "maps": maps,
    }
    table = Table(out, settings, shard, add)
    names = [name for name in images.names if shard.has(name)]
    with table.claimed():
        done = {row["path"] for row in table.rows().to_pylist() if _valid(row, images)}
        todo = [name for name in names if name not in done]
        with tqdm(
            total=len(names),
            initial=len(names) - len(todo),
            unit="image",
            # A line a minute in the log of a job, where nobody looks on.
            mininterval=0.5 if sys.stderr.isatty() else 60,
        ) as progress:
            failed, rows, written = 0, [], time.monotonic()
            try:
                for row in _rows(localizer, images, todo, out, masks, maps):
                    rows.append(row)
                    progress.update()
                    failed += row["error"] is not None
                    if max_failures is not None and failed > max_failures:
                        most = f"at most {max_failures} may fail; the last one: {row['error']}"
                        raise InputError(f"Of the images, {failed} could not be read, but {most}")
                    if len(rows) >= PART_ROWS or time.monotonic() - written > PART_SECONDS:
                        table.write(rows)
                        rows, written = [], time.monotonic()
            finally:
                if rows:
                    table.write(rows)
        return table.finish(names)


def _rows(
    localizer: Localizer, images: Listing, names: Sequence[str], out: Path, masks: bool, maps: bool
) -> Iterator[dict[str, Any]]:
    """The row of each image, in order, after its mask and map were written."""
    begun: dict[str, tuple[str, tuple[int, int] | None]] = {}

    def paths() -> Iterator[Path]:
        for name in names:
            path = images.root / name
            begun[str(path)] = name, _state(path)
            yield path

    def keep(result: Localization) -> dict[str, Any] | InputError:
        path, (name, state) = Path(result.source), begun.pop(result.source)
        digest = _digest(path)
        if state is None or state != _state(path):
            return InputError(f"{path} was changed while it was read; run the command again.")
        with writing(out):
            try:
                _save(result, out, name, masks, maps)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:  # of the whole path; no other image's trouble
                    raise
                return InputError(f"The results of {path} cannot be written ({error.strerror}).")
        height, width = result.mask.shape
        line = {key: getattr(result, key) for key in ("score", "rank", "predicted_area", "seconds")}
        of_file = {"sha256": digest, "bytes": state[0], "changed": state[1]}
        return line | {"width": width, "height": height} | of_file

    for name, row in zip(names, localize_many(localizer, paths(), keep), strict=True):
        of_image = {"error": str(row)} if isinstance(row, InputError) else row
        yield {"path": name, "error": None, **of_image}


def _state(path: Path) -> tuple[int, int] | None:
    """Size in bytes of a file and time of its last change (of that, no program sets another)."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_ctime_ns


def _valid(row: dict[str, Any], images: Listing) -> bool:
    """Whether a row need not be made again: its image is the same, or gone."""
    path = images.root / row["path"]
    return row["error"] is None and (
        _state(path) in (None, (row["bytes"], row["changed"])) or _digest(path) == row["sha256"]
    )


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where that can no more be read, which is no other image's trouble."""
    with suppress(OSError):
        return file_hash(path)
    return None


def _save(result: Localization, out: Path, name: str, masks: bool, maps: bool) -> None:
    """Write a mask and a map, each whole or not at all."""
    folder, stem = os.path.split(name)
    if name.startswith(os.sep):  # /x/i.png and x/i.png have masks of their own
        folder, stem = "", f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    if masks:
        path = out / "masks" / folder / file_name(stem, ".mask.png")
        write_image(path, result.mask)
    if maps:
        with atomic(out / "maps" / folder / file_name(stem, ".map.npz")) as draft:
            np.savez_compressed(draft, probability=result.probability.astype(np.float16))
