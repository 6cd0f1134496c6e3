"""Downloads that go on where they stopped, and archives that are taken with care."""

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pooch
from tqdm.auto import tqdm

from dinolizer.data.formats import known_format
from dinolizer.errors import InputError

CHUNK = 2**20


def download(
    url: str,
    path: Path,
    known_hash: str = "",
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
    import requests  # slow, and pooch's own; its errors are OSErrors, like those of a full disk

    if path.exists() and _has_hash(path, known_hash):
        return
    part = path.with_name(f"{path.name}.part")
    refused = ""
    try:
        with part.open("ab") as file:
            arrived = file.tell()
            headers = {"Accept-Encoding": "identity"}
            if arrived:
                headers["Range"] = f"bytes={arrived}-"
            with requests.get(url, headers=headers, stream=True, timeout=30) as response:
                # 416: nothing is left to send. Whether all is right, size and hash tell.
                if response.status_code != 416:
                    response.raise_for_status()
                    if response.status_code == 200:  # and not 206, the range that was asked for
                        arrived = file.truncate(0)
                    for chunk in tqdm(response.iter_content(CHUNK), unit="MiB", disable=None):
                        arrived += file.write(chunk)
                        if size is not None and arrived > size:
                            refused = f"more than {size:,} bytes"
                            break
            file.flush()
            os.fsync(file.fileno())
    except requests.RequestException as error:
        if not part.stat().st_size:
            part.unlink()
        status = error.response is not None and f"HTTP status {error.response.status_code}"
        raise InputError(
            f"The download of {url} did not end well ({status or type(error).__name__}); run the "
            "command again and it goes on where it stopped."
        ) from None
    came = (known_format(part) or "another file").partition(";")[0]
    if not refused and size not in (None, arrived):
        refused = f"{came} of {arrived:,} bytes"
    elif not refused and not _has_hash(part, known_hash):
        refused = f"{came} of another hash"
    if refused:
        part.unlink()
        wanted = f"{size:,} bytes" if size else known_hash
        raise InputError(
            f"{url} sent {refused}, but the published file ({wanted}) is expected; nothing of it "
            f"was kept, {advice}."
        )
    part.replace(path)


def _has_hash(path: Path, known_hash: str) -> bool:
    kind, _, value = known_hash.partition(":")
    return not value or pooch.file_hash(str(path), kind) == value


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # zipfile meets damage with almost any exception
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # it is the disk's
        raise InputError(
            f"The archive {path} cannot be read ({error}), but a whole zip file is expected; "
            "download it again."
        ) from None


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


def extract(archive: Path, members: Mapping[str, int], folder: Path) -> dict[str, Path]:
    """Take only the expected ``members`` (name to largest size in bytes) out of a zip archive,
    which may hold them at its top or in one folder, and return the path of each, ``folder / name``.

    No path of the archive is ever used. Raises `InputError` for an archive that is damaged, or
    lacks a member, or has it twice, too large or under a path that leads elsewhere.
    """
    with _archive(archive) as file:
        for name, limit in members.items():
            found = [i for i in file.infolist() if PurePosixPath(i.filename).name == name]
            if len(found) != 1:
                raise InputError(
                    f"The archive {archive} holds {name} {len(found)} times, but once is expected; "
                    "give the published one."
                )
            info = found[0]
            parts = PurePosixPath(info.filename).parts
            if len(parts) > 2 or parts[0] in ("/", "..") or "\\" in info.orig_filename:
                raise InputError(
                    f"The archive {archive} holds {name} as {info.filename!r}, but the path must "
                    "be at most one folder deep; give the published one."
                )
            if info.file_size > limit:
                raise InputError(
                    f"{info.filename} in {archive} has {info.file_size} bytes, but at most "
                    f"{limit} are expected: this is another file; download it again."
                )
            # zipfile reads no more than the size it announced, and checks the CRC.
            with file.open(info) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
    return {name: folder / name for name in members}
