"""Folders of files, and tables in CSV files: nothing is left out or shifted in silence."""

import csv
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dinolizer.data.images import SUFFIXES
from dinolizer.errors import InputError

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders that macOS and network drives put beside images, with small copies of them."""
MAX_CELL = 10_000_000
"""Characters a cell of a table may have."""

log = logging.getLogger(__name__)


def walk(
    root: str | Path, unreadable: list[str], skip: Callable[[str], bool] = lambda folder: False
) -> Iterator[str]:
    """The regular files in and below a folder, sorted by folders and names. Links are followed, but
    not in a circle; hidden ones, and folders below the root that ``skip`` is true of, are left out.
    ``unreadable`` takes the paths of what cannot be read."""
    pending = [(str(root), frozenset[tuple[int, int]]())]
    while pending:
        path, above = pending.pop()
        try:
            # os and not pathlib, which takes several times as long: it counts with a million files.
            status = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode):
                yield path
                continue
            identity = status.st_dev, status.st_ino
            passed = identity in above or (above and skip(path))
            names = [] if passed else os.listdir(path)  # noqa: PTH208
        except OSError:
            unreadable.append(path)
            continue
        inside = above | {identity}
        for name in sorted(names, reverse=True):
            if not name.startswith(".") and name not in SYSTEM_FOLDERS:
                pending.append((os.path.join(path, name), inside))  # noqa: PTH118


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List image files, none twice: a file stands for itself, a folder for those that `walk` finds.
    How many of its files are left out, unreadable or with other suffixes, is logged as a warning; a
    folder without an image is refused."""
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            images[path] = None
            continue
        unreadable: list[str] = []
        others: Counter[str] = Counter()
        inside = []
        for name in walk(path, unreadable):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if suffix in SUFFIXES:
                inside.append(Path(name))
            else:
                others[suffix or "no suffix"] += 1
        if unreadable:
            log.warning(
                "%d files or folders in %s cannot be read and are left out, such as %s.",
                *(len(unreadable), path, unreadable[0]),
            )
        if others:
            kinds = ", ".join(f"{number} of {suffix}" for suffix, number in others.most_common(5))
            log.warning("Files in %s are left out as no images: %s.", path, kinds)
        if not inside:
            raise InputError(
                f"The folder {path} holds no image; it must hold files ending in one of "
                f"{', '.join(SUFFIXES)}."
            )
        images.update(dict.fromkeys(inside))
    return list(images)


def read_csv(path: str | Path, needed: Sequence[str], **options: Any) -> pd.DataFrame:
    """Read a CSV file in UTF-8, with or without a byte-order mark, by `pandas.read_csv`. Refuse it
    unless it has the columns ``needed`` and one or more rows, all with as many cells as its
    header."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a CSV file.")
    try:
        header = _check_lines(path, needed)
        table = pd.read_csv(
            path, names=header, header=0, keep_default_na=False, encoding="utf-8-sig", **options
        )
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not in UTF-8, perhaps in the code page of a spreadsheet; save it as "
            "'CSV UTF-8'."
        ) from None
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"{path} cannot be read as CSV ({str(error).strip()}); it must be a CSV file in UTF-8 "
            "with a header line."
        ) from None
    if table.empty:
        raise InputError(f"{path} has no rows; it must list at least one image.")
    return table


def read_table(path: str | Path, needed: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file of text as `read_csv`, without blanks around cells and without empty rows."""
    table = read_csv(path, needed, dtype=str).apply(lambda cells: cells.str.strip())
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def _check_lines(path: Path, needed: Sequence[str]) -> list[str]:
    """The header of a CSV file of which every line has as many cells, with the columns needed."""
    csv.field_size_limit(MAX_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        if len(set(header)) != len(header) or not header:
            raise csv.Error("it has no header, or one with a column twice")
        for column in needed:
            if column not in header:
                names = ", ".join(map(repr, header))
                raise InputError(
                    f"{path} lacks the column {column!r}; it has {names}, and names must be "
                    "spelled exactly."
                )
        for line in lines:
            if line and len(line) != len(header):
                raise InputError(
                    f"Line {lines.line_num} of {path} has {len(line)} cells, but the header has "
                    f"{len(header)}; put names with a comma into quotes, and end no line with one."
                )
    return header
