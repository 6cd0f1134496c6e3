"""A picture sent to the page comes back as its report; nothing else is answered or kept."""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import requests
from small import random_image, small_localizer
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model import serve
from dinolizer.model.files import localize_bytes
from dinolizer.model.serve import listen

Answer = TypeVar("Answer")


def ask(work: Callable[[str], Answer], host: str = "127.0.0.1") -> Answer:
    """What a client gets that is told the address of the page."""

    async def both() -> Answer:
        url = listen(small_localizer()[0], host, 0)
        return await asyncio.to_thread(work, url)

    return asyncio.run(both())


def send(url: str, name: str, content: bytes, **headers: str) -> requests.Response:
    return requests.post(url, files={"picture": (name, content)}, headers=headers, timeout=60)


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    write_image(tmp_path / "picture.png", random_image(60, 90))
    return (tmp_path / "picture.png").read_bytes()


def test_a_picture_is_answered_by_its_report_and_not_kept(
    picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    page = ask(lambda url: send(url, "../../holiday <1>.png", picture))
    assert page.status_code == 200
    assert "<h1>holiday &lt;1&gt;.png</h1>" in page.text
    saved = json.loads(re.findall(r'id="localization">(.*)</script>', page.text)[0])
    alone = small_localizer()[0](tmp_path / "picture.png")
    assert (saved["source"], saved["sha256"]) == ("holiday <1>.png", alone.file["sha256"])
    assert saved["score"] == alone.score
    assert 'href="/"' in page.text
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b.png", "a." + "x" * 300, "..", "\ud800.png", "a\nb.png"])
def test_a_name_that_no_file_can_have_is_answered_too(name: str, picture: bytes) -> None:
    result = localize_bytes(small_localizer()[0], name, picture)
    assert result.source.isprintable() and result.source
    with pytest.raises(InputError, match="is an HTML page") as caught:
        localize_bytes(small_localizer()[0], name, b"<!doctype html>")
    assert str(caught.value).startswith(result.source)


def test_what_is_no_picture_is_one_sentence_on_the_page(picture: bytes) -> None:
    def work(url: str) -> list[requests.Response]:
        return [
            requests.get(url, timeout=60),
            send(url, "page.html", b"<!DOCTYPE html><p>"),
            send(url, "cut.png", picture[:2000]),
            send(url, "empty.png", b""),
            requests.post(url, data={"picture": "text"}, timeout=60),
        ]

    first, *others = ask(work)
    assert first.status_code == 200 and 'role="alert"' not in first.text
    sentences = [re.findall(r'role="alert">(.*)</p>', page.text) for page in others]
    assert [page.status_code for page in others] == [400] * 4
    for (sentence,), says in zip(
        sentences, ("page.html is an HTML page", "cut.png", "empty one", "0 pictures"), strict=True
    ):
        assert says in sentence
        assert tempfile.gettempdir() not in sentence


def test_other_sites_and_other_names_of_this_machine_are_refused(picture: bytes) -> None:
    def work(url: str) -> list[int]:
        return [
            send(url, "a.png", picture, Origin=url.rstrip("/")).status_code,
            send(url, "a.png", picture, Origin="https://elsewhere.example").status_code,
            requests.get(url, headers={"Host": "rebound.example"}, timeout=60).status_code,
        ]

    assert ask(work) == [200, 403, 403]


def test_an_upload_over_the_limit_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LARGEST", 0)

    def work(url: str) -> int:
        try:
            return send(url, "large.png", bytes(2**21)).status_code
        except requests.RequestException:
            return 400

    assert ask(work) == 400


def test_a_port_that_is_taken_is_one_sentence() -> None:
    def work(url: str) -> str:
        port = url.rstrip("/").rpartition(":")[2]
        result = CliRunner().invoke(app, ["serve", "--model", "pocket", "--port", port])
        assert result.exit_code == 1
        return result.stderr

    assert "in use" in ask(work)
    with pytest.raises(InputError, match=r"No page can be served at nowhere\.invalid"):
        asyncio.run(both_nowhere())


async def both_nowhere() -> None:
    listen(small_localizer()[0], "nowhere.invalid", 0)
