"""Where things are, and how a file is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import pooch

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"
# An installed package has no notebooks beside it: then the caller's folder is the checkout.
ROOT = PACKAGE.parent if (PACKAGE.parent / "notebooks").is_dir() else Path.cwd()
PROFILES = ROOT / "notebooks" / "profiles"


def _made(variable: str, default: Path, *parts: str) -> Path:
    folder = Path(os.environ.get(variable) or default).resolve().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def results_dir(profile: str) -> Path:
    """Folder of one profile's results, made if absent.

    ``$DINOLIZER_RESULTS`` replaces ``results`` of the checkout.
    """
    return _made("DINOLIZER_RESULTS", ROOT / "results", profile)


def cache_dir() -> Path:
    """Folder of what can be made again, made if absent.

    ``$DINOLIZER_CACHE`` replaces ``data/cache`` of the checkout.
    """
    return _made("DINOLIZER_CACHE", ROOT / "data" / "cache")


def weights_dir() -> Path:
    """Folder of fetched weights, which may be absent: ``weights`` of the user's own cache.

    ``$DINOLIZER_CACHE`` replaces the user's cache.
    """
    return Path(os.environ.get("DINOLIZER_CACHE") or pooch.os_cache("dinolizer")) / "weights"


def named_file(name: str) -> Path | None:
    """File that a parameter names, relative to the checkout or absolute; None for no name."""
    return ROOT / name if name else None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it becomes ``path`` when the block ends.

    Where the block raises, ``path`` stays as it was and the temporary file is removed. The folder
    of ``path`` is made if absent; the suffix is kept, as writers choose the format by it. The name
    is drawn at random, so that threads, processes and machines do not meet in one folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{token_hex(4)}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
