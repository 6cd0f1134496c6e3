"""Tables in the cache, named by all that they depend on.

A key holds weights, settings, pixels, the versions of the libraries, and of the code what it makes
of a small fixed probe: a changed constant shows there, a changed docstring does not.
"""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from dinolizer.errors import unwritable
from dinolizer.paths import atomic, cache_dir

LIBRARIES = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn"),
    *("opencv-python-headless", "pillow"),
)


def cache_key(**depends: object) -> str:
    """Name of what depends on all of that, each by its text, and on the `LIBRARIES`."""
    lines = [f"{name}: {value}" for name, value in sorted(depends.items())]
    lines += [f"{library}: {version(library)}" for library in LIBRARIES]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def probe_hash(*made: ArrayLike, decimals: int = 3) -> str:
    """SHA-256 of what some code makes of a probe, rounded: machines differ in the last digits."""
    digest = hashlib.sha256()
    for values in made:
        array = np.asarray(values, dtype=np.float64)
        digest.update(f"{array.shape}".encode() + (array.round(decimals) + 0.0).tobytes())
    return digest.hexdigest()


def images_hash(manifest: pd.DataFrame) -> str:
    """SHA-256 of a manifest's rows and of the files of its images and masks, wherever these lie."""
    paths = [Path(path) for path in (*manifest["image"], *manifest["mask"]) if path]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(file_hash, paths))
    rows = manifest.drop(columns=["image", "mask"]).to_csv()
    return hashlib.sha256("\n".join([rows, *hashes]).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached(kind: str, key: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table out of the cache; where it is not there, or damaged, it is computed and put there.

    Two processes that want the same one at the same time both compute it; each writes it whole.

    Parameters
    ----------
    kind
        Folder of the cache.
    key
        See `cache_key`.

    Returns
    -------
    DataFrame
        As it is read from the file, whoever wrote it.

    Raises
    ------
    InputError
        Where it cannot be written, as on a full disk.
    """
    path = cache_dir() / kind / f"{key}.parquet"
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
