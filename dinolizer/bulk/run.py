"""A bulk run: every image of a list gets its row, once, however often the run is cut short."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

import dinolizer
from dinolizer.bulk.listing import Listing, Shard
from dinolizer.bulk.stream import localize_many
from dinolizer.bulk.table import Ledger
from dinolizer.data.images import write_image
from dinolizer.errors import InputError, unwritable
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.paths import atomic

PART_ROWS = 10_000
PART_SECONDS = 60.0
"""Rows are written to the disk after so many of them, or so many seconds: as much work is done
again after a run was killed."""


def scan(
    localizer: Localizer,
    images: Listing,
    out: Path,
    *,
    shard: Shard | None = None,
    masks: bool = False,
    maps: bool = False,
    max_failures: int | None = None,
) -> tuple[Path, pa.Table]:
    """Localize a list of images, or one shard of it, into a Parquet file of one row an image.

    What an earlier run with the same settings has done is not done again, but for the images that
    could not be read then. Rows are described in `dinolizer.bulk.table`.

    Parameters
    ----------
    localizer
        On any device.
    images
        The whole list, also for a shard of it.
    out
        Folder of the run: all shards may share it. The rows go to ``localized.parquet``, or
        ``localized-1-of-4.parquet``.
    shard
        By default the whole list.
    masks, maps
        Whether to write each mask to ``masks/<image>.png`` (0 and 255), and each map to
        ``maps/<image>.npz`` (``probability``, float16).
    max_failures
        The run stops when more images than these could not be read; by default it never does.

    Returns
    -------
    path, rows
        The file and what is in it.

    Raises
    ------
    InputError
        For a folder that was made with other settings or of another list, for too many images that
        cannot be read, and where nothing can be written. What is done by then is kept.
    """
    settings = localizer.settings | {
        "version": dinolizer.__version__,
        "list": images.hash,
        "images": len(images.names),
        "masks": masks,
        "maps": maps,
    }
    ledger = Ledger(out, settings, shard)
    ledger.claim()
    names = [name for name in images.names if shard is None or shard.has(name)]
    rows = ledger.rows()
    done = {row["path"] for row in rows.select(["path", "error"]).to_pylist() if not row["error"]}
    todo = [name for name in names if name not in done]

    with tqdm(
        total=len(names),
        initial=len(names) - len(todo),
        unit="image",
        # A line a minute in the log of a job, where nobody looks on.
        mininterval=0.5 if sys.stderr.isatty() else 60,
    ) as progress:
        _run(localizer, images, todo, ledger, (masks, maps), max_failures, progress)
    return ledger.file, ledger.finish(names)


def _run(
    localizer: Localizer,
    images: Listing,
    names: Sequence[str],
    ledger: Ledger,
    saved: tuple[bool, bool],
    max_failures: int | None,
    progress: "tqdm[NoReturn]",
) -> None:
    def keep(result: Localization) -> dict[str, Any]:
        _save(result, ledger.folder, images.name(result.source), *saved)
        height, width = result.mask.shape
        measured = {"score": result.score, "marked": result.marked, "seconds": result.seconds}
        return measured | {"width": width, "height": height}

    rows: list[dict[str, Any]] = []
    failed, written = 0, time.monotonic()
    results = localize_many(localizer, map(images.path, names), keep)
    try:
        for name, result in zip(names, results, strict=True):
            if isinstance(result, InputError):
                failed += 1
                rows.append({"path": name, "error": str(result)})
            else:
                rows.append({"path": name} | result)
            progress.update()
            if max_failures is not None and failed > max_failures:
                raise InputError(
                    f"Of the images, {failed} could not be read, but at most {max_failures} may "
                    f"fail; the last one: {result}"
                )
            if len(rows) >= PART_ROWS or time.monotonic() - written > PART_SECONDS:
                ledger.write(rows)
                rows, written = [], time.monotonic()
    finally:
        ledger.write(rows)


def _save(result: Localization, folder: Path, name: str, masks: bool, maps: bool) -> None:
    """Write a mask and a map, each whole or not at all; suffixes are added, never replaced."""
    place = name.lstrip("/")
    try:
        if masks:
            write_image(folder / "masks" / f"{place}.png", np.uint8(255) * result.mask)
        if maps:
            with atomic(folder / "maps" / f"{place}.npz") as draft:
                np.savez_compressed(draft, probability=result.probability.astype(np.float16))
    except OSError as error:
        raise unwritable(folder, error) from None
