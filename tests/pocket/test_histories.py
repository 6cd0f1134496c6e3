"""What a past leaves in a photograph, and what sharing does to twins."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dinolizer.pocket.forging import SHARINGS, crop, past, resized, shared

RNG = np.random.default_rng(0)
COLOURED = RNG.integers(0, 256, (400, 420, 3), dtype=np.uint8)


def fine_chroma(image: NDArray[np.uint8]) -> float:
    """Energy of R - Y over half of the highest frequency, per pixel, by numpy's FFT."""
    chroma = image[..., 0] - image.mean(axis=2)
    spectrum = np.abs(np.fft.fft2(chroma - chroma.mean())) ** 2 / chroma.size
    fine = [np.abs(np.fft.fftfreq(length)) > 0.3 for length in chroma.shape]
    return float(spectrum[np.ix_(*fine)].mean())


def test_a_past_as_jpeg_takes_the_fine_chroma(monkeypatch: pytest.MonkeyPatch) -> None:
    # Chroma at half the resolution in both directions holds no frequency over 0.25 per pixel; what
    # is left comes from the enlarging. Of 30 pasts, 8 in 10 subsample: the median has lost most.
    after = [fine_chroma(past(COLOURED, 224, np.random.default_rng(seed))) for seed in range(30)]
    assert np.median(after) < 0.1 * fine_chroma(COLOURED)


@pytest.mark.parametrize("side", [64, 224, 390])
def test_a_past_has_the_size_that_is_asked_for(side: int) -> None:
    image = past(COLOURED, side, np.random.default_rng(1))
    assert image.shape == (side, side, 3)
    assert image.dtype == np.uint8


def test_a_small_photograph_is_enlarged_and_never_too_small() -> None:
    assert resized(COLOURED[:50, :80], 0.1, RNG, least=60).shape == (60, 96, 3)


def test_a_crop_is_a_part_of_the_image_or_of_its_mirror() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    for seed in range(8):
        square = crop(image, 3, np.random.default_rng(seed))
        places = [
            whole[t : t + 3, x : x + 3]
            for whole in (image, image[:, ::-1])
            for t in range(3)
            for x in range(4)
        ]
        assert any(np.array_equal(square, place) for place in places)


@pytest.mark.parametrize("way", SHARINGS)
def test_twins_that_are_equal_stay_equal(way: str) -> None:
    first, second = shared([COLOURED, COLOURED.copy()], way, 224, np.random.default_rng(2))
    assert first.shape == (224, 224, 3)
    assert np.array_equal(first, second)
