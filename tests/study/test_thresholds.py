"""The choice of a threshold against an exhaustive search and cases made by hand."""

import numpy as np
import pytest

from dinolizer.errors import InputError
from dinolizer.study.metrics import counts
from dinolizer.study.thresholds import choose_threshold, cross_fit_thresholds


def test_the_threshold_is_the_best_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    truths = list(rng.random((4, 8, 9)) > 0.7)
    maps = [rng.random((8, 9)) + 0.4 * truth for truth in truths]

    def macro_iou(threshold: float) -> float:
        pairs = zip(maps, truths, strict=True)
        return float(np.mean([counts(values > threshold, truth).iou for values, truth in pairs]))

    best = max(macro_iou(threshold) for threshold in np.ravel(maps))
    # As many candidates as there are values: the quantiles come close to every one of them.
    assert macro_iou(choose_threshold(maps, truths, candidates=4000)) == pytest.approx(best)


def test_a_cross_fitted_threshold_never_saw_its_photo() -> None:
    # Photo a asks for a low threshold and photo b for a high one: each gets the other's.
    truth = np.arange(100).reshape(10, 10) >= 80
    low, high = np.where(truth, 0.2, 0.1), np.where(truth, 0.9, 0.6)
    found = cross_fit_thresholds([low, low, high], [truth] * 3, ["a", "a", "b"])
    assert 0.1 <= found["b"] < 0.2
    assert 0.6 <= found["a"] < 0.9
    with pytest.raises(InputError, match="two photographs or more, but all are of 'a'"):
        cross_fit_thresholds([low, low], [truth] * 2, ["a", "a"])


def test_a_threshold_needs_forged_images() -> None:
    empty = np.zeros((3, 3), dtype=bool)
    for maps, truths in (([], []), ([np.ones((3, 3))], [empty])):
        with pytest.raises(InputError, match="chosen on forged images"):
            choose_threshold(maps, truths)
