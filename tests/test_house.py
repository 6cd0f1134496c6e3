"""Imports go one way, and the picture of the house in CONTRIBUTING.md is true."""

import re
from pathlib import Path

import house
import pytest

from dinolizer.paths import PACKAGE, ROOT


@pytest.mark.parametrize("room", house.DOORS)
def test_a_room_imports_only_from_those_below_it(room: str) -> None:
    assert house.open_doors()[room] <= house.DOORS[room] | house.BASE


@pytest.mark.parametrize("name", sorted(house.BASE))
def test_what_all_import_imports_no_room(name: str) -> None:
    assert house.rooms_of(PACKAGE / f"{name}.py") <= house.BASE - {name}


def test_a_forbidden_import_is_seen_wherever_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    for line in ("from dinolizer import study", "import dinolizer.study.maps"):
        (tmp_path / "model" / "head.py").write_text(f"def late():\n    {line}\n")
        assert house.open_doors()["model"] == {"study"}


def test_the_picture_is_made_from_the_code() -> None:
    text = house.GUIDE.read_text(encoding="utf-8")
    assert house.PICTURE.findall(text) == [house.picture()], "run: python tests/house.py"


def test_every_file_that_the_guide_names_exists() -> None:
    text = house.GUIDE.read_text(encoding="utf-8")
    names = re.findall(r"`((?:dinolizer|tests|notebooks|results|data)/[\w./-]+)`", text)
    links = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", text)
    assert names
    assert [name for name in names + links if not (ROOT / name).exists()] == []
