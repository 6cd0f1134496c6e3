"""A report is one page that stands alone, shows what was found, and believes no name of a file."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from small import random_image, small_localizer

from dinolizer.errors import InputError
from dinolizer.model.localization import Localization
from dinolizer.model.report import SIDE, Entry, save_index, save_report

HOSTILE = "<img src=x onerror=alert(1)>&\"'${json}\u202e</script>\n\udcff.png"


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text in those of each tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.text: dict[str, str] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.text[self.inside] = self.text.get(self.inside, "") + data

    def links(self) -> list[str]:
        """All that the page could load or lead to."""
        return [
            value or ""
            for _, attributes in self.elements
            for name, value in attributes.items()
            if name in ("href", "src", "srcset", "xlink:href", "data", "action", "poster")
        ]


def localized(
    folder: Path, name: str = "photo.png", size: tuple[int, int] = (60, 90)
) -> Localization:
    path = folder / name
    Image.fromarray(random_image(*size)).save(path)
    return small_localizer()[0](path)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_a_report_holds_photograph_map_outline_and_json(tmp_path: Path) -> None:
    result = localized(tmp_path)
    mask = np.zeros((60, 90), bool)
    mask[10:30, 20:50] = True
    mask[15:20, 30:40] = False
    entry = save_report(replace(result, mask=mask), tmp_path / "out", "photo")
    assert [*(tmp_path / "out").iterdir()] == [entry.file]
    assert entry.file.name == "photo.report.html"
    page = Page(entry.file)
    images = [attributes["href"] or "" for tag, attributes in page.elements if tag == "image"]
    assert [uri.split(";")[0] for uri in images] == ["data:image/jpeg", "data:image/png"]
    photo, drawn = map(decoded, images)
    assert photo.size == drawn.size == (90, 60)
    assert np.abs(np.asarray(drawn) / 255 - result.probability).max() <= 0.5 / 255 + 1e-6
    path, flat = (attributes["d"] or "" for tag, attributes in page.elements if tag == "path")
    assert flat == ""
    # By hand: around columns 20 to 49 and rows 10 to 29, and around the hole in them.
    around, hole = (set(re.findall(r"\d+ \d+", part)) for part in path.split("Z")[:2])
    assert around == {"20 10", "20 29", "49 29", "49 10"}
    assert {"30 14", "39 14", "40 15", "40 19", "39 20", "30 20", "29 19", "29 15"} == hole
    saved = json.loads(re.findall(r'id="localization">(.*)</script>', entry.file.read_text())[0])
    assert saved["sha256"] == hashlib.sha256((tmp_path / "photo.png").read_bytes()).hexdigest()
    assert saved["source"] == "photo.png", "the folder is nobody's business"
    assert saved["score"] == result.score
    assert saved["head_hash"] == result.settings["head_hash"]
    said = page.text["p"]
    assert "Marked as edited: 10.2% of the picture" in said  # (20 * 30 - 5 * 10) / (60 * 90)
    assert result.settings["caution"] in said
    assert "not calibrated" in said


def test_what_it_says_of_the_score_and_of_nothing(tmp_path: Path) -> None:
    result = replace(localized(tmp_path), score=0.7, mask=np.zeros((60, 90), bool))
    for number, (limit, says) in enumerate(
        ((0.6, "0.700, over 0.6,"), (0.7, "0.700, not over 0.7,"), (0.8, "0.700, not over 0.8,"))
    ):
        settings = dict(result.settings) | {"score_threshold": limit}
        entry = save_report(replace(result, settings=settings), tmp_path, str(number))
        said = Page(entry.file).text["p"]
        assert says in said
        assert "not calibrated" not in said
        assert "Nothing is marked" in said


def test_pages_load_nothing(tmp_path: Path) -> None:
    entry = save_report(localized(tmp_path), tmp_path, "photo")
    save_index(tmp_path / "index.html", [entry])
    for path, inside in ((entry.file, 2), (tmp_path / "index.html", 1)):
        page = Page(path)
        links = page.links()
        assert sum(link.startswith("data:image/") for link in links) == inside
        others = {link for link in links if not link.startswith(("data:image/", "#"))}
        assert others == ({"photo.report.html"} if path != entry.file else set())
        text = path.read_text()
        assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", re.sub(r"base64,\S+", "", text))
        assert "default-src 'none'" in text
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"link", "iframe", "object", "embed", "base", "form", "video", "audio"}
    named = {attributes["id"] for _, attributes in Page(entry.file).elements if "id" in attributes}
    used = {link[1:] for link in Page(entry.file).links() if link.startswith("#")}
    assert used and used <= named


def test_a_hostile_name_is_only_a_name(tmp_path: Path) -> None:
    plain = save_report(localized(tmp_path), tmp_path, "photo")
    source = tmp_path / HOSTILE.replace("/", "_")
    hostile = replace(localized(tmp_path), source=str(source))
    source.write_bytes((tmp_path / "photo.png").read_bytes())
    entry = save_report(hostile, tmp_path, source.stem)
    tags = [tag for tag, _ in Page(plain.file).elements]
    page = Page(entry.file)
    assert [tag for tag, _ in page.elements] == tags
    shown = r"""<img src=x onerror=alert(1)>&"'${json}\u202e<_script>\n\udcff.png"""
    assert page.text["h1"] == shown
    assert page.text["title"].startswith(shown)
    save_index(tmp_path / "index.html", [entry], [f"{source} is damaged."])
    index = Page(tmp_path / "index.html")
    (link,) = (link for link in index.links() if not link.startswith("data:"))
    assert urlsplit(link).path == link, "neither a scheme nor a query"
    assert unquote(link, errors="surrogateescape") == entry.file.name
    assert index.text["a"] == shown
    assert shown in index.text["li"]
    assert [tag for tag, _ in index.elements].count("img") == 1


def test_the_index_has_the_highest_score_first(tmp_path: Path) -> None:
    thumbnail = save_report(localized(tmp_path), tmp_path, "photo").thumbnail
    entries = [
        Entry(tmp_path / f"{name}.report.html", f"{name}.png", thumbnail, score, 0.25)
        for name, score in (("low", 0.1), ("high", 0.9), ("middle", 0.5))
    ]
    save_index(tmp_path / "index.html", entries)
    page = Page(tmp_path / "index.html")
    links = [link for link in page.links() if not link.startswith("data:")]
    assert links == ["high.report.html", "middle.report.html", "low.report.html"]
    assert page.text["h1"] == "Reports on 3 pictures, the highest score first"
    assert "Could not be examined" not in page.text.get("h2", "")


def test_a_large_picture_is_drawn_smaller_and_a_lone_pixel_is_kept(tmp_path: Path) -> None:
    """12 megapixels of noise, which no JPEG or PNG makes small, are the worst case."""
    result = localized(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.zeros((3000, 4000), bool)
    mask[1500, 2000] = True
    large = replace(
        result,
        image=rng.integers(0, 256, (3000, 4000, 3), np.uint8),
        probability=rng.random((3000, 4000), np.float32),
        mask=mask,
    )
    entry = save_report(large, tmp_path, "large")
    assert entry.file.stat().st_size < 15e6
    page = Page(entry.file)
    photo, drawn = (
        decoded(attributes["href"] or "") for tag, attributes in page.elements if tag == "image"
    )
    assert photo.size == drawn.size == (SIDE, SIDE * 3 // 4)
    path, _ = (attributes["d"] for tag, attributes in page.elements if tag == "path")
    assert path == "M800 600Z"  # pixel 2000 / 2.5, 1500 / 2.5
    blocks = np.kron(rng.random((600, 800)) < 0.5, np.ones((5, 5), bool))
    parts = save_report(replace(large, mask=blocks), tmp_path, "parts")
    assert parts.file.stat().st_size < 15e6


def test_nothing_is_replaced_unasked_and_no_photograph_ever(tmp_path: Path) -> None:
    result = localized(tmp_path)
    path = save_report(result, tmp_path, "photo").file
    before = path.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        save_report(result, tmp_path, "photo")
    assert path.read_bytes() == before
    save_report(result, tmp_path, "photo", overwrite=True)
    path.unlink()
    path.hardlink_to(tmp_path / "photo.png")
    with pytest.raises(InputError, match="is one of the inputs"):
        save_report(result, tmp_path, "photo", overwrite=True)


def test_a_picture_without_a_file_has_the_name_it_is_given(tmp_path: Path) -> None:
    result = small_localizer()[0](random_image(60, 90))
    entry = save_report(result, tmp_path, "mine")
    assert entry.picture == "mine"
    assert "sha256" not in entry.file.read_text()
