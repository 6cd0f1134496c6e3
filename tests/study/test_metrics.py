"""Scores against hand-counted cases and scikit-learn, intervals against scipy and known cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from dinolizer.errors import InputError
from dinolizer.study.metrics import (
    Counts,
    bootstrap_interval,
    counts,
    image_scores,
    ranking_scores,
)

MASKS = arrays(bool, (5, 7))


def test_a_hand_counted_case() -> None:
    truth = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    mask = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
    found = counts(mask, truth)
    assert found == Counts(tp=2, fp=1, fn=1, tn=4)
    assert found.iou == 2 / 4
    assert found.f1 == 4 / 6
    assert found.marked == 3 / 8


@given(mask=MASKS, truth=MASKS)
def test_iou_and_f1_are_those_of_scikit_learn(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> None:
    found = counts(mask, truth)
    assert found.tp + found.fp + found.fn + found.tn == mask.size
    if truth.any():
        assert found.iou == pytest.approx(jaccard_score(truth.ravel(), mask.ravel()))
        assert found.f1 == pytest.approx(f1_score(truth.ravel(), mask.ravel()))
    else:
        assert np.isnan(found.iou)
        assert np.isnan(found.f1)


@pytest.mark.parametrize("marked", [False, True])
def test_an_authentic_image_has_no_iou_but_a_marked_share(marked: bool) -> None:
    found = counts(np.full((4, 5), marked), np.zeros((4, 5), dtype=bool))
    assert np.isnan([found.iou, found.f1]).all()
    assert found.marked == float(marked)


def test_pooled_counts_are_the_counts_of_all_pixels_together() -> None:
    rng = np.random.default_rng(0)
    masks, truths = rng.random((2, 3, 6, 5)) > 0.6
    pooled = sum((counts(*pair) for pair in zip(masks, truths, strict=True)), Counts(0, 0, 0, 0))
    assert pooled.iou == pytest.approx(jaccard_score(truths.ravel(), masks.ravel()))


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="mask is 4 x 5 and the truth 5 x 4 pixels"):
        counts(np.zeros((4, 5), dtype=bool), np.zeros((5, 4), dtype=bool))


@given(
    values=arrays(np.float32, (5, 7), elements=st.floats(-2, 2, width=16)),
    truth=MASKS.filter(lambda truth: bool(truth.any())),
)
def test_threshold_free_scores_equal_an_exhaustive_search(
    values: NDArray[np.float32], truth: NDArray[np.bool_]
) -> None:
    # Few different values (half precision) so that ties happen.
    expected = average_precision_score(truth.ravel(), values.ravel())
    precision, best_iou = ranking_scores(values, truth)
    assert precision == pytest.approx(expected)
    ious = [counts(values >= threshold, truth).iou for threshold in np.unique(values)]
    assert best_iou == pytest.approx(max(ious))


def test_threshold_free_scores_of_an_authentic_image_are_undefined() -> None:
    values, truth = np.random.default_rng(0).random((4, 4)), np.zeros((4, 4), dtype=bool)
    assert np.isnan(ranking_scores(values, truth)).all()


def test_image_scores_by_hand() -> None:
    # Of the 2 x 3 pairs (authentic, forged), 5 are in order; 2 of 3 forged and 1 of 2 authentic
    # images are called right.
    scores, forged = [0.1, 0.6, 0.5, 0.7, 0.9], [False, False, True, True, True]
    auc, accuracy = image_scores(scores, forged, np.array(scores) > 0.55)
    assert auc == pytest.approx(5 / 6)
    assert accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert np.isnan(image_scores([0.1, 0.2], [True, True], [True, False])).all()


def test_with_an_image_per_photo_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).gamma(2, size=40)
    found = bootstrap_interval(values, np.arange(40), resamples=20_000)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    # Two independent draws: the ends wander by about 1 % of the interval's width.
    width = np.ptp(expected.confidence_interval)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.04 * width)


def test_the_draws_are_photos_and_weigh_by_their_images() -> None:
    # Photo a has three images of value 0, photo b one of value 1. Of two draws, aa (1/4) gives 0,
    # ab (1/2) gives 1/4, bb (1/4) gives 1: the middle half of the resamples is at 1/4.
    values, groups = [0, 0, 0, 1], ["a", "a", "a", "b"]
    assert bootstrap_interval(values, groups, level=0.4) == (0.25, 0.25)
    assert bootstrap_interval(values, groups, level=0.6) == (0, 1)


def test_copies_of_an_image_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).random(12)
    once = bootstrap_interval(values, np.arange(12))
    copied = bootstrap_interval(np.repeat(values, 9), np.repeat(np.arange(12), 9))
    assert copied == pytest.approx(once)


def test_strata_count_equally_whatever_their_size() -> None:
    # Both photos have nine images of family x with value 0 and one of family y with value 1:
    # every resample's mean over families is 1/2, its mean over images 1/10.
    values = np.tile([0.0] * 9 + [1.0], 2)
    groups, families = np.repeat(["a", "b"], 10), np.tile(["x"] * 9 + ["y"], 2)
    assert bootstrap_interval(values, groups, strata=families) == (0.5, 0.5)
    assert bootstrap_interval(values, groups) == pytest.approx((0.1, 0.1))


def test_a_stratum_that_a_draw_misses_is_left_out() -> None:
    # Family y comes from photo b alone: aa gives 0, ab gives (0 + 1) / 2, bb gives (0 + 1) / 2.
    found = bootstrap_interval([0, 0, 1], ["a", "b", "b"], strata=["x", "x", "y"])
    assert found == (0, 0.5)


def test_unknown_values_are_left_out_of_the_interval() -> None:
    values, groups = np.random.default_rng(3).random(10), np.arange(10)
    with_unknown = np.append(values, [np.nan, np.nan])
    found = bootstrap_interval(with_unknown, np.append(groups, [3, 11]))
    assert found == bootstrap_interval(values, groups)


def test_the_interval_is_seeded() -> None:
    values, groups = np.random.default_rng(4).random(9), np.arange(9)
    assert bootstrap_interval(values, groups, seed=1) == bootstrap_interval(values, groups, seed=1)
    assert bootstrap_interval(values, groups, seed=1) != bootstrap_interval(values, groups, seed=2)


def test_one_photo_tells_nothing_of_others() -> None:
    assert np.isnan(bootstrap_interval([0.1, 0.9], ["a", "a"])).all()
