"""Downloads that go on where they stopped, and archives that are taken with care."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pooch

from dinolizer.data.formats import known_format
from dinolizer.errors import InputError

CHUNK = 2**20


def download(
    url: str,
    path: Path,
    known_hash: str | None = None,
    *,
    size: int | None = None,
    advice: str = "try again later",
) -> None:
    """Download a file, unless it is there already; an interrupted download goes on.

    What has arrived is kept beside ``path`` with the suffix ``.part``; ``path`` appears only when
    it is whole and has the known hash, ``"md5:..."`` or ``"sha256:..."``. Where the server does not
    know the ``Range`` header it starts anew. A file of another ``size``, in bytes, is refused, a
    larger one before it has arrived; ``advice`` ends the sentence that says so. Raises `InputError`
    if the server fails or sends another file, and `OSError` if it cannot be written.
    """
    # requests is pooch's own; its errors are OSErrors, like those of a full disk.
    from requests.exceptions import RequestException

    part = path.with_name(f"{path.name}.part")
    came = ""

    def refused(what: str) -> InputError:
        wanted = f"{size:,} bytes" if size else known_hash
        return InputError(
            f"{url} sent {what}, but the published file ({wanted}) is expected; nothing of it was "
            f"kept, {advice}."
        )

    def resume(url: str, draft: str, _pooch: object) -> None:
        nonlocal came
        with part.open("ab") as file:
            arrived = file.tell()

            def start_anew(response: Any, *_args: object, **_kwargs: object) -> None:
                if response.status_code == 200:  # and not 206, the range that was asked for
                    file.seek(file.truncate(0))

            headers = {"Accept-Encoding": "identity"}
            if arrived:
                headers["Range"] = f"bytes={arrived}-"
            http = pooch.HTTPDownloader(
                progressbar=True, chunk_size=CHUNK, headers=headers, hooks={"response": start_anew}
            )
            try:
                http(url, file if size is None else _Limited(file, size), None)
            except _TooLargeError:
                part.unlink()
                raise refused(f"more than {size:,} bytes") from None
            except RequestException as error:
                # 416: nothing is left to send. Whether all is right, size and hash tell.
                if error.response is None or error.response.status_code != 416:
                    raise
        came = (known_format(part) or "another file").partition(";")[0]
        if size is not None and part.stat().st_size != size:
            came += f" of {part.stat().st_size:,} bytes"
            part.unlink()
            raise refused(came)
        part.replace(draft)

    try:
        pooch.retrieve(url, known_hash, path.name, path.parent, downloader=resume)
    except RequestException as error:
        if not part.stat().st_size:
            part.unlink()
        status = error.response is not None and f"HTTP status {error.response.status_code}"
        raise InputError(
            f"The download of {url} did not end well ({status or type(error).__name__}); run the "
            "command again and it goes on where it stopped."
        ) from None
    except ValueError as error:  # pooch has removed what it got
        if isinstance(error, InputError):
            raise
        raise refused(f"{came} of another hash") from None


class _TooLargeError(Exception):
    """More arrives than the file has."""


class _Limited:
    """A file that takes no more than ``size`` bytes in all."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def write(self, chunk: bytes) -> None:
        if self.file.tell() + len(chunk) > self.size:
            raise _TooLargeError
        self.file.write(chunk)

    def flush(self) -> None:
        self.file.flush()


def extract_tree(archive: Path, folder: Path, limit: int) -> None:
    """Extract a zip archive to a folder; one that is damaged, or over ``limit`` bytes when
    unpacked, is an `InputError`. Raises `OSError` if a file cannot be written."""
    with _archive(archive) as file:
        size = sum(info.file_size for info in file.infolist())
        if size > limit:
            raise InputError(
                f"The archive {archive} unpacks to {size:,} bytes, but at most {limit:,} are "
                "expected: this is another file; download it again."
            )
        file.extractall(folder)  # which leaves out what of a path leads elsewhere


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"The archive {path} cannot be read ({error}), but a whole zip file is expected; "
            "download it again."
        ) from None


def extract(archive: Path, members: Mapping[str, int], folder: Path) -> dict[str, Path]:
    """Take only the expected ``members`` (name to largest size in bytes) out of a zip archive,
    which may hold them at its top or in one folder, and return the path of each, ``folder / name``.

    No path of the archive is ever used. Raises `InputError` for an archive that is damaged, or
    lacks a member, or has it twice, too large or under a path that leads elsewhere.
    """
    with _archive(archive) as file:
        for name, limit in members.items():
            info = _member(file, name, archive)
            if info.file_size > limit:
                raise InputError(
                    f"{info.filename} in {archive} has {info.file_size} bytes, but at most "
                    f"{limit} are expected: this is another file; download it again."
                )
            # zipfile reads no more than the size it announced, and checks the CRC.
            with file.open(info) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
    return {name: folder / name for name in members}


def _member(file: zipfile.ZipFile, name: str, archive: Path) -> zipfile.ZipInfo:
    found = [info for info in file.infolist() if PurePosixPath(info.filename).name == name]
    if len(found) != 1:
        raise InputError(
            f"The archive {archive} holds {name} {len(found)} times, but once is expected; give "
            "the published one."
        )
    parts = PurePosixPath(found[0].filename).parts
    if len(parts) > 2 or parts[0] in ("/", "..") or "\\" in found[0].orig_filename:
        raise InputError(
            f"The archive {archive} holds {name} as {found[0].filename!r}, but the path must be at "
            "most one folder deep; give the published one."
        )
    return found[0]
