"""Folders and tables: what is found, what is left out and said, what is refused."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dinolizer.data.datasets.rows import open_tree
from dinolizer.data.files import HIDDEN, UNREADABLE, list_images, read_csv, read_table, walk
from dinolizer.data.images import SUFFIXES, read_image, write_image
from dinolizer.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in list_images(folder)[0]]


def test_a_folder_stands_for_its_images_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/1.jpg", "a.tif", "notes.txt", "c/deep/3.webp", "b.jfif")
    (tmp_path / "folder.png").mkdir()
    assert found(tmp_path) == ["a.tif", "b/1.jpg", "b/2.PNG", "b.jfif", "c/deep/3.webp"]


def test_hidden_files_and_folders_are_left_out_of_folders_and_datasets(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".b.png", ".Trash-0/c.png", "@eaDir/d.png", "__MACOSX/e.png")
    assert found(tmp_path) == ["a.png"]
    assert list(open_tree(tmp_path, "x", ()).files) == ["a.png"]


def test_linked_folders_are_followed_and_never_twice_through_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "far/1.png", "in/2.png", "in/deep/3.png")
    (tmp_path / "in/more").symlink_to(tmp_path / "far")
    (tmp_path / "in/deep/up").symlink_to(tmp_path / "in")
    (tmp_path / "far/back").symlink_to(tmp_path / "in")
    assert found(tmp_path / "in") == ["2.png", "deep/3.png", "more/1.png"]
    assert list(open_tree(tmp_path / "in", "x", ()).files) == ["2.png", "deep/3.png", "more/1.png"]


def test_links_to_links_are_ways_without_number(tmp_path: Path) -> None:
    """Each of 40 folders has two links to the next: 2 ** 40 ways to the picture in the last."""
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}")
    (tmp_path / "40").mkdir()
    (tmp_path / "40/photo.png").touch()
    left_out: dict[str, list[str]] = {}
    found = list(walk(tmp_path, left_out))
    assert 1 <= len(found) <= 100
    assert left_out.keys() == {"folders, links or other things that cannot be read"}


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.heic", "noext", ".c.png", "@eaDir/d.png", "a.mask.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    names, left_out = list_images(tmp_path)
    assert names == [str(tmp_path / "a.png")]
    assert {
        what: sorted(Path(path).name for path in paths) for what, paths in left_out.items()
    } == {
        HIDDEN: [".c.png", "@eaDir"],
        "masks of earlier results": ["a.mask.png"],
        "files of other suffixes": ["b.heic", "noext"],
        UNREADABLE: ["broken.png", "pipe.png"],
    }
    left_out = open_tree(tmp_path, "x", ()).left_out
    assert [len(left_out[what]) for what in (HIDDEN, UNREADABLE)] == [2, 2]


def test_a_folder_without_images_is_one_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=str(tmp_path)):
        list_images(tmp_path)


def test_a_folder_with_every_suffix_is_found_and_read(tmp_path: Path) -> None:
    write_image(tmp_path / "first.png", np.zeros((2, 3), np.uint8))
    for suffix in SUFFIXES:
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / "first.png").read_bytes())
    paths, _ = list_images(tmp_path)
    assert len(paths) == len(SUFFIXES) + 1
    for path in paths:
        assert read_image(path).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # A trailing comma, and a comma in a name, shift the columns of a lenient reader.
        (
            "image,mask\na.png,b.png\na.png,b.png,\n",
            "Line 3 of .* has 3 cells, but the header has 2",
        ),
        ("image,mask\na, b.png,c.png\n", "Line 2 of .* has 3 cells"),
        ("image,mask\na.png\n", "Line 2 of .* has 1 cells"),
        ("Image,mask\na.png,b.png\n", "lacks the column 'image'; it has 'Image', 'mask'"),
        ("image,image\na.png,b.png\n", "a column twice"),
        ("", "cannot be read as CSV"),
        ("image,mask\n", "has no rows"),
        ("image,mask\nStraße.png,\n".encode("cp1252"), "is not in UTF-8, perhaps in the code page"),
    ],
)
def test_a_table_that_may_be_read_wrongly_is_refused(
    text: str | bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (read_table, read_csv):
        with pytest.raises(InputError, match=says):
            read(path, ["image", "mask"])


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    text = 'image , mask\r\n"a, b.png", c.png\r\n,\r\n\r\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8-sig", newline="")
    table = read_table(tmp_path / "list.csv", ["image", "mask"])
    pd.testing.assert_frame_equal(table, pd.DataFrame({"image": ["a, b.png"], "mask": ["c.png"]}))
