"""Tables in the cache, named by all that they depend on: weights, settings, pixels, libraries, and
what the code makes of a small fixed probe (which a changed docstring does not change)."""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dinolizer.paths import cache_dir, file_hash, read_checked, write_checked

version = cache(metadata.version)  # which takes milliseconds, for thousands of keys
LIBRARIES = [
    *("torch", "torchvision", "timm", "numpy"),
    *("scipy", "scikit-learn", "opencv-python-headless", "pillow"),
]


def cache_key(**depends: object) -> str:
    """Name of what depends on all of that, each by its text, and on the `LIBRARIES`."""
    lines = [f"{name}: {value}" for name, value in sorted(depends.items())]
    lines += [f"{library}: {version(library)}" for library in LIBRARIES]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def probe_hash(*made: ArrayLike, decimals: int = 3) -> str:
    """SHA-256 of what code makes of a probe, rounded: machines differ in the last digits."""
    digest = hashlib.sha256()
    for values in made:
        array = np.asarray(values, dtype=np.float64)
        digest.update(f"{array.shape}".encode() + (array.round(decimals) + 0.0).tobytes())
    return digest.hexdigest()


def images_hash(manifest: pd.DataFrame) -> str:
    """SHA-256 of a manifest's rows and of its image and mask files, wherever these lie."""
    paths = [Path(path) for path in (*manifest["image"], *manifest["mask"]) if path]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(file_hash, paths))
    rows = manifest.drop(columns=["image", "mask"]).to_csv()
    return hashlib.sha256("\n".join([rows, *hashes]).encode()).hexdigest()


def cached(kind: str, key: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Read the table ``key`` from the folder ``kind`` of the cache; where it is missing or damaged,
    it is computed and written whole. Raises InputError where it cannot be written."""
    path = cache_dir() / kind / f"{key}.parquet"

    def read() -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(read_checked(path)))

    try:
        return read()
    except Exception:  # readers of Parquet meet damage with almost any
        write_checked(path, compute().to_parquet(index=False))
    return read()
