"""Which pixels a mask marks, and where they lie, against arrays written into the files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.data import astronaut

from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_pair
from dinolizer.data.masks import read_mask
from dinolizer.errors import InputError

MASK = np.zeros((24, 32), bool)
MASK[2:10, 3:15] = True


def coloured(inside: tuple[int, ...], outside: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.where(MASK[..., None], np.uint8(inside), np.uint8(outside))


def test_a_mask_is_what_is_over_127(tmp_path: Path) -> None:
    values = np.uint8([[0] * 10 + [1, 127], [128, 200] + [255] * 10])
    write_image(tmp_path / "mask.png", values)
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, [[False] * 12, [True] * 12])


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (MASK, None),
        (MASK.astype(np.uint8) * 255, "L"),
        (MASK.astype(np.uint8), "L"),
        (MASK.astype(np.uint8) * 2, "L"),
        (MASK.astype(np.uint16), None),
        (MASK.astype(np.uint16) * 255, None),
        (MASK.astype(np.uint16) * 65535, None),
        (MASK.astype(np.uint8) * 55 + 100, "L"),  # 100 and 155: either side of the middle
        (coloured((255, 255, 255), (0, 0, 0)), "RGB"),
        (coloured((128, 0, 0), (0, 0, 0)), "RGB"),
        (coloured((128, 0, 0), (0, 0, 0)), "P"),
        (coloured((255, 255, 255, 90), (0, 0, 0, 90)), "RGBA"),
        (coloured((255, 0), (0, 0)), "LA"),
    ],
)
def test_two_values_are_told_apart_whatever_they_are(
    values: NDArray[np.generic], mode: str | None, tmp_path: Path
) -> None:
    image = Image.fromarray(values)
    image = image.quantize(2) if mode == "P" else image
    for suffix in ("png", "tif"):
        image.save(tmp_path / f"mask.{suffix}")
        np.testing.assert_array_equal(read_mask(tmp_path / f"mask.{suffix}"), MASK)


def test_a_soft_or_compressed_mask_is_cut_at_the_middle(tmp_path: Path) -> None:
    soft = cv2.GaussianBlur(MASK.astype(np.uint8) * 255, (5, 5), 0)
    write_image(tmp_path / "soft.png", soft)
    np.testing.assert_array_equal(read_mask(tmp_path / "soft.png"), soft > 127)
    Image.fromarray(coloured((255, 255, 255), (0, 0, 0))).save(tmp_path / "mask.jpg", quality=90)
    assert (read_mask(tmp_path / "mask.jpg") == MASK).mean() > 0.99


@pytest.mark.parametrize(("value", "marks"), [(0, False), (255, True)])
def test_a_mask_of_one_value_marks_all_or_nothing(value: int, marks: bool, tmp_path: Path) -> None:
    write_image(tmp_path / "mask.png", np.full((4, 4), value, np.uint8))
    assert (read_mask(tmp_path / "mask.png") == marks).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (coloured((255, 255, 255, 255), (255, 255, 255, 0)), "is transparent in places"),
        (coloured((0, 255), (0, 0)), "is transparent in places"),
        (coloured((255, 0, 0), (0, 255, 0)), r"2 colours, such as \(0, 255, 0\), \(255, 0, 0\)"),
        (astronaut()[:64, :64], r"\d+ colours, such as"),
        (astronaut()[:64, :64, 0], r"grey values from \d+ to \d+ of 255"),
        (np.full((4, 4), 1, np.uint8), "1 grey values from 1 to 1"),
        (MASK + np.uint8(1), "2 grey values from 1 to 2"),
        (np.arange(3, dtype=np.uint8)[None], "3 grey values from 0 to 2"),
        (np.uint8([[0] * 8, [0, 0, 128, 255] * 2]), "3 grey values from 0 to 255"),  # a class more
    ],
)
def test_a_mask_that_cannot_be_told_is_refused(
    values: NDArray[np.uint8], says: str, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=says) as caught:
        read_mask(tmp_path / "mask.png")
    assert "\n" not in str(caught.value)


def save_turned(path: Path, pixels: NDArray[np.generic], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_mask_is_turned_as_its_image_is(suffix: str, orientation: int, tmp_path: Path) -> None:
    """Pillow's own `exif_transpose` says how the picture and the mask must come out."""
    photo = np.stack([MASK * np.uint8(200), *[np.uint8(9) + 0 * MASK.astype(np.uint8)] * 2], -1)
    upright = Image.fromarray(MASK.astype(np.uint8) * 255)
    upright.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(upright)) > 0
    save_turned(tmp_path / f"photo.{suffix}", photo, orientation)
    write_image(tmp_path / "stored.png", MASK.astype(np.uint8) * 255)
    save_turned(tmp_path / "own.png", MASK.astype(np.uint8) * 255, orientation)
    for name in ("stored.png", "own.png"):
        image, mask = read_pair({"image": tmp_path / f"photo.{suffix}", "mask": tmp_path / name})
        np.testing.assert_array_equal(mask, expected, err_msg=name)
        assert (mask == (image[..., 0] > 100)).mean() > 0.97, name


def test_a_mask_of_another_size_is_resized_by_nearest_neighbour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    small = rng.choice(
        np.uint8([0, 3, 120, 130, 252, 255]), (10, 15), p=[0.4, 0.2, *[0.03] * 2, 0.1, 0.24]
    )
    write_image(tmp_path / "image.png", image)
    write_image(tmp_path / "mask.png", small)
    paths = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    read, mask = read_pair(paths)
    np.testing.assert_array_equal(read, image)
    # Four times the size: each value becomes a block of 4 x 4.
    np.testing.assert_array_equal(mask, np.kron(small > 127, np.ones((4, 4), bool)))
    assert not read_pair(paths | {"mask": ""})[1].any()


@pytest.mark.parametrize("shape", [(60, 40), (30, 60), (10, 14), (1, 1), (4, 3)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    write_image(tmp_path / "image.png", np.zeros((40, 60, 3), np.uint8))
    mask = np.zeros(shape, np.uint8)
    mask[:4, :4] = 255
    write_image(tmp_path / "mask.png", mask)
    if shape == (10, 14):  # 60 / 4 = 15, and a pixel of rounding
        assert read_pair({"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"})[1].any()
        return
    with pytest.raises(InputError, match="which is another shape"):
        read_pair({"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"})
