"""Degradations against another encoder, known statistics and hand-made images."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from skimage.data import astronaut

from dinolizer.data.degradations import (
    DEGRADATIONS,
    blur,
    degrade,
    degrade_mask,
    gaussian_noise,
    jpeg,
    rescale,
    resize,
    webp,
)
from dinolizer.errors import InputError

PHOTO: NDArray[np.uint8] = astronaut()[:128, 100:260]  # 128 x 160, not square


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_jpeg_is_what_another_encoder_makes_of_that_quality(quality: int) -> None:
    # OpenCV brings its own libjpeg, with the same tables and the same default subsampling.
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded = cv2.imencode(".jpg", PHOTO[..., ::-1], parameters)[1]
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    assert difference(jpeg(PHOTO, quality), expected) < 0.05
    assert difference(jpeg(PHOTO, quality - 5), expected) > 0.3


@pytest.mark.parametrize("quality", [60, 80])
def test_webp_is_what_another_encoder_makes_of_that_quality(quality: int) -> None:
    parameters = [cv2.IMWRITE_WEBP_QUALITY, quality]
    encoded = cv2.imencode(".webp", PHOTO[..., ::-1], parameters)[1]
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    assert difference(webp(PHOTO, quality), expected) < 0.1
    assert difference(webp(PHOTO, quality - 10), expected) > 0.2


def test_a_second_jpeg_keeps_the_block_grid() -> None:
    # On its own grid a second compression of the same quality finds the coefficients already
    # quantised; on a grid shifted by half a block it quantises them anew.
    once = jpeg(PHOTO, 60)
    aligned = difference(jpeg(once, 60), once)
    shifted = difference(jpeg(once[4:, 4:], 60), once[4:, 4:])
    assert aligned < 0.3 * shifted


@pytest.mark.parametrize("side", [11, 23])
def test_blur_is_a_gaussian_of_the_documented_width(side: int) -> None:
    places = np.arange(side) - side // 2
    weights = np.exp(-(places**2) / (2 * (0.3 * ((side - 1) / 2 - 1) + 0.8) ** 2))
    expected = PHOTO.astype(float)
    for axis in (0, 1):
        expected = convolve1d(expected, weights / weights.sum(), axis=axis, mode="mirror")
    assert np.abs(blur(PHOTO, side) - expected).max() < 1.5


def test_the_smallest_blur_is_binomial_and_a_kernel_of_one_pixel_none() -> None:
    point = np.zeros((5, 5, 3), np.uint8)
    point[2, 2] = 160
    assert blur(point, 3)[1:4, 1:4, 0].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    np.testing.assert_array_equal(blur(PHOTO, 1), PHOTO)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5])
def test_rescaling_gives_the_first_size_back_and_loses_what_is_fine(scale: float) -> None:
    odd = PHOTO[:101, :67]
    back = rescale(odd, scale)
    assert back.shape == odd.shape
    # A plain area keeps its value, single bright pixels do not.
    np.testing.assert_array_equal(rescale(np.full_like(odd, 77), scale), 77)
    assert difference(rescale(odd, 0.5), odd) > difference(rescale(odd, 0.9), odd) > 0


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    added = gaussian_noise(grey, 7, np.random.default_rng(0)).astype(float) - 128
    # Rounding adds a variance of 1/12; the error of the estimate from 120 000 samples is 0.2 %.
    assert added.std() == pytest.approx(np.sqrt(7**2 + 1 / 12), rel=0.01)
    assert abs(added.mean()) < 0.1
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02


def test_noise_is_clipped_and_does_not_wrap_around() -> None:
    edges = np.zeros((50, 50, 3), dtype=np.uint8)
    edges[25:] = 255
    noisy = gaussian_noise(edges, 10, np.random.default_rng(0))
    assert noisy[:25].max() < 100
    assert noisy[25:].min() > 155


def test_shrinking_by_half_averages_two_by_two_pixels() -> None:
    blocks = PHOTO.reshape(64, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize(PHOTO, 0.5) - blocks).max() <= 0.5


@pytest.mark.parametrize("scale", DEGRADATIONS["resize"].levels)
def test_the_mask_goes_where_its_pixels_go(scale: float) -> None:
    # An image that is its own mask: after resizing both, they agree but for the edges.
    mask = np.zeros((101, 67), dtype=bool)
    mask[20:71, 13:40] = True
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    resized, resized_mask = resize(image, scale)[..., 0], degrade_mask("resize", scale, mask)
    assert resized.shape == resized_mask.shape == (round(101 * scale), round(67 * scale))
    # Where the image is clearly one or the other, the mask says the same.
    clear = (resized < 64) | (resized > 191)
    np.testing.assert_array_equal(resized_mask[clear], resized[clear] > 127)
    assert clear.mean() > 0.9


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_is_deterministic_and_grows_along_its_grid(name: str) -> None:
    levels = DEGRADATIONS[name].levels
    images = [degrade(name, level, PHOTO, seed=3) for level in levels]
    for level, image in zip(levels, images, strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, degrade(name, level, PHOTO, seed=3))
    if name == "resize":
        measured = [float(image.size) for image in images]
    else:
        measured = [difference(image, PHOTO) for image in images]
    falling = name in ("jpeg", "webp", "rescale")
    assert measured == sorted(measured, reverse=falling)


def test_the_seed_changes_the_noise_alone() -> None:
    assert difference(degrade("noise", 7, PHOTO, 1), degrade("noise", 7, PHOTO, 2)) > 5
    assert difference(degrade("jpeg", 70, PHOTO, 1), degrade("jpeg", 70, PHOTO, 2)) == 0


def test_only_resizing_moves_the_mask() -> None:
    mask = np.eye(10, dtype=bool)
    for name in DEGRADATIONS.keys() - {"resize"}:
        assert degrade_mask(name, 0.5, mask) is mask
    assert degrade_mask("resize", 1.5, mask).shape == (15, 15)


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("jpeg", 0, "JPEG quality is 0"),
        ("jpeg", 101, "JPEG quality is 101"),
        ("jpeg", 72.5, "JPEG quality is 72.5"),
        ("webp", 0, "WEBP quality is 0"),
        ("noise", -1, "noise level is -1"),
        ("blur", 4, "kernel is 4, but it must be an odd number"),
        ("blur", -3, "kernel is -3"),
        ("resize", 0, "resize factor is 0"),
        ("rescale", -1, "resize factor is -1"),
        ("smear", 3, "degradation is 'smear'"),
    ],
)
def test_a_level_that_makes_no_sense_is_refused(name: str, level: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        degrade(name, level, PHOTO, seed=0)
