"""Scores and thresholds against hand-counted cases, scikit-learn and exhaustive searches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from dinolizer.errors import InputError
from dinolizer.study import metrics
from dinolizer.study.metrics import (
    Counts,
    counts,
    left_out_thresholds,
    ranking_scores,
    score_image,
)

MASKS = arrays(bool, (5, 7))


def test_a_hand_counted_case() -> None:
    truth = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    mask = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
    found = counts(mask, truth)
    assert found == Counts(tp=2, fp=1, fn=1, tn=4)
    assert found.iou == 2 / 4
    assert found.f1 == 4 / 6
    assert found.predicted_area == 3 / 8


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
def test_an_authentic_image_has_no_iou_but_a_predicted_area(marked: bool) -> None:
    found = counts(np.full((4, 5), marked), np.zeros((4, 5), dtype=bool))
    assert np.isnan([found.iou, found.f1]).all()
    assert found.predicted_area == float(marked)


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


def test_the_score_of_an_image_is_the_99th_percentile() -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    scores = score_image(values, 9899.5, np.zeros((100, 100), dtype=bool))
    assert scores["score"] == pytest.approx(9899.01)
    assert scores["predicted_area"] == 0.01


def test_the_threshold_is_the_best_of_an_exhaustive_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    truths = list(rng.random((4, 8, 9)) > 0.7)
    maps = [rng.random((8, 9)) + 0.4 * truth for truth in truths]

    def macro_iou(threshold: float) -> float:
        pairs = zip(maps, truths, strict=True)
        return float(np.mean([counts(values > threshold, truth).iou for values, truth in pairs]))

    best = max(macro_iou(threshold) for threshold in np.ravel(maps))
    # As many candidates as there are values: the quantiles come close to every one of them.
    monkeypatch.setattr(metrics, "CANDIDATES", 4000)
    found = left_out_thresholds(maps, truths, "aabb", "c")["c"]  # none is of photo c
    assert macro_iou(found) == pytest.approx(best)


def test_a_left_out_threshold_never_saw_its_photo() -> None:
    # Photo a asks for a low threshold and photo b for a high one: each gets the other's.
    truth = np.arange(100).reshape(10, 10) >= 80
    low, high = np.where(truth, 0.2, 0.1), np.where(truth, 0.9, 0.6)
    found = left_out_thresholds([low, low, high], [truth] * 3, ["a", "a", "b"], "abc")
    assert 0.1 <= found["b"] < 0.2
    assert 0.6 <= found["a"] < 0.9
    assert 0.1 <= found["c"] < 0.2  # best for two of three images


def test_a_threshold_needs_forged_images() -> None:
    empty = np.zeros((3, 3), dtype=bool)
    for maps, truths in (([], []), ([np.ones((3, 3))], [empty])):
        with pytest.raises(InputError, match="chosen on forged images"):
            left_out_thresholds(maps, truths, "a" * len(maps), "b")
