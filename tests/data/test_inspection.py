"""Sizes and areas from files, against the full reading; a manifest against its files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from PIL import ExifTags, Image

from dinolizer.data.datasets.tables import sagid
from dinolizer.data.images import read_image, read_mask
from dinolizer.data.inspection import check_files, image_size, mask_area, measure
from dinolizer.errors import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_image_as_it_is_read(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / f"photo.{suffix}"
    options = {}
    if suffix not in ("bmp", "gif"):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        options = {"exif": exif}
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)).save(path, **options)
    height, width = read_image(path).shape[:2]
    assert image_size(path) == (width, height)


def as_saved(values: np.ndarray, mode: str) -> Image.Image:
    image = Image.fromarray(values)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_area_is_that_of_the_mask_as_it_is_read(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mask.{suffix}"
    as_saved(RNG.integers(0, 256, (20, 30), np.uint8), mode).save(path)
    mask = read_mask(path)
    assert 0.2 < mask.mean() < 0.8
    assert mask_area(path) == (30, 20, mask.mean())


@pytest.mark.parametrize("function", [image_size, mask_area])
def test_what_cannot_be_read_is_the_readers_sentence(
    function: Callable[[str], object], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    ones = trees.save(tmp_path / "ones.png", np.eye(4, dtype=np.uint8))
    paths = [str(tmp_path / "none.png"), str(tmp_path / "text.png"), str(ones)]
    results = measure(function, [*paths, *paths])
    assert list(results) == paths
    assert "There is no file" in str(results[paths[0]])
    assert "is not an image" in str(results[paths[1]])
    assert isinstance(results[paths[2]], InputError) == (function is mask_area)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    return sagid(trees.make_sagid(tmp_path))


def test_a_manifest_that_is_right_says_how_many_masks_are_resized(frame: pd.DataFrame) -> None:
    assert check_files(frame) == 6


def damage(frame: pd.DataFrame, what: str) -> None:
    row = frame[~frame["authentic"]].index[0]
    image, mask = Path(frame.loc[row, "image"]), Path(frame.loc[row, "mask"])
    if what == "no image":
        image.unlink()
    elif what == "no mask":
        mask.unlink()
    elif what == "black":
        trees.save(mask, np.zeros((32, 32), np.uint8))
    elif what == "cut":
        mask.write_bytes(mask.read_bytes()[:60])
    elif what == "size":
        trees.save(image, np.zeros((64, 60, 3), np.uint8))
    else:
        trees.save(mask, np.full((32, 32), 255, np.uint8))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no image", "There is no file"),
        ("no mask", "There is no file"),
        ("black", "is all black"),
        ("cut", "cannot be read"),
        ("size", "says 64x64 pixels, but .* has 60x64"),
        ("another mask", "is edited, but its mask says 1.0000"),
    ],
)
def test_what_no_longer_fits_a_manifest_is_one_sentence(
    what: str, says: str, frame: pd.DataFrame
) -> None:
    damage(frame, what)
    with pytest.raises(InputError, match=rf"Row \d+ of the manifest.*{says}"):
        check_files(frame)
