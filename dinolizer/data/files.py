"""Folders of files, tables in CSV files, and shards of lists: nothing is left out in silence."""

import csv
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dinolizer.data.images import SUFFIXES
from dinolizer.errors import InputError, refuse
from dinolizer.paths import atomic

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")  # macOS and network drives put small copies of images there
MAX_CELL = 10_000_000  # characters a cell of a table may have
MAX_VISITS = 100  # of one folder, through links: links to links may be ways without number
FORMULA = r"(?='*[=@\t\r]|'*[+-](?![\d.]+(?:[eE][+-]?\d+)?$))"
"""The beginning of what a spreadsheet would execute, in apostrophes or not; a number is none."""
HIDDEN = "hidden files and folders"
UNREADABLE = "folders, links or other things that cannot be read"
Skip = Callable[[str], str | None]
LeftOut = dict[str, list[str]]  # paths of what is left out, by what it is


def walk(root: str | Path, left_out: LeftOut, skip: Skip = lambda folder: None) -> Iterator[str]:
    """The regular files in and below a folder, sorted by folders and names. Links are followed, but
    not in a circle. ``left_out`` takes what is hidden or unreadable, and what ``skip`` names."""
    pending = [(str(root), frozenset[tuple[int, int]]())]
    visits: Counter[tuple[int, int]] = Counter()
    while pending:
        path, above = pending.pop()
        try:
            # os and not pathlib, which takes several times as long: it counts with a million files.
            status = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode):
                yield path
                continue
            identity = status.st_dev, status.st_ino
            if identity in above:
                continue
            if above and (what := skip(path)):
                _leave(left_out, what, path)
                continue
            visits[identity] += 1
            if visits[identity] > MAX_VISITS:
                raise OSError("it is reached in too many ways")
            names = os.listdir(path)  # noqa: PTH208
        except OSError:
            _leave(left_out, UNREADABLE, path)
            continue
        for name in sorted(names, reverse=True):
            below = os.path.join(path, name)  # noqa: PTH118
            if name.startswith(".") or name in SYSTEM_FOLDERS:
                _leave(left_out, HIDDEN, below)
            else:
                pending.append((below, above | {identity}))


def _leave(left_out: LeftOut, what: str, path: str) -> None:
    """Add a path as text that can be shown, whatever its bytes."""
    left_out.setdefault(what, []).append(os.fsencode(path).decode(errors="backslashreplace"))


def list_images(folder: str | Path, skip: Skip = lambda folder: None) -> tuple[list[str], LeftOut]:
    """The images in and below a folder (at least one), in the order of `walk`, and the rest."""
    images: list[str] = []
    left_out: LeftOut = {}
    for path in walk(folder, left_out, skip):
        name = path.lower()
        if name.endswith(".mask.png"):
            _leave(left_out, "masks of earlier results", path)
        elif not name.endswith(SUFFIXES):
            _leave(left_out, "files of other suffixes", path)
        elif any("\udc80" <= letter <= "\udcff" for letter in path):  # bytes, as Python reads them
            _leave(left_out, "files whose name is not UTF-8", path)
        else:
            images.append(path)
    if not images:
        told = "".join(f"; {len(paths)} {what}" for what, paths in left_out.items())
        wanted = f"it must hold files ending in {', '.join(SUFFIXES)}"
        raise InputError(f"The folder {folder} holds no image{told}; {wanted}.")
    return images, left_out


def read_csv(path: str | Path, needed: Sequence[str], **options: Any) -> pd.DataFrame:
    """Read a CSV file in UTF-8, with or without a byte-order mark, by `pandas.read_csv`. Refuse it
    without the columns ``needed``, without rows, or with rows longer or shorter than its header."""
    path = Path(path)
    refuse({f"There is no file {path}; give a CSV file.": not path.is_file()})
    try:
        options |= {"names": _check_lines(path, needed), "header": 0, "encoding": "utf-8-sig"}
        table = pd.read_csv(path, keep_default_na=False, **options)
    except UnicodeDecodeError:
        advice = "perhaps in the code page of a spreadsheet; save it as 'CSV UTF-8'"
        raise InputError(f"{path} is not in UTF-8, {advice}.") from None
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        wanted = "give a CSV file in UTF-8 with a header line"
        raise InputError(f"{path} cannot be read as CSV ({error}); {wanted}.") from None
    refuse({f"{path} has no rows; it must list at least one image.": table.empty})
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
        has = f"it has {', '.join(map(repr, header))}, and names must be spelled exactly"
        refuse({f"{path} lacks the column {name!r}; {has}.": name not in header for name in needed})
        for line in lines:
            if line and len(line) != len(header):
                cells = f"{len(line)} cells, but the header has {len(header)}"
                advice = "put names with a comma into quotes, and end no line with one"
                raise InputError(f"Line {lines.line_num} of {path} has {cells}; {advice}.")
    return header


def write_csv(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a CSV file; text that a spreadsheet would execute gets an apostrophe before it."""
    with atomic(path) as draft:
        table.replace(f"^{FORMULA}", "'", regex=True).to_csv(draft, index=False, **options)


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``; which images are in it their names alone decide."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``"2/4"``, the second of four."""
        digits = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = map(int, digits.groups()) if digits else (0, 0)
        if not 1 <= number <= count:
            raise InputError(f"The shard is {text[:40]!r}, but it must be NUMBER/COUNT, as in 1/4.")
        return cls(number, count)

    def has(self, name: str) -> bool:
        """Whether an image of that name is in this shard: by SHA-256 of the name, modulo count."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


WHOLE = Shard(1, 1)
