"""What an edit changes, and what a past leaves in a photograph."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dinolizer.errors import InputError
from dinolizer.pocket.forging import (
    AREA_RANGE,
    CLASSICAL,
    FAMILIES,
    LEARNED,
    SHAPES,
    crop,
    forge,
    log_uniform_area,
    past,
    random_mask,
    resized,
)
from dinolizer.pocket.photos import load_photo

PHOTO = np.ascontiguousarray(load_photo("astronaut")[100:228, 180:308])
FOREIGN = np.ascontiguousarray(load_photo("coffee")[100:228, 180:308])


@pytest.mark.parametrize("family", FAMILIES)
def test_splice_changes_nothing_outside_of_the_mask(family: str) -> None:
    forgery = forge(PHOTO, family, "sp", seed=5, source=FOREIGN)
    assert np.array_equal(forgery.image[~forgery.mask], PHOTO[~forgery.mask])
    assert (forgery.image[forgery.mask] != PHOTO[forgery.mask]).any()


@pytest.mark.parametrize("family", LEARNED)
def test_a_learned_generator_changes_the_background_too_but_less(family: str) -> None:
    forgery = forge(PHOTO, family, "fr", seed=5, source=FOREIGN)
    difference = np.abs(forgery.image.astype(int) - PHOTO).mean(axis=2)
    assert difference[~forgery.mask].mean() > 0.5
    assert difference[forgery.mask].mean() > 2 * difference[~forgery.mask].mean()


def test_what_changed_besides_reencoding_is_the_mask() -> None:
    # The truth of a re-generated image: where it differs from the same photograph re-encoded. The
    # decoder's kernels reach some pixels over the border.
    forgery = forge(PHOTO, "autoencoder", "fr", seed=5, source=FOREIGN)
    plain = forge(PHOTO, "autoencoder", "reencoded", seed=5)
    changed = np.abs(forgery.image.astype(int) - plain.image).mean(axis=2)
    near = cv2.dilate(forgery.mask.astype(np.uint8), np.ones((33, 33))).astype(bool)
    assert changed[forgery.mask].mean() > 8
    assert changed[~near].mean() < 1


@pytest.mark.parametrize("family", LEARNED)
def test_reencoding_is_close_to_the_photograph_and_has_no_mask(family: str) -> None:
    forgery = forge(PHOTO, family, "reencoded", seed=0)
    error = np.mean((forgery.image.astype(float) - PHOTO) ** 2)
    assert 0 < error < 20**2  # a decoder that had lost the picture would be off by its spread, 60
    assert not forgery.mask.any()


def test_a_real_photograph_is_returned_as_it_is() -> None:
    assert np.array_equal(forge(PHOTO, "none", "real", seed=0).image, PHOTO)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("condition", ["clean", "jpeg", "noise"])
def test_same_arguments_same_forgery(family: str, condition: str) -> None:
    options = {"seed": [1, 2], "source": FOREIGN, "condition": condition}
    first, again = (forge(PHOTO, family, "sp", **options) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    other = forge(PHOTO, family, "sp", **(options | {"seed": [1, 3]}))
    assert not np.array_equal(first.mask, other.mask)


def test_classical_inpainting_does_not_look_under_the_mask() -> None:
    for family in CLASSICAL:
        forgery = forge(PHOTO, family, "sp", seed=7)
        hidden = np.where(forgery.mask[..., None], np.uint8(0), PHOTO)
        assert np.array_equal(forge(hidden, family, "sp", seed=7).image, forgery.image), family


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"generator": "telea", "kind": "fr"}, "'telea'"),
        ({"generator": "dalle", "kind": "sp"}, "'dalle'"),
        ({"generator": "telea", "kind": "splice"}, "'splice'"),
        ({"generator": "telea", "kind": "sp", "condition": "fog"}, "'fog'"),
    ],
)
def test_names_that_are_not_known_are_refused(arguments: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        forge(PHOTO, **arguments, seed=0)


def test_sides_must_be_multiples_of_eight() -> None:
    with pytest.raises(InputError, match="multiples of 8"):
        forge(PHOTO[:127], "autoencoder", "sp", seed=0)


@pytest.mark.parametrize("shape", SHAPES)
@given(area=st.floats(*AREA_RANGE), seed=st.integers(0, 2**32))
def test_mask_has_the_wanted_area(shape: str, area: float, seed: int) -> None:
    mask = random_mask(64, 96, area, np.random.default_rng(seed), shape)
    assert mask.shape == (64, 96)
    # Exact up to pixels that tie for the last place.
    assert abs(mask.sum() - round(area * 64 * 96)) <= 2


def test_box_is_a_full_rectangle() -> None:
    mask = random_mask(200, 200, 0.2, np.random.default_rng(3), "box")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    rectangle = len(rows) * len(columns)
    # The bounding box holds nothing else but a part of its last row or column.
    assert mask.sum() > rectangle - 2 * max(len(rows), len(columns))


def test_same_seed_same_mask_and_other_seed_another() -> None:
    first, again, other = (random_mask(64, 64, 0.1, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_area_is_log_uniform() -> None:
    rng = np.random.default_rng(0)
    areas = np.array([log_uniform_area(rng) for _ in range(4000)])
    assert areas.min() >= 0.01
    assert areas.max() <= 0.60
    # Half of a log-uniform sample lies under the geometric mean of its bounds; 4 sigma = 0.032.
    assert abs((areas < np.sqrt(0.01 * 0.60)).mean() - 0.5) < 0.032


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
