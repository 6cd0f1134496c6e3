"""A download goes on where it stopped; an archive gives its expected members and nothing else."""

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import CONTENT, MD5, Server, serving

from dinolizer.data.fetch import download, extract
from dinolizer.errors import InputError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def break_off(server: Server, path: Path, after: int) -> None:
    server.breaks_after = after
    with pytest.raises(InputError, match="run the command again and it goes on"):
        download(server.url, path, MD5)
    server.breaks_after = None
    assert names(path.parent) == ["weights.zip.part"]


def test_a_download_is_whole_and_not_repeated(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    download(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.zip"]
    download(server.url, path, MD5)
    assert server.asked == [None]


@pytest.mark.parametrize("name", ["weights.zip", "weights.zip.part"])
def test_a_pipe_in_place_of_a_download_is_not_waited_for(
    name: str, server: Server, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="no regular file"):
        download(server.url, tmp_path / "weights.zip", MD5)
    assert not server.asked


def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    break_off(server, path, 3_000_000)
    arrived = (tmp_path / "weights.zip.part").stat().st_size
    assert 0 < arrived <= 3_000_000
    break_off(server, path, 1_500_000)
    later = (tmp_path / "weights.zip.part").stat().st_size
    assert arrived < later
    server.sent = 0
    download(server.url, path, MD5)
    assert server.asked == [None, f"bytes={arrived}-", f"bytes={later}-"]
    assert server.sent == len(CONTENT) - later
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.zip"]


def test_without_ranges_it_starts_anew(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    server.knows_range = False
    break_off(server, path, 3_000_000)
    server.sent = 0
    download(server.url, path, MD5)
    assert server.asked[-1].startswith("bytes=")
    assert server.sent == len(CONTENT)
    assert path.read_bytes() == CONTENT


def test_what_had_arrived_whole_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.zip.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "weights.zip", MD5)
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "weights.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"", CONTENT[:1000], b"x" * 1000, b"x" * (len(CONTENT) + 5)])
def test_another_file_is_refused_and_not_kept(begun: bytes, server: Server, tmp_path: Path) -> None:
    if begun:
        (tmp_path / "weights.zip.part").write_bytes(begun)
    server.content = b"<html>Service overloaded</html>" + CONTENT
    with pytest.raises(InputError, match=r"sent .*, and not the published file .md5:") as caught:
        download(server.url, tmp_path / "weights.zip", MD5)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
    server.content = CONTENT
    download(server.url, tmp_path / "weights.zip", MD5)
    assert (tmp_path / "weights.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"", b"x" * 1000, b"x" * 200])
@pytest.mark.parametrize(
    "content, says",
    [
        (
            b"<!DOCTYPE html><title>Share</title>",
            "an HTML page, at least 35 bytes of it, and not the pub",
        ),
        (
            b"PK\x03\x04" + bytes(96),
            "a ZIP archive, at least 100 bytes of it, and not the pub",
        ),
        (
            bytes(200),
            "another file, at least 200 bytes of it, .* .150 bytes.",
        ),
    ],
)
def test_a_file_of_another_size_is_refused_and_not_kept(
    begun: bytes, content: bytes, says: str, server: Server, tmp_path: Path
) -> None:
    server.knows_range = False
    if begun:
        (tmp_path / "weights.zip.part").write_bytes(begun)
    server.content = content
    with pytest.raises(InputError, match=f"{says}.* by hand"):
        download(server.url, tmp_path / "weights.zip", MD5, size=150, advice="get it by hand")
    assert names(tmp_path) == []


def test_a_file_of_no_known_size_has_a_limit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinolizer.data.fetch.LARGEST", 2**20)
    with pytest.raises(InputError, match="nothing of it was kept"):
        download(server.url, tmp_path / "weights.zip")
    assert names(tmp_path) == []


def test_a_longer_part_with_nothing_left_to_send_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.zip.part").write_bytes(CONTENT + b"x")
    with pytest.raises(InputError, match="at least 5,120,001 bytes of it, and not the published"):
        download(server.url, tmp_path / "weights.zip", size=len(CONTENT))
    assert names(tmp_path) == []


def test_a_refusing_server_costs_nothing_of_what_has_arrived(
    server: Server, tmp_path: Path
) -> None:
    break_off(server, tmp_path / "weights.zip", 3_000_000)
    before = (tmp_path / "weights.zip.part").read_bytes()
    server.status, server.content = 502, b"Bad gateway"
    with pytest.raises(InputError, match="HTTP status 502"):
        download(server.url, tmp_path / "weights.zip", MD5)
    assert (tmp_path / "weights.zip.part").read_bytes() == before


def test_no_server_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(InputError, match=r"did not end well \(ConnectionError\)") as caught:
        download(server.url, tmp_path / "weights.zip", MD5)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


MEMBERS = ["config.yaml", "model.pth"]
LIMIT = 2000


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("folder", ["", "BFREE_dino2reg4/"])
def test_the_expected_members_are_taken_and_no_others(folder: str, tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip",
        {
            f"{folder}config.yaml": b"arch: x",
            f"{folder}model.pth": b"weights",
            f"{folder}readme.txt": b"text",
            "../../escaped.py": b"code",
            "/absolute.py": b"code",
        },
    )
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    extract(archive, out, LIMIT, MEMBERS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "config.yaml": b"arch: x",
        "model.pth": b"weights",
    }
    assert names(tmp_path) == sorted(["a.zip", "deep", "out", *MEMBERS])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, "holds config.yaml 0 times"),
        ({"config.yaml": b"a", "x/config.yaml": b"b"}, "holds config.yaml 2 times"),
        ({"../config.yaml": b"a"}, "at most one folder deep"),
        ({"/config.yaml": b"a"}, "at most one folder deep"),
        ({"a/b/config.yaml": b"a"}, "at most one folder deep"),
        ({"a/../config.yaml": b"a"}, "at most one folder deep"),
        ({"config.yaml": b"a" * 1994}, "unpacks to 2,001 bytes, but at most 2,000"),
    ],
)
def test_unexpected_archives_are_refused(bad: dict[str, bytes], says: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"model.pth": b"weights", **bad})
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(InputError, match=says) as caught:
        extract(archive, out, LIMIT, MEMBERS)
    assert "\n" not in str(caught.value)
    assert names(out) == []
    assert names(tmp_path) == ["a.zip", "deep", "out"]


def test_a_size_that_lies_gives_no_more_than_it_announced(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.yaml", b"\0" * 10_000_000)
        file.writestr("model.pth", b"weights")
        file.infolist()[0].file_size = 90  # what the central directory, written last, will say
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        extract(tmp_path / "a.zip", out, LIMIT, MEMBERS)
    assert sum(path.stat().st_size for path in out.iterdir()) <= 90


@pytest.mark.parametrize("damage", ["truncated", "text", "member", "method", "place"])
def test_a_damaged_archive_is_one_sentence(damage: str, tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip", {"config.yaml": b"arch: x", "model.pth": hashlib.sha512().digest() * 9}
    )
    whole = archive.read_bytes()
    start = whole.index(b"model.pth") + 12
    method, place = bytearray(whole), bytearray(whole)
    for record, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # APPNOTE.TXT 4.3.7 and 4.3.12
        for found in re.finditer(record, whole):
            method[found.start() + at] = 12  # bzip2, which it is not
    end = whole.rindex(b"PK\x05\x06") + 16
    place[end : end + 2] = b"\xff\x7f"  # of the directory: members lie before the file's start
    archive.write_bytes(
        {
            "method": bytes(method),
            "place": bytes(place),
            "truncated": whole[:-30],
            "text": b"<html>",
            "member": whole[:start] + b"\xff\xff" + whole[start + 2 :],
        }[damage]
    )
    with pytest.raises(InputError, match="cannot be read") as caught:
        extract(archive, tmp_path, LIMIT, MEMBERS)
    assert "\n" not in str(caught.value)
