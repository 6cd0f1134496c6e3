"""Tables in the cache, named by all that they depend on, the code that makes them included."""

import ast
import hashlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa

from dinolizer.errors import unwritable
from dinolizer.paths import PACKAGE, atomic, cache_dir


def stored(kind: str, depends: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table out of the cache; where it is not there, or damaged, it is computed and put there.

    Two processes that want the same one at the same time both compute it; each writes it whole.

    Parameters
    ----------
    kind
        Folder of the cache.
    depends
        All that the table depends on, in words.
    compute
        Makes it.

    Returns
    -------
    DataFrame
        As it is read from the file, whoever wrote it.

    Raises
    ------
    InputError
        Where it cannot be written, as on a full disk.
    """
    path = cache_dir() / kind / f"{hashlib.sha256(depends.encode()).hexdigest()[:32]}.parquet"
    try:
        return _read(path)
    except (OSError, ValueError, pa.ArrowException):
        table = compute()
    try:
        with atomic(path) as draft:
            table.to_parquet(draft, index=False, write_page_checksum=True)
    except OSError as error:
        raise unwritable(path.parent, error) from None
    return _read(path)


def _read(path: Path) -> pd.DataFrame:
    # At once: opened twice, as by its name, it may have become another process's in between.
    return pd.read_parquet(io.BytesIO(path.read_bytes()), page_checksum_verification=True)


@cache
def source_hash(module: str) -> str:
    """SHA-256 of the source of a module and of all of this package that it imports, however deep.

    So what is stored outlives a change of a plot, and not one of what it is computed by.
    """
    sources: dict[str, bytes] = {}
    names = [module]
    while names:
        name = names.pop()
        path = (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py")
        if name in sources or not path.is_file():
            continue
        sources[name] = path.read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dinolizer"):
                names += [f"{node.module}", *(f"{node.module}.{one.name}" for one in node.names)]
    return hashlib.sha256(b"".join(sources[name] for name in sorted(sources))).hexdigest()
