import shutil
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from dinolizer.data import fetch
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.pocket import photos
from dinolizer.pocket.photos import PHOTOS, load_photo, photo_paths


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photograph_is_in_colour_and_large_enough(name: str) -> None:
    photo = load_photo(name)
    assert photo.ndim == 3
    assert min(photo.shape[:2]) >= 288  # the pocket backbone's window and the margin
    assert (photo[..., 0] != photo[..., 2]).any()


def test_an_unknown_photograph_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'lena'"):
        load_photo("lena")


def write_photos(folder: Path, *names: str) -> None:
    for name in names:
        write_image(folder / name, np.zeros((8, 8, 3), np.uint8))


def test_the_photographs_of_a_folder_are_named_by_their_files(tmp_path: Path) -> None:
    write_photos(tmp_path, "b.png", "deep/a.png", "c.png")
    assert photo_paths(tmp_path) == {
        "b": tmp_path / "b.png",
        "c": tmp_path / "c.png",
        "a": tmp_path / "deep" / "a.png",
    }
    assert list(photo_paths(tmp_path, count=2)) == ["b", "c"]


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*none.* fetch photos"):
        photo_paths(tmp_path / "none")
    write_photos(tmp_path, "a.png")
    assert list(photo_paths(tmp_path)) == ["a"]
    write_photos(tmp_path, "deep/a.png")
    with pytest.raises(InputError, match="Two photographs are named 'a'"):
        photo_paths(tmp_path)


def test_fetched_photographs_are_taken_out_of_their_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the archive's own layout: one folder, the files 0801.png to 0900.png."""
    import zipfile

    def download(url: str, path: Path, known_hash: str) -> None:
        assert url.endswith("/DIV2K_valid_HR.zip")
        assert len(known_hash) == len("sha256:") + 64
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(801, 901):
                archive.writestr(f"DIV2K_valid_HR/{number:04}.png", str(number))

    monkeypatch.setattr(fetch, "download", download)
    photos.fetch_photos(tmp_path / "photos")
    found = sorted((tmp_path / "photos").iterdir())
    assert [path.name for path in found] == [f"{number:04}.png" for number in range(801, 901)]
    assert found[5].read_text() == "806"


SUMS = """\
6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  1.jpg
785f3ec7eb32f30b90cd0fcf3657d388b5ff4297f2f9716ff66e9b69c05ddd09  2.jpg
556d7dc3a115356350f1f9910b1af1ab0e312d4b3e4fc788d2da63668f36d017  3.jpg
"""


def bsds_like(folder: Path) -> dict[str, bytes]:
    """Three files with the content "1", "22" and "333"."""
    folder.mkdir(parents=True)
    contents = {f"{number}.jpg": number * str(number).encode() for number in (1, 2, 3)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "Thumbs.db").write_bytes(b"x")
    return contents


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of three small files stands for that of the 200 photographs."""
    monkeypatch.setattr(photos, "BSDS_COUNT", 3)
    monkeypatch.setattr(photos, "BSDS_HASH", sha256(SUMS.encode()).hexdigest())


@pytest.mark.parametrize("way", ["folder", "archive", "download"])
def test_the_bsds_photographs_are_taken_and_nothing_else(
    way: str, three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = bsds_like(tmp_path / "BSR/BSDS500/data/images/test")
    archive = tmp_path / "BSR_bsds500.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "BSR", "BSR")
        file.add(tmp_path / "BSR/BSDS500/data/images/test/1.jpg", "BSR/../../1.jpg")
        file.add(tmp_path / "BSR/BSDS500/data/images/test/1.jpg", "BSR/BSDS500/data/images/4.jpg")

    def download(url: str, path: Path, *, size: int) -> None:
        assert url.endswith("/BSR_bsds500.tgz") and size == 70_763_455
        shutil.copy(archive, path)

    monkeypatch.setattr(photos, "download", download)
    folder = tmp_path / "BSR/BSDS500/data/images/test"
    given = {"folder": folder, "archive": archive, "download": None}[way]
    out = tmp_path / "deep" / "bsds"
    photos.fetch_bsds(out, given)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents
    with pytest.raises(InputError, match="is there already"):
        photos.fetch_bsds(out, given)


@pytest.mark.parametrize("damage", ["changed", "absent", "one more", "large", "text"])
def test_other_photographs_are_refused(damage: str, three: None, tmp_path: Path) -> None:
    folder = tmp_path / "BSR/BSDS500/data/images/test"
    bsds_like(folder)
    if damage == "changed":
        (folder / "2.jpg").write_bytes(b"23")
    elif damage == "absent":
        (folder / "2.jpg").unlink()
    else:
        content = b"x" * 600_000 if damage == "large" else b"x"
        (folder / ("4.jpg" if damage == "one more" else "2.jpg")).write_bytes(content)
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "BSR", "BSR")
    if damage == "text":
        archive.write_bytes(b"<html>")
    for given in (folder, archive):
        with pytest.raises(InputError, match=r"but not the 3 test photo|is expected; get it again"):
            photos.fetch_bsds(tmp_path / "out", given)
    assert not list((tmp_path / "out").iterdir())
