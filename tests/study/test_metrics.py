"""Scores, thresholds and detection: hand-counted cases, scikit-learn, exhaustive searches."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from intervals import halls
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    jaccard_score,
    recall_score,
    roc_auc_score,
)

from dinolizer.errors import InputError
from dinolizer.study.metrics import (
    auc,
    detection_table,
    matched_thresholds,
    roc_curves,
    score_image,
    score_mask,
    with_matched,
)

MASKS = arrays(bool, (5, 7))


def test_a_hand_counted_case() -> None:
    truth = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    mask = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
    assert score_mask(mask, truth) == {
        **{"tp": 2, "fp": 1, "fn": 1, "tn": 4},
        **{"iou": 2 / 4, "f1": 4 / 6, "recall": 2 / 3},
        **{"false_positive_rate": 1 / 5, "predicted_area": 3 / 8},
    }


@given(mask=MASKS, truth=MASKS)
def test_iou_and_f1_are_those_of_scikit_learn(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> None:
    found = score_mask(mask, truth)
    assert found["tp"] + found["fp"] + found["fn"] + found["tn"] == mask.size
    if truth.any():
        assert found["iou"] == pytest.approx(jaccard_score(truth.ravel(), mask.ravel()))
        assert found["f1"] == pytest.approx(f1_score(truth.ravel(), mask.ravel()))
        assert found["recall"] == pytest.approx(recall_score(truth.ravel(), mask.ravel()))
    else:
        assert np.isnan([found["iou"], found["f1"], found["recall"]]).all()


@pytest.mark.parametrize("marked", [False, True])
def test_an_authentic_image_has_no_iou_but_a_predicted_area(marked: bool) -> None:
    found = score_mask(np.full((4, 5), marked), np.zeros((4, 5), dtype=bool))
    assert np.isnan([found["iou"], found["f1"]]).all()
    assert found["predicted_area"] == found["false_positive_rate"] == float(marked)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"mask is \(4, 5\) and the truth \(5, 4\) pixels"):
        score_mask(np.zeros((4, 5), dtype=bool), np.zeros((5, 4), dtype=bool))


@given(
    values=arrays(np.float32, (5, 7), elements=st.floats(-2, 2, width=16)),
    truth=MASKS.filter(lambda truth: bool(truth.any() and not truth.all())),
)
def test_scores_equal_those_of_scikit_learn_and_an_exhaustive_search(
    values: NDArray[np.float32], truth: NDArray[np.bool_]
) -> None:
    # Few different values (half precision) so that ties happen.
    found, flat = score_image(values, 0.5, truth), (truth.ravel(), values.ravel())
    assert found["ap"] == pytest.approx(average_precision_score(*flat))
    assert found["auc"] == pytest.approx(roc_auc_score(*flat))
    ious = [score_mask(values >= threshold, truth)["iou"] for threshold in np.unique(values)]
    assert found["best_iou"] == pytest.approx(max(ious))
    assert found["recall"] == recall_score(truth.ravel(), values.ravel() > 0.5)
    assert found["false_positive_rate"] == (values > 0.5)[~truth].mean()


def test_scores_of_an_authentic_image_are_undefined() -> None:
    values, truth = np.random.default_rng(0).random((4, 4)), np.zeros((4, 4), dtype=bool)
    scores = score_image(values, 0.5, truth)
    assert np.isnan([scores[name] for name in ("ap", "auc", "best_iou", "iou", "recall")]).all()
    assert scores["false_positive_rate"] == scores["predicted_area"] == (values > 0.5).mean()
    assert len(scores["inside"]) == 0


def test_without_a_threshold_there_is_no_mask_to_score() -> None:
    values, truth = np.eye(4), np.eye(4) > 0
    scores = score_image(values, np.nan, truth)
    assert np.isnan([scores[name] for name in ("iou", "f1", "recall", "predicted_area")]).all()
    assert scores["ap"] == 1


def test_the_score_of_an_image_is_the_99th_percentile() -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    scores = score_image(values, 9899.5, np.zeros((100, 100), dtype=bool))
    assert scores["score"] == pytest.approx(9899.01)
    assert scores["predicted_area"] == 0.01


SIDE = 40
RAMP = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


def ramp_rows(groups: str = "ab") -> pd.DataFrame:
    """Of each photograph one image unedited, and one whose lower tenth is edited; the map of all is
    a ramp, so that its rates can be counted."""
    edited = np.arange(SIDE)[:, None].repeat(SIDE, 1) >= SIDE - 4
    rows = [
        {"method": "ramp", "kind": kind, "group": group, **score_image(RAMP, 0.5, truth)}
        for group in groups
        for kind, truth in (("real", np.zeros_like(edited)), ("sp", edited))
    ]
    return pd.DataFrame(rows)


def test_rates_are_those_of_unedited_photographs() -> None:
    """Over its 95 % quantile the ramp has its last twentieth: one half of the edit, all edited."""
    rows = with_matched(ramp_rows()).query("kind == 'sp'")
    assert rows["group"].tolist() == ["a", "b"]
    np.testing.assert_allclose(rows["recall_at_5"], 0.5, atol=0.01)
    np.testing.assert_allclose(rows["iou_at_5"], 0.5, atol=0.01)
    np.testing.assert_allclose(rows["iou_at_1"], 0.1, atol=0.01)
    assert rows["auc"].tolist() == [1, 1]  # all of the edit is over all of the rest
    assert roc_curves(rows)["true"].tolist() == [1] * 41


def test_what_quantiles_say_of_a_threshold_is_what_its_mask_does() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((90, 110), bool)
    truth[20:60, 30:70] = True
    maps = {group: rng.normal(size=truth.shape) + truth for group in "ab"}
    empty = np.zeros_like(truth)
    rows = [
        {"method": "m", "group": group, "kind": kind, **score_image(of, 0.5, true)}
        for group, of in maps.items()
        for kind, true in (("sp", truth), ("real", empty))
    ]
    first = with_matched(pd.DataFrame(rows)).iloc[0]
    threshold = np.quantile(maps["b"], 0.95)
    exact = score_mask(maps["a"] > threshold, truth)
    assert first["iou_at_5"] == pytest.approx(exact["iou"], abs=0.01)
    assert first["recall_at_5"] == pytest.approx(exact["recall"], abs=0.01)


def test_without_other_photographs_there_is_no_threshold() -> None:
    rows = with_matched(ramp_rows("a"))
    assert rows[["iou_at_1", "recall_at_1", "iou_at_5", "recall_at_5"]].isna().all(axis=None)
    assert rows["auc"].tolist()[1] == 1


def test_a_matched_threshold_never_saw_its_photo() -> None:
    """Values of photo a lie from 0 to 1, those of b from 2 to 3; re-encoded ones do not count."""
    values = {"a": RAMP, "b": RAMP + 2, "c": RAMP + 9}
    kinds = {"a": "real", "b": "real", "c": "reencoded"}
    truth = np.zeros((SIDE, SIDE), bool)
    rows = [
        {"group": group, "kind": kinds[group], **score_image(of, 0.5, truth)}
        for group, of in values.items()
    ]
    found = matched_thresholds(pd.DataFrame(rows), "cab", 0.1)
    assert list(found) == ["a", "b", "c"]  # whatever order a set has in this process
    assert found["a"] == pytest.approx(2.9, abs=0.01)
    assert found["b"] == pytest.approx(0.9, abs=0.01)
    assert found["c"] == pytest.approx(2.8, abs=0.01)  # a tenth of both is the last fifth of b's


# Of three photographs an edited image and the photograph; of the first a re-encoded one, too.
KINDS = ["sp", "real", "fr", "real", "sp", "real", "reencoded"]
GROUPS = ["a", "a", "b", "b", "c", "c", "a"]
SCORES = [0.9, 0.2, 0.8, 0.3, 0.25, 0.1, 0.85]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"method": "m", "kind": KINDS, "group": GROUPS, "score": SCORES})


def test_a_line_for_each_sort_of_images_without_an_edit(rows: pd.DataFrame) -> None:
    table = detection_table(rows).set_index("unedited")
    assert table["n_edited"].tolist() == [3, 3, 3]
    assert table["n_unedited"].to_dict() == {"real": 3, "reencoded": 1, "both": 4}
    # Edited 0.9, 0.8, 0.25 over real 0.2, 0.3, 0.1: 8 of 9 pairs; over 0.85: 1 of 3.
    assert table["auc"].to_dict() == pytest.approx(
        {"real": 8 / 9, "reencoded": 1 / 3, "both": 9 / 12}
    )


def test_the_threshold_of_a_photograph_is_best_on_the_others(rows: pd.DataFrame) -> None:
    # Without the re-encoded image. Best for a, on 0.8, 0.25 edited and 0.3, 0.1 not, is 0.8: both
    # are right. For b, on 0.9, 0.25 and 0.2, 0.1, it is 0.25: 0.3 is over it. For c, on 0.9, 0.8
    # and 0.2, 0.3, it is 0.8: 0.25 is missed.
    table = detection_table(rows).set_index("unedited")
    assert table["balanced_accuracy"]["real"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_without_other_photographs_there_is_no_accuracy(rows: pd.DataFrame) -> None:
    (line,) = detection_table(rows[:2]).query("unedited == 'real'").to_dict("records")
    names = ("balanced_accuracy", "brier_skill", "auc_low", "auc_high")
    assert np.isnan([line[name] for name in names]).all()


def test_brier_skill_is_that_of_another_optimiser_on_the_other_photographs() -> None:
    """Against a logistic curve that SciPy fits, one photograph left out at a time."""
    rng = np.random.default_rng(0)
    edited, photo = rng.random(120) < 0.7, np.repeat(np.arange(6), 20)
    score = rng.random(120) + 0.8 * edited
    squares = np.zeros(2)
    for one in range(6):
        others, left_out = photo != one, photo == one

        def loss(line: NDArray[Any], kept: NDArray[Any] = others) -> float:
            logits = line[0] + line[1] * score[kept]
            return float(np.logaddexp(0, np.where(edited[kept], -logits, logits)).sum())

        offset, slope = minimize(loss, [0, 0]).x
        probability = 1 / (1 + np.exp(-offset - slope * score[left_out]))
        for number, said in enumerate((probability, edited[others].mean())):
            squares[number] += ((said - edited[left_out]) ** 2).sum()
    kind = np.where(edited, "sp", "real")
    rows = pd.DataFrame({"method": "m", "kind": kind, "group": photo.astype(str), "score": score})
    skill = detection_table(rows).set_index("unedited").loc["both", "brier_skill"]
    assert skill == pytest.approx(1 - squares[0] / squares[1], abs=1e-3) and 0.1 < skill < 0.9


def test_the_interval_is_that_of_the_areas_without_one_photograph() -> None:
    rng = np.random.default_rng(0)
    edited, photo = rng.random(80) < 0.6, rng.integers(8, size=80)
    scores = np.round(rng.random(80) + 0.3 * edited, 1)  # with ties
    area = roc_auc_score(edited, scores)
    others = [photo != each for each in range(8)]
    left_out = np.array([roc_auc_score(edited[kept], scores[kept]) for kept in others])
    # Of pseudo-values around their mean, moved to the area itself.
    pseudo = 8 * area - 7 * left_out
    expected = np.array(halls(pseudo)) - pseudo.mean() + area
    assert auc(scores, edited, photo) == pytest.approx((area, *expected))


def test_nothing_without_an_edit_gives_no_line(rows: pd.DataFrame) -> None:
    assert detection_table(rows[rows["kind"].isin(["sp", "fr"])]).empty
