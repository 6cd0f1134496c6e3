"""The rows of a bulk run: a folder of Parquet files, which readers of Parquet take as a table.

A Parquet file cannot be appended to, so the rows of every minute become a part of their own,
``1-of-4-part-000001.parquet``: what a killed run has left is valid. When a shard is done its parts
become one file, ``1-of-4.parquet``. Each has the run's settings in its metadata, and a SHA-256."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from dinolizer.data.files import WHOLE, Shard, write_csv
from dinolizer.errors import InputError, refuse, writing
from dinolizer.paths import atomic, check_outputs, check_regular

TABLE = "localized.parquet"
"""Name of the folder of a run's rows; where it is, all is the run's output, and no image."""
SCHEMA = pa.schema(
    [
        # Of the image, relative to the folder that was localized or to its manifest.
        pa.field("path", pa.string(), nullable=False),
        ("score", pa.float64()),  # 99th percentile of its map, 0 to 1
        # Share of untouched photographs that score lower, where it is known.
        ("rank", pa.float64()),
        ("predicted_area", pa.float64()),  # share of its pixels that are in the mask, 0 to 1
        ("width", pa.int32()),  # in pixels
        ("height", pa.int32()),
        ("seconds", pa.float64()),  # its share of the run's time, by windows: they add up to it
        # Why it could not be localized, a sentence; then others are missing.
        ("error", pa.string()),
        ("sha256", pa.string()),  # of its file
        ("bytes", pa.int64()),
        ("changed", pa.int64()),  # when it, its name or its rights were last, in ns since 1970
    ]
)


@dataclass(frozen=True)
class Table:
    """The rows of one shard, in the folder of a run. ``settings`` are what they depend on, with
    ``list`` and ``images``, hash and length of the whole list, which may be others to ``add``."""

    out: Path
    settings: Mapping[str, Any]
    shard: Shard = WHOLE
    add: bool = False

    @property
    def folder(self) -> Path:
        """Of the rows of all shards."""
        return self.out / TABLE

    @property
    def parts(self) -> list[Path]:
        """Files of rows until the shard is done, oldest first."""
        return sorted(self.folder.glob(f"{self.shard}-part-*.parquet"))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the shard for this process alone. Raises `InputError` for a folder of other files or
        settings, a shard that another process holds, and where nothing can be written."""
        if not self.folder.is_dir() and [*self.out.glob("[!.]*")]:
            advice = "give a new one, or that of an earlier run"
            raise InputError(f"The folder {self.out} holds other files than a run's; {advice}.")
        lock = FileLock(self.folder / f".{self.shard}.lock")
        with writing(self.out):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                what = f"shard {self.shard} to {self.out}; wait for it, or give another folder"
                raise InputError(f"Another process is writing {what}.") from None
        try:
            for file in sorted(self.folder.glob("[!.]*.parquet"))[:1]:  # perhaps another shard's
                with suppress(FileNotFoundError):  # that is done just now, and its parts are gone
                    self._check(read_rows(file)[1])
            self.write([])  # the settings are there from the beginning
            yield
        finally:
            lock.release()

    def rows(self) -> pa.Table:
        """All rows so far, sorted by path: the latest of each image."""
        tables = []
        for file in [*self.folder.glob(f"{self.shard}.parquet"), *self.parts]:
            table, settings = read_rows(file)
            self._check(settings)
            tables.append(table)
        table = pa.concat_tables(tables)
        latest = table["path"].to_pandas().drop_duplicates(keep="last").sort_values()
        return table.take(pa.array(latest.index))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows, as a part; an `InputError` says where they cannot be written."""
        number = int(self.parts[-1].stem.rpartition("-")[2]) + 1 if self.parts else 0
        path = self.folder / f"{self.shard}-part-{number:06}.parquet"
        save_rows(pa.Table.from_pylist(list(rows), SCHEMA), self._settings, path)

    def finish(self, names: Sequence[str]) -> pa.Table:
        """Turn the parts into one file of all ``names``, or raise `InputError`; return its rows."""
        table = self.rows()
        if table["path"].to_pylist() != sorted(names):
            counts = f"{len(table)} images, but {len(names)} are listed, or others"
            raise InputError(f"{self.folder} has rows of {counts}; give a new folder.")
        save_rows(table, self._settings, self.folder / f"{self.shard}.parquet")
        for path in (*self.parts, *self.folder.glob(f".{self.shard}-*")):  # and drafts, of the dead
            path.unlink(missing_ok=True)
        return table

    @property
    def _settings(self) -> dict[str, Any]:
        return {**self.settings, "shards": self.shard.count, "shard": self.shard.number}

    def _check(self, begun: Mapping[str, Any]) -> None:
        free = ("shard", "list", "images") if self.add else ("shard",)
        mine = self._settings | {name: begun.get(name) for name in free}
        if mine["list"] != begun.get("list"):
            lists = f"({begun.get('images')} of them) than this run ({mine['images']})"
            advice = "give another folder, or have images added (add)"
            begun_with = f"{self.out} was begun with another list of images {lists}"
            raise InputError(f"The folder {begun_with}; {advice}.")
        remedy = "give another folder, or what it was begun with"
        _compare(begun, mine, f"The folder {self.out}", "this run", remedy)


def list_hash(names: Iterable[str]) -> str:
    """SHA-256 of names in sorted order: the same for the same images, listed in any order."""
    return hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()


def merge(folders: Sequence[Path], out: Path, *, overwrite: bool = False) -> pa.Table:
    """Merge the files of all shards into one, as a run without shards would have written it; or, if
    its name ends in .csv, the rows without their settings, for a spreadsheet. Raises `InputError`
    for a folder without a finished shard, for settings that differ, for a shard that is missing,
    for an image that is in two files or in none, and as `check_outputs`."""
    files: list[Path] = []
    for folder in dict.fromkeys(folders):
        shards = sorted((folder / TABLE).glob("[!.]*-of-*.parquet"))
        done = [file for file in shards if "-part-" not in file.stem]
        if not done:
            advice = "give that of a run which has come to its end"
            raise InputError(f"The folder {folder} holds no finished shard; {advice}.")
        files += done
    suffix = ".csv" if out.suffix.lower() == ".csv" else ".parquet"
    check_outputs([out], suffix, inputs=files, overwrite=overwrite)
    inside = f"{out} would be taken for rows of the run that it is in; give another folder."
    refuse({inside: any(folder.name == TABLE for folder in out.resolve().parents)})
    tables, settings = zip(*map(read_rows, files), strict=True)
    first = settings[0]
    for file, other in zip(files, settings, strict=True):
        alike = first | {"shard": other["shard"]}
        _compare(alike, other, str(files[0]), str(file), "merge files of one run")
    rows = pa.concat_tables(tables).sort_by("path")
    given = Counter(other["shard"] for other in settings)
    missing = ", ".join(str(n) for n in range(1, first["shards"] + 1) if n not in given)
    refuse(
        {
            "A shard is in more than one file; give every shard once.": max(given.values()) > 1,
            f"Of {first['shards']} shards, number {missing} is not there; finish it, or give its "
            "folder too.": missing,
            f"The files have {len(rows)} rows, but not those of the {first['images']} images of "
            "the list; run the shards again, in a new folder.": (
                list_hash(rows["path"].to_pylist()) != first["list"]
            ),
        }
    )
    if suffix == ".csv":
        write_csv(rows.to_pandas(integer_object_nulls=True), out)  # no 512.0 where another has none
    else:
        save_rows(rows, first | {"shards": 1, "shard": 1}, out)
    return rows


def read_rows(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file of rows, and its settings; an `InputError` says where it is damaged."""
    try:
        check_regular(path)
        table = pq.ParquetFile(path).read()
        metadata = table.schema.metadata or {}
        table = table.replace_schema_metadata(None).cast(SCHEMA)
        settings = json.loads(metadata[b"dinolizer"])
        if metadata[b"sha256"].decode() == _digest(table, settings):
            return table, settings
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError):
        pass
    advice = "delete it, and run the same command again"
    raise InputError(f"{path} is not a file of rows, or it is damaged; {advice}.")


def save_rows(table: pa.Table, settings: Mapping[str, Any], path: Path) -> None:
    """Write rows and their settings, whole or not at all, with a checksum of both."""
    metadata = {"dinolizer": json.dumps(settings), "sha256": _digest(table, settings)}
    with writing(path.parent), atomic(path) as draft:
        pq.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd")


def _digest(table: pa.Table, settings: Mapping[str, Any]) -> str:
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, text)
    return hashlib.sha256(json.dumps(settings).encode() + text.getvalue()).hexdigest()


def _compare(
    old: Mapping[str, Any], new: Mapping[str, Any], one: str, other: str, remedy: str
) -> None:
    """Refuse settings that differ, naming the first."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            values = f"{name} = {old.get(name)!r}, but {other} has {new.get(name)!r}"
            raise InputError(f"{one} was made with {values}; {remedy}.")
