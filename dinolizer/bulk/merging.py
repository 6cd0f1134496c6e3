"""The tables of all shards as one, if they are whole and of one run."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from dinolizer.bulk.listing import list_hash
from dinolizer.bulk.table import NAME, compare, once, read_rows, save_rows
from dinolizer.errors import InputError


def merge(folders: Sequence[Path], out: Path) -> pa.Table:
    """Merge the files of all shards into one, as a run without shards would have written it.

    Parameters
    ----------
    folders
        Of the runs; each may hold several shards.
    out
        The Parquet file to write.

    Raises
    ------
    InputError
        For a folder without a finished shard, for settings that differ, for an image that is in two
        files, and for one that is in none.
    """
    files = [file for folder in dict.fromkeys(folders) for file in _files(folder)]
    tables, settings = [], []
    for file in files:
        table, found = read_rows(file)
        tables.append(table)
        settings.append(found)
        compare(
            settings[0] | {"shard": found["shard"]},
            found,
            str(files[0]),
            str(file),
            "merge files of one run",
        )
    merged = pa.concat_tables(tables)
    rows = once(merged)
    if len(rows) < len(merged):
        paths = sorted(merged["path"].to_pylist())
        double = next(one for one, other in pairwise(paths) if one == other)
        raise InputError(f"The image {double} is in more than one file; give every shard once.")
    first = settings[0]
    missing = sorted(set(range(1, first["shards"] + 1)) - {found["shard"] for found in settings})
    if missing:
        raise InputError(
            f"Of {first['shards']} shards, number {', '.join(map(str, missing))} is not there; "
            "finish it, or give its folder too."
        )
    if list_hash(rows["path"].to_pylist()) != first["list"]:
        raise InputError(
            f"The files have {len(rows)} rows, but not those of the {first['images']} images of "
            "the list; run the shards again, in a new folder."
        )
    save_rows(rows, first | {"shards": 1, "shard": 1}, out)
    return rows


def _files(folder: Path) -> list[Path]:
    """Finished shards of a folder; where there are none, its one file."""
    shards = sorted(folder.glob(f"{NAME}-*-of-*.parquet"))
    files = shards or sorted(folder.glob(f"{NAME}.parquet"))
    if not files:
        raise InputError(
            f"The folder {folder} holds no finished shard; give the --out of 'dinolizer localize' "
            "after it has run to its end."
        )
    return files
