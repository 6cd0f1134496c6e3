import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinolizer.pocket.masks import AREA_RANGE, SHAPES, log_uniform_area, random_mask


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
