"""Downloads that go on where they stopped, and archives that are taken with care."""

import errno
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pooch.hashes import hash_matches
from tqdm.auto import tqdm

from dinolizer.data.formats import other_file
from dinolizer.errors import InputError, refuse, unwatched
from dinolizer.paths import check_regular

CHUNK = 2**20
LARGEST = 2**32
"""Bytes of a download whose size is not known."""


def download(
    url: str,
    path: Path,
    known_hash: str = "",
    *,
    size: int | None = None,
    advice: str = "try again later",
) -> None:
    """Download a file, unless it is there already; an interrupted download goes on. What has
    arrived is kept beside ``path`` with the suffix ``.part``; ``path`` appears only when it is
    whole and has the known hash, ``"md5:..."`` or ``"sha256:..."``, and ``size`` in bytes. Where
    the server does not know the ``Range`` header it starts anew. Raises `InputError` if the server
    fails or sends another file (then ``advice`` is given), and `OSError` where it cannot write."""
    import requests  # slow, and pooch's own; its errors are OSErrors, like those of a full disk

    part, largest = path.with_name(f"{path.name}.part"), size or LARGEST
    for there in (path, part):
        check_regular(there)
    if path.exists() and hash_matches(path, known_hash or None):
        return
    try:
        with part.open("ab") as file:
            arrived = file.tell()
            headers = {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={arrived}-"} if arrived else {}
            with requests.get(url, headers=headers, stream=True, timeout=30) as response:
                # 416: nothing is left to send. Whether all is right, size and hash tell.
                if response.status_code != 416:
                    response.raise_for_status()
                    if response.status_code == 200:  # and not 206, the range that was asked for
                        arrived = file.truncate(0)
                    for data in tqdm(response.iter_content(CHUNK), unit="MiB", disable=unwatched()):
                        arrived += file.write(data)
                        if arrived > largest:
                            break
            file.flush()
            os.fsync(file.fileno())
    except requests.RequestException as error:
        if not part.stat().st_size:
            part.unlink()
        status = error.response is not None and f"HTTP status {error.response.status_code}"
        why = f"({status or type(error).__name__}); run the command again and it goes on"
        raise InputError(f"The download of {url} did not end well {why}.") from None
    is_whole = arrived <= largest and size in (None, arrived)
    if not is_whole or not hash_matches(part, known_hash or None):
        came = other_file(part, "another file").partition(";")[0]
        part.unlink()
        wanted = f"{size:,} bytes" if size else known_hash
        sent = f"{came}, at least {arrived:,} bytes of it, and not the published file ({wanted})"
        raise InputError(f"{url} sent {sent}; nothing of it was kept, {advice}.")
    part.replace(path)


def extract(archive: Path, folder: Path, limit: int, names: Sequence[str] = ()) -> None:
    """Extract a zip archive to a folder; or only the files ``names`` of it, which it may hold at
    its top or in one folder, to ``folder / name``. Raises `InputError` for an archive that is
    damaged, takes over ``limit`` bytes, or has a name not once, or under a path that leads out."""
    try:
        with zipfile.ZipFile(archive) as file:
            infos = file.infolist()
            if names:
                infos = [_named(infos, name, archive) for name in names]
            size = sum(info.file_size for info in infos)
            if size > limit:
                most = f"at most {limit:,} are expected: this is another file"
                raise InputError(f"{archive} unpacks to {size:,} bytes, but {most}.")
            # zipfile leaves out what of a path leads elsewhere, reads no more than was announced,
            # and checks the CRC.
            file.extractall(folder, infos)
    except InputError:
        raise
    except Exception as error:  # zipfile meets damage with almost any exception
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # it is the disk's
        why = f"({error}), but a whole zip file is expected; download it again"
        raise InputError(f"The archive {archive} cannot be read {why}.") from None


def fetch_zip(url: str, folder: Path, limit: int, names: Sequence[str] = (), **known: Any) -> None:
    """Download a zip archive, with what is ``known`` of it as in `download`, and `extract` it."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / PurePosixPath(url).name
    download(url, archive, **known)
    extract(archive, folder, limit, names)
    archive.unlink()


def _named(infos: Sequence[zipfile.ZipInfo], name: str, archive: Path) -> zipfile.ZipInfo:
    """The one member of a name, to be extracted under it."""
    named = [info for info in infos if PurePosixPath(info.filename).name == name]
    paths = [PurePosixPath(info.filename).parts for info in named]
    is_far = any(len(path) > 2 or path[0] in ("/", "..") for path in paths)
    once = f"The archive {archive} holds {name} {len(named)} times, but once, and at most one"
    refuse({f"{once} folder deep, is expected; give the published one.": len(named) != 1 or is_far})
    named[0].filename = name
    return named[0]
