"""Reliability and its error against scikit-learn and by hand; calibrations that never met a row."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from dinolizer.study.calibration import (
    BINS,
    CALIBRATIONS,
    bin_numbers,
    calibrate,
    calibration_error,
    folds,
    reliability,
)


def drawn(count: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    said = rng.random(count) ** 2
    return rng.random(count) < said**0.5, said, rng.integers(6, size=count).astype(str)


def test_the_curve_is_that_of_scikit_learn() -> None:
    happened, said, groups = drawn()
    points = reliability(happened, said, groups)
    observed, predicted = calibration_curve(happened, said, n_bins=BINS)
    np.testing.assert_allclose(points[["observed", "predicted"]], np.stack([observed, predicted]).T)
    edges = np.linspace(0, 1, BINS + 1)
    assert points["n"].tolist() == np.histogram(said, edges)[0].tolist()
    assert (points["low"] <= points["observed"]).all()
    assert (points["observed"] <= points["high"]).all()


def test_the_error_by_hand() -> None:
    # Bins 0.1 (one of two happened: gap 0.4) and 0.9 (one of one: gap 0.1).
    error = calibration_error([False, True, True], [0.1, 0.1, 0.9], ["a", "b", "b"])
    assert error.value == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.1)
    # Photo a alone: |0 - 0.1|; b alone: (|1 - 0.1| + |1 - 0.9|) / 2.
    assert error.low == pytest.approx(0.1)
    assert error.high == pytest.approx(0.5)


def test_the_error_is_the_weighted_distance_of_the_curve_from_the_diagonal() -> None:
    happened, said, groups = drawn()
    observed, predicted = calibration_curve(happened, said, n_bins=BINS)
    sizes = np.bincount(bin_numbers(said), minlength=BINS)
    expected = np.average(np.abs(observed - predicted), weights=sizes[sizes > 0])
    error = calibration_error(happened, said, groups)
    assert error.value == pytest.approx(expected)
    assert error.low < error.value < error.high


def test_of_one_photograph_there_is_an_error_but_no_interval() -> None:
    error = calibration_error([True], [0.75], ["a"])
    assert error.value == 0.25
    assert np.isnan([error.low, error.high]).all()


@pytest.mark.parametrize("how", CALIBRATIONS)
def test_calibration_repairs_scores_in_any_unit(how: str) -> None:
    happened, said, groups = drawn(3000)
    scores = 40 * said - 7
    found = calibrate(scores, happened, groups, how)
    assert ((found >= 0) & (found <= 1)).all()
    error = calibration_error(happened, found, groups).value
    assert error < 0.5 * calibration_error(happened, said, groups).value


@pytest.mark.parametrize("how", CALIBRATIONS)
def test_a_photograph_has_no_part_in_its_own_calibration(how: str) -> None:
    happened, said, groups = drawn()
    own = groups == "3"
    first = calibrate(said, happened, groups, how)
    other = calibrate(said, np.where(own, ~happened, happened), groups, how)
    np.testing.assert_array_equal(first[own], other[own])
    assert not np.allclose(first[~own], other[~own])


def test_without_both_sorts_among_the_others_there_is_no_probability() -> None:
    found = calibrate([0.1, 0.9, 0.5], [False, True, True], ["a", "b", "b"], "platt")
    assert np.isnan(found).all()  # to a the others are all true, to b all false
    assert folds(["a", "a"]) == []
