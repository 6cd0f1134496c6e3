"""Where things are, and how a file is written whole or not at all."""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from dinolizer.errors import InputError, refuse, writing

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"
INSTALLED = not (PACKAGE.parent / "notebooks").is_dir()  # and not a checkout
ROOT = Path.cwd() if INSTALLED else PACKAGE.parent
"""What a parameter's file names and the results are relative to."""
PROFILES = ROOT / "notebooks" / "profiles"


def _made(variable: str, default: Path, below: str = "") -> Path:
    folder = Path(os.environ.get(variable) or default).resolve() / below
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def results_dir(profile: str, beside: Path | None = None) -> Path:
    """Folder of a profile's results, made if absent: in ``$DINOLIZER_RESULTS``, else ``beside``."""
    named = f"The profile is called {profile!r}, but letters, digits, '-', '_' and '.' name one."
    refuse({named: not re.fullmatch(r"\w[\w.-]*", profile)})
    return _made("DINOLIZER_RESULTS", beside or ROOT / "results", profile)


def cache_dir() -> Path:
    """Folder of what can be made again, made if absent: ``$DINOLIZER_CACHE``, else ``data/cache``
    of the checkout or, of an installed package, the user's cache."""
    return _made("DINOLIZER_CACHE", _user_cache() if INSTALLED else ROOT / "data" / "cache")


def weights_dir() -> Path:
    """Folder of fetched weights, perhaps absent, in ``$DINOLIZER_CACHE`` or the user's cache."""
    return Path(os.environ.get("DINOLIZER_CACHE") or _user_cache()) / "weights"


def _user_cache() -> Path:
    import pooch  # here: it takes a third of the time of --help

    return Path(pooch.os_cache("dinolizer"))


def named_file(name: str) -> Path | None:
    """File that a parameter names, relative to the checkout or absolute; None for no name."""
    return ROOT / name if name else None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it becomes ``path`` when the block ends.
    Where the block raises or the machine goes down, ``path`` stays as it was: what was written is
    on the disk before it takes the name. The folder is made if absent, the suffix kept (writers
    choose the format by it), and the name random: threads, processes and machines do not meet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{token_hex(4)}{path.suffix}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # where a disk is full, it is not said
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text in UTF-8."""
    with atomic(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_checked(path: Path, content: bytes) -> None:
    """Write a file of the cache whole, its SHA-256 behind it; `InputError` where that fails."""
    with writing(path.parent), atomic(path) as draft, draft.open("wb") as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())


def read_checked(path: Path) -> bytes:
    """What `write_checked` wrote; a `ValueError` where it is damaged, an `OSError` without it."""
    check_regular(path)
    content = path.read_bytes()  # at once: opened again it may have become another process's
    if hashlib.sha256(content[:-32]).digest() != content[-32:]:
        raise ValueError(f"{path} is damaged")
    return content[:-32]


def file_name(stem: str, suffix: str) -> str:
    """A name that file systems take: a long stem is cut, and ends in a hash of the whole."""
    raw = os.fsencode(stem)
    room = 240 - len(suffix)  # bytes of 255; a draft's name is longer
    if len(raw) <= room:
        return stem + suffix
    return f"{os.fsdecode(raw[: room - 17])}-{hashlib.sha256(raw).hexdigest()[:16]}{suffix}"


def check_regular(path: Path) -> None:
    """Raise an `OSError` for a pipe, a device or a folder: to read it may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a regular file."""
    check_regular(Path(path))
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SIGNS = {
    ".mask.png": b"caution",
    ".map.npz": rb"probability\.npy",
    "scores.csv": b"method,",
    "scores.json": b'"methods"',
    ".json": b'"backbone_hash"',
    ".html": b"DinoLizer report",
    ".safetensors": b"backbone_hash",
    ".parquet": b"dinolizer",
    ".onnx": b"backbone_hash",
    "-history.csv": b"validation_dice",
    ".csv": b",authentic,|,predicted_area,",
}
"""By the end of its name, a regular expression of what an output holds near its start or end."""
NEAR = 2**16


def is_known_output(path: Path) -> bool:
    """Whether a file is known by its `SIGNS` for an output of this project, and not one of another
    tool that has the same name; there is no telling for names of other ends."""
    sign = next((sign for end, sign in SIGNS.items() if path.name.lower().endswith(end)), b"")
    with path.open("rb") as file:
        start = file.read(NEAR)
        file.seek(max(file.seek(0, os.SEEK_END) - NEAR, 0))
        return bool(re.search(sign, start) or re.search(sign, file.read()))


def check_outputs(
    paths: Iterable[Path],
    suffix: str = "",
    *,
    inputs: Iterable[Path | None] = (),
    overwrite: bool = False,
) -> None:
    """Refuse files that must not be written, before any work is done: `InputError` for a name that
    does not end in ``suffix``, for one of ``inputs`` under whatever path, and for what is there and
    no regular file, not to be overwritten, or not `is_known_output`."""
    read = {_identity(path) for path in inputs if path is not None} - {None}
    for path in paths:
        if suffix and path.suffix.lower() != suffix:
            raise InputError(f"The output is named {path}, but its name must end in {suffix}.")
        if not os.path.lexists(path):
            continue
        if not path.is_file():
            raise InputError(f"{path} is no regular file and is not replaced; give another name.")
        if _identity(path) in read:
            raise InputError(f"The output {path} is one of the inputs; give it another name.")
        if not overwrite:
            advice = "give another name, or have it replaced (overwrite)"
            raise InputError(f"{path} is there already; {advice}.")
        if not is_known_output(path):
            wrong = f"{path} is there already, and not an output of this project"
            raise InputError(f"{wrong}; give another name, or move it away.")


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for all names of a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
