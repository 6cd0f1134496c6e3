"""The rows of a bulk run: small Parquet files while it goes on, one when it is done.

=============  ==================================================================================
path           of the image, relative to the folder that was localized or to its manifest
score          99th percentile of its map, 0 to 1
marked         share of its pixels that are marked, 0 to 1
width, height  in pixels
seconds        its share of the run's time, by windows: over a run they add up to its duration
error          why the image could not be localized, in one sentence; then the others are missing
=============  ==================================================================================

The settings are JSON in the file's metadata, under ``dinolizer``. A Parquet file cannot be appended
to, so the rows of every minute become a part of their own, whole or not at all; what a killed run
has left is therefore valid, and the next run does the rest. Parts are named at random: two
processes on one shard by mistake do the same work twice, but lose nothing.
"""

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dinolizer.bulk.listing import Shard
from dinolizer.errors import InputError, unwritable
from dinolizer.paths import atomic

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("score", pa.float64()),
        ("marked", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
KEY = b"dinolizer"
NAME = "localized"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Ledger:
    """The rows of one shard, or of a whole list.

    Attributes
    ----------
    folder
        Of the run, shared by its shards.
    settings
        What the rows depend on; among them ``list`` and ``images``, the hash and the length of the
        whole list.
    shard
        None for a whole list.
    """

    folder: Path
    settings: Mapping[str, Any]
    shard: Shard | None = None

    @property
    def file(self) -> Path:
        """Where all rows are in the end."""
        return self.folder / f"{NAME}{f'-{self.shard}' if self.shard else ''}.parquet"

    @property
    def parts(self) -> Path:
        """Folder of the rows until then."""
        return self.folder / f"parts{f'-{self.shard}' if self.shard else ''}"

    def claim(self) -> None:
        """Make the folder this run's, or check that it was begun with the same settings.

        Raises
        ------
        InputError
            For other settings, of which the first is named, and where nothing can be written.
        """
        path = self.folder / SETTINGS_FILE
        mine = dict(self.settings) | {"shards": self.shard.count if self.shard else 1}
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise InputError(
                    f"The settings {path} cannot be read; give another folder, or delete this one."
                ) from None
            remedy = "give another folder, or what it was begun with"
            compare(found, mine, f"The folder {self.folder}", "this run", remedy)
            return
        try:
            with atomic(path) as draft:
                draft.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def rows(self) -> pa.Table:
        """All rows so far, sorted by path, one for each; a part that cannot be read is left out.

        Where an image failed at first and not later, the later row stays.
        """
        files = [*sorted(self.parts.glob("[!.]*.parquet")), *([self.file] * self.file.is_file())]
        tables = []
        for file in files:
            try:
                tables.append(read_rows(file)[0])
            except InputError:
                if file == self.file:
                    raise
        return once(pa.concat_tables([SCHEMA.empty_table(), *tables]))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows, as a part.

        Raises
        ------
        InputError
            Where they cannot be written, as on a full disk.
        """
        if rows:
            table = pa.Table.from_pylist(list(rows), SCHEMA)
            self._write(table, self.parts / f"{uuid.uuid4().hex}.parquet")

    def finish(self, names: Sequence[str]) -> pa.Table:
        """Turn the parts into the file, and return its rows.

        Parameters
        ----------
        names
            Those of all images of the shard.

        Raises
        ------
        InputError
            Where a row is missing, or the file cannot be written.
        """
        table = self.rows()
        if table["path"].to_pylist() != sorted(names):
            raise InputError(
                f"{self.file} cannot be written: there are {len(table)} rows for {len(names)} "
                "images, as after another process took parts away; run the same command again."
            )
        if self.parts.is_dir() or not self.file.is_file():
            self._write(table, self.file)
            shutil.rmtree(self.parts, ignore_errors=True)
            for draft in self.folder.glob(f".{self.file.stem}-*"):  # of a process killed just then
                draft.unlink(missing_ok=True)
        return table

    def _write(self, table: pa.Table, path: Path) -> None:
        shard = self.shard or Shard(1, 1)
        settings = dict(self.settings) | {"shards": shard.count, "shard": shard.number}
        save_rows(table, settings, path)


def read_rows(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file of rows, and the settings in its metadata.

    Raises
    ------
    InputError
        If it is missing, damaged or another kind of file.
    """
    try:
        table = pq.ParquetFile(path).read()
        settings = json.loads((table.schema.metadata or {})[KEY])
        return table.replace_schema_metadata(None).cast(SCHEMA), settings
    except (OSError, KeyError, ValueError):  # pyarrow's own errors are among them
        raise InputError(
            f"{path} is not a file of rows of 'dinolizer localize'; delete it and run that again."
        ) from None


def save_rows(table: pa.Table, settings: Mapping[str, Any], path: Path) -> None:
    """Write rows and their settings, whole or not at all.

    Raises
    ------
    InputError
        Where they cannot be written, as on a full disk.
    """
    metadata = {KEY: json.dumps(dict(settings)).encode()}
    try:
        with atomic(path) as draft:
            pq.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd")
    except OSError as error:
        raise unwritable(path.parent, error) from None


def once(table: pa.Table) -> pa.Table:
    """Rows sorted by path, one for each: one without an error where there is one."""
    frame = table.select(["path", "error"]).to_pandas()
    frame = frame.sort_values("error", na_position="first", kind="stable")
    return table.take(pa.array(frame.drop_duplicates("path").sort_values("path").index))


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], one: str, other: str, remedy: str
) -> None:
    """Refuse settings that differ, naming the first."""
    if old.get("list") != new.get("list"):
        raise InputError(
            f"{one} was made of another list of images ({old.get('images')} of them) than "
            f"{other} ({new.get('images')}); {remedy}."
        )
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise InputError(
                f"{one} was made with {name} = {old.get(name)!r}, but {other} has "
                f"{new.get(name)!r}; {remedy}."
            )
