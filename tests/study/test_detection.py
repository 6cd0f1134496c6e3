"""Image-level detection by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dinolizer.study.detection import auc_interval, cross_fit_accuracy, summarise_detection
from dinolizer.study.metrics import bootstrap_draws

# Of three photographs an edited image and the photograph; of the first a re-encoded one, too.
KINDS = ["sp", "real", "fr", "real", "sp", "real", "reencoded"]
GROUPS = ["a", "a", "b", "b", "c", "c", "a"]
SCORES = [0.9, 0.2, 0.8, 0.3, 0.25, 0.1, 0.85]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"method": "m", "kind": KINDS, "group": GROUPS, "score": SCORES})


def test_a_line_for_each_sort_of_images_without_an_edit(rows: pd.DataFrame) -> None:
    table = summarise_detection(rows, ["m"]).set_index("unedited")
    assert table["n_edited"].tolist() == [3, 3, 3]
    assert table["n_unedited"].to_dict() == {"real": 3, "reencoded": 1, "both": 4}
    # Edited 0.9, 0.8, 0.25 over real 0.2, 0.3, 0.1: 8 of 9 pairs; over 0.85: 1 of 3.
    assert table["auc"].to_dict() == pytest.approx(
        {"real": 8 / 9, "reencoded": 1 / 3, "both": 9 / 12}
    )
    assert table["ece"].notna().all()
    assert summarise_detection(rows, [])["ece"].isna().all()


def test_the_threshold_of_a_photograph_is_best_on_the_others() -> None:
    scores = np.array([0.9, 0.2, 0.8, 0.3, 0.25, 0.1])
    edited = np.array([True, False] * 3)
    # Best for a, on 0.8, 0.25 edited and 0.3, 0.1 not, is 0.8: both are right. For b, on 0.9, 0.25
    # and 0.2, 0.1, it is 0.25: 0.3 is over it. For c, on 0.9, 0.8 and 0.2, 0.3, it is 0.8: 0.25 is
    # missed.
    groups = pd.Series(["a", "a", "b", "b", "c", "c"])
    assert cross_fit_accuracy(scores, edited, groups) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_without_other_photographs_there_is_no_accuracy() -> None:
    scores, edited = np.array([0.9, 0.1]), np.array([True, False])
    assert np.isnan(cross_fit_accuracy(scores, edited, pd.Series(["a", "a"])))
    assert np.isnan(auc_interval(scores, edited, pd.Series(["a", "a"]))).all()


def test_the_interval_is_that_of_weighted_areas() -> None:
    rng = np.random.default_rng(0)
    edited, photo = rng.random(80) < 0.6, rng.integers(8, size=80)
    scores = np.round(rng.random(80) + 0.3 * edited, 1)  # with ties
    (draws,) = bootstrap_draws(8, seed=3, resamples=200)
    areas = [roc_auc_score(edited, scores, sample_weight=draw[photo]) for draw in draws]
    found = auc_interval(scores, edited, pd.Series(photo), seed=3, resamples=200)
    assert found == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_nothing_without_an_edit_gives_no_line(rows: pd.DataFrame) -> None:
    assert summarise_detection(rows[rows["kind"].isin(["sp", "fr"])], []).empty
