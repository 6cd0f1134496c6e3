"""Image-level detection, reliability and its repair by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from dinolizer.study.metrics import (
    BINS,
    CALIBRATIONS,
    auc,
    bin_numbers,
    calibrate,
    calibration_error,
    detection_table,
    reliability,
    reliability_curves,
)

# Of three photographs an edited image and the photograph; of the first a re-encoded one, too.
KINDS = ["sp", "real", "fr", "real", "sp", "real", "reencoded"]
GROUPS = ["a", "a", "b", "b", "c", "c", "a"]
SCORES = [0.9, 0.2, 0.8, 0.3, 0.25, 0.1, 0.85]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"method": "m", "kind": KINDS, "group": GROUPS, "score": SCORES})


def test_a_line_for_each_sort_of_images_without_an_edit(rows: pd.DataFrame) -> None:
    table = detection_table(rows, ["m"]).set_index("unedited")
    assert table["n_edited"].tolist() == [3, 3, 3]
    assert table["n_unedited"].to_dict() == {"real": 3, "reencoded": 1, "both": 4}
    # Edited 0.9, 0.8, 0.25 over real 0.2, 0.3, 0.1: 8 of 9 pairs; over 0.85: 1 of 3.
    assert table["auc"].to_dict() == pytest.approx(
        {"real": 8 / 9, "reencoded": 1 / 3, "both": 9 / 12}
    )
    assert table["ece"].notna().all()
    assert detection_table(rows, [])["ece"].isna().all()


def test_the_threshold_of_a_photograph_is_best_on_the_others(rows: pd.DataFrame) -> None:
    # Without the re-encoded image. Best for a, on 0.8, 0.25 edited and 0.3, 0.1 not, is 0.8: both
    # are right. For b, on 0.9, 0.25 and 0.2, 0.1, it is 0.25: 0.3 is over it. For c, on 0.9, 0.8
    # and 0.2, 0.3, it is 0.8: 0.25 is missed.
    table = detection_table(rows, ["m"]).set_index("unedited")
    assert table["balanced_accuracy"]["real"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_without_other_photographs_there_is_no_accuracy(rows: pd.DataFrame) -> None:
    (line,) = detection_table(rows[:2], ["m"]).query("unedited == 'real'").to_dict("records")
    assert np.isnan([line[name] for name in ("balanced_accuracy", "auc_low", "auc_high")]).all()


def test_the_interval_is_that_of_the_areas_without_one_photograph() -> None:
    rng = np.random.default_rng(0)
    edited, photo = rng.random(80) < 0.6, rng.integers(8, size=80)
    scores = np.round(rng.random(80) + 0.3 * edited, 1)  # with ties
    area = roc_auc_score(edited, scores)
    others = [photo != each for each in range(8)]
    left_out = np.array([roc_auc_score(edited[kept], scores[kept]) for kept in others])
    # Of pseudo-values around their mean: a jackknife's t interval, moved to the area itself.
    half = np.ptp(ttest_1samp(8 * area - 7 * left_out, 0).confidence_interval()) / 2
    assert auc(scores, edited, photo) == pytest.approx((area, area - half, area + half))


def test_nothing_without_an_edit_gives_no_line(rows: pd.DataFrame) -> None:
    assert detection_table(rows[rows["kind"].isin(["sp", "fr"])], []).empty


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
    error = calibration_error([False, True, True], [0.1, 0.1, 0.9], ["a", "b", "c"])
    assert error[0] == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.1)
    # Without a: (|1 - 0.1| + |1 - 0.9|) / 2 = 0.5; b: (0.1 + 0.1) / 2; c: |1 - 0.2| / 2 = 0.4.
    half = np.ptp(ttest_1samp(-2 * np.array([0.5, 0.1, 0.4]), 0).confidence_interval()) / 2
    assert half > 1  # both ends are cut
    assert error[1:] == (0, 1)


def test_the_error_is_the_weighted_distance_of_the_curve_from_the_diagonal() -> None:
    happened, said, groups = drawn()
    observed, predicted = calibration_curve(happened, said, n_bins=BINS)
    sizes = np.bincount(bin_numbers(said), minlength=BINS)
    expected = np.average(np.abs(observed - predicted), weights=sizes[sizes > 0])
    error = calibration_error(happened, said, groups)
    assert error[0] == pytest.approx(expected)
    assert error[1] < error[0] < error[2]


def test_of_one_photograph_there_is_an_error_but_no_interval() -> None:
    error = calibration_error([True], [0.75], ["a"])
    assert error[0] == 0.25
    assert np.isnan(error[1:]).all()


@pytest.mark.parametrize("how", CALIBRATIONS)
def test_calibration_repairs_scores_in_any_unit(how: str) -> None:
    happened, said, groups = drawn(3000)
    scores = 40 * said - 7
    found = calibrate(scores, happened, groups, how)
    assert ((found >= 0) & (found <= 1)).all()
    error = calibration_error(happened, found, groups)[0]
    assert error < 0.5 * calibration_error(happened, said, groups)[0]


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
    assert np.isnan(calibrate([0.1, 0.9], [False, True], ["a", "a"], "platt")).all()


def test_curves_of_the_score_as_it_is_and_calibrated(rows: pd.DataFrame) -> None:
    curves = reliability_curves(rows, "m")
    assert list(curves) == ["score as it is", *CALIBRATIONS]
    assert curves["score as it is"]["n"].sum() == len(rows)
    expected = reliability(rows["kind"].isin(["sp", "fr"]), rows["score"], rows["group"])
    pd.testing.assert_frame_equal(curves["score as it is"], expected)
    assert reliability_curves(rows[rows["kind"] == "real"], "m") == {}
