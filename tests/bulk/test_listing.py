"""A list of images is the same whatever order it came in, and its shards are a partition of it."""

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_manifest

from dinolizer.bulk.run import Listing, read_listing
from dinolizer.bulk.table import list_hash
from dinolizer.data.files import Shard
from dinolizer.errors import InputError

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=20, unique=True)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@settings(max_examples=30)
@given(names=NAMES, count=st.integers(1, 9))
def test_every_name_is_in_exactly_one_shard(names: list[str], count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for name in names:
        assert sum(shard.has(name) for shard in shards) == 1


def test_the_shard_of_a_name_is_its_hash_and_nothing_else() -> None:
    # sha256("cat.png") begins with these 8 bytes, by hashlib's own hex form.
    first = int(hashlib.sha256(b"cat.png").hexdigest()[:16], 16)
    assert [Shard(i, 5).has("cat.png") for i in range(1, 6)].index(True) == first % 5
    sizes = [sum(Shard(i, 4).has(f"{n}.png") for n in range(4000)) for i in range(1, 5)]
    assert sum(sizes) == 4000
    assert max(sizes) < 1150  # expected 1000, with a standard deviation of 27


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1.0/2"])
def test_a_shard_out_of_range_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"must be NUMBER/COUNT, as in 1/4"):
        Shard.parse(text)


def test_a_shard_is_read_as_it_is_written() -> None:
    assert Shard.parse("2/4") == Shard(2, 4)
    assert str(Shard(2, 4)) == "2-of-4"


def test_a_folder_and_lists_of_it_in_any_order_are_one_listing(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.jpg", "a/.hidden.png", "notes.txt", "ä.webp"):
        touch(tmp_path / name)
    listing = read_listing(tmp_path)
    assert listing == Listing(tmp_path, ("a/c.jpg", "b.png", "ä.webp"))
    for names in (["ä.webp", "b.png", "a/c.jpg"], ["b.png", "./a/../a/c.jpg", "ä.webp", "b.png"]):
        pd.DataFrame({"other": "x", "image": names}).to_csv(tmp_path / "list.csv", index=False)
        assert read_listing(tmp_path / "list.csv") == listing
    assert list_hash(reversed(listing.names)) == list_hash(listing.names)
    assert list_hash(listing.names[1:]) != list_hash(listing.names)


def test_a_name_leads_to_its_image(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png")
    touch(tmp_path / "out/b.png")
    (tmp_path / "in/list.csv").write_text("image\na.png\n../out/b.png\n")
    listing = read_listing(tmp_path / "in/list.csv")
    assert listing.names == (str(tmp_path / "out/b.png"), "a.png")
    for name in listing.names:
        assert (listing.root / name).is_file()


def test_a_manifest_is_a_list(tmp_path: Path) -> None:
    path = small_manifest(tmp_path, 3)
    assert read_listing(path).names == ("0.png", "1.png", "2.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "There is no file"),
        ("mask\na.png\n", "column 'image'"),
        ("", "cannot be read as CSV"),
        ("image\n", "has no rows"),
        ("image,mask\na.png,b.png,\n", "Line 2 of .* has 3 cells"),
        ('image,mask\na.png,\n"",b.png\n', "1 images without a path"),
        (b"image\n\xff\xfe.png\n", "is not in UTF-8"),
    ],
)
def test_what_is_no_list_is_one_sentence(
    text: str | bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=says):
        read_listing(path)


@pytest.mark.parametrize("text", ["1/" + "9" * 5000, "1" * 5000 + "/1", "²/3", "1/2\n"])
def test_digits_that_are_no_number_are_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="must be NUMBER/COUNT"):
        Shard.parse(text)


def test_linked_folders_are_listed_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in (
        *("photos/a.png", "photos/b.JFIF", "photos/.hidden/c.png", "photos/raw.dng"),
        *("photos/found/localized.parquet/1-of-1.parquet", "photos/found/masks/a.png.mask.png"),
        *("photos/old/a.mask.png", "else/d.png", "photos/out/e.png"),
    ):
        touch(tmp_path / name)
    (tmp_path / "photos" / b"\xff.png".decode(errors="surrogateescape")).touch()
    (photos / "far").symlink_to("../else")
    (photos / "circle").symlink_to(".")
    (photos / "lost.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "pipe.png")
    listing = read_listing(photos, photos / "out")
    assert listing.names == ("a.png", "b.JFIF", "far/d.png")
    root = f"{photos}/"
    assert {
        what: sorted(path.removeprefix(root) for path in paths)
        for what, paths in listing.left_out.items()
    } == {
        "hidden files and folders": [".hidden"],
        "folders of results": ["found", "out"],
        "masks of earlier results": ["old/a.mask.png"],
        "files of other suffixes": ["raw.dng"],
        "files whose name is not UTF-8": ["\\xff.png"],
        "folders, links or other things that cannot be read": ["lost.png", "pipe.png"],
    }
    with pytest.raises(InputError, match=r"old holds no image; 1 masks of earlier results; it"):
        read_listing(photos / "old")


def test_a_folder_has_one_list_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "in/a.png")
    (tmp_path / "other").mkdir()
    expected = read_listing(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "other")
    assert read_listing(Path("../in")) == expected
    assert expected.names == ("a.png",)
