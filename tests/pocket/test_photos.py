from pathlib import Path

import numpy as np
import pytest

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
    with pytest.raises(InputError, match="holds 1 photograph, but at least two"):
        photo_paths(tmp_path)
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

    monkeypatch.setattr(photos, "download", download)
    photos.fetch_photos(tmp_path / "photos")
    found = sorted((tmp_path / "photos").iterdir())
    assert [path.name for path in found] == [f"{number:04}.png" for number in range(801, 901)]
    assert found[5].read_text() == "806"
