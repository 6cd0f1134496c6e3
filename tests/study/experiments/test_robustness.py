"""What is left after degradations, against what is counted by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.study.evaluation import step_columns
from dinolizer.study.experiments import robustness

JPEG: robustness.Case = (("jpeg", 80),)
TWICE: robustness.Case = (("jpeg", 80), ("jpeg", 90))


def rows(case: robustness.Case, scores: dict[str, float], method: str = "own") -> pd.DataFrame:
    """A row for each image, named by its family and its photo, of which a tenth is edited."""
    lines: list[dict[str, Any]] = [
        {"method": method, "image": image, "family": image[0], "group": image[1], "ap": score}
        | {"kind": "sp", "tp": 6, "fp": 20, "fn": 4, "tn": 70, "iou": score}
        | step_columns(case)
        for image, score in scores.items()
    ]
    return pd.DataFrame(lines)


def test_every_level_is_a_case_and_every_claim_is_decided_by_one() -> None:
    assert len(robustness.SINGLE) == sum(len(curve.levels) for curve in DEGRADATIONS.values())
    known = [*robustness.SINGLE, *robustness.CHAINS]
    assert set(robustness.CLAIMED.values()) <= set(known)
    assert {len(case) for case in robustness.CHAINS} == {2}
    # A chain's first step alone is known, too.
    assert {(case[0],) for case in robustness.CHAINS} <= set(robustness.SINGLE)


def test_the_share_that_is_kept_is_of_the_same_images_and_above_chance() -> None:
    clean = rows((), {"xa": 0.5, "xb": 0.9, "ya": 0.6, "yb": 0.8, "xc": 0.2})
    after = rows(JPEG, {"xa": 0.3, "xb": 0.5, "ya": 0.6, "yb": 0.8})
    share, *_ = robustness.share_kept(pd.concat([clean, after]), JPEG)
    # Families, 0.1 being chance: 0.3 and 0.6 of 0.6 and 0.6; the fifth image was not degraded.
    assert share == pytest.approx(0.9 / 1.2)
    marks_all = rows(JPEG, dict.fromkeys(("xa", "xb", "ya", "yb"), 0.1))
    assert robustness.share_kept(pd.concat([clean, marks_all]), JPEG)[0] == pytest.approx(0)


def test_no_share_without_anything_detected_and_no_interval_of_one_photo() -> None:
    nothing = pd.concat([rows((), {"xa": 0.1, "xb": 0.1}), rows(JPEG, {"xa": 0.2, "xb": 0.1})])
    assert np.isnan(robustness.share_kept(nothing, JPEG)).all()
    single = pd.concat([rows((), {"xa": 0.6}), rows(JPEG, {"xa": 0.2})])
    share, low, high = robustness.share_kept(single, JPEG)
    assert share == pytest.approx(0.2)
    assert np.isnan([low, high]).all()


def test_cases_are_told_apart() -> None:
    table = pd.concat([rows(case, {"xa": iou}) for case, iou in (((), 1), (JPEG, 2), (TWICE, 3))])
    for case, iou in (((), 1), (JPEG, 2), (TWICE, 3), (TWICE[1:], None)):
        found = robustness.rows_of(table, case)["iou"].tolist()
        assert found == ([] if iou is None else [iou])


def test_the_lead_grows_by_the_difference_of_two_leads() -> None:
    table = pd.concat(
        [
            rows((), {"xa": 0.8, "xb": 0.8}),
            rows((), {"xa": 0.6, "xb": 0.6}, "other"),
            rows(JPEG, {"xa": 0.5, "xb": 0.6}),
            rows((("noise", 3),), {"xa": 0.7, "xb": 0.8}),
            rows(JPEG, {"xa": 0.1, "xb": 0.1}, "other"),
            rows((("noise", 3),), {"xa": 0.3, "xb": 0.3}, "other"),
            rows(TWICE, {"xa": 0.0, "xb": 0.0}),  # a chain: not counted
        ]
    )
    # Leads of 0.2 before, 0.4 and 0.5 after.
    assert robustness.lead_gained(table, "own")[0] == pytest.approx(0.25)
    # A case that the other has no rows of counts for neither. A third that was not degraded is no
    # rival; and where nobody else was, nothing can be said.
    third = rows((), {"xa": 0.9, "xb": 0.9}, "third")
    some = pd.concat([table, third, rows((("noise", 7),), {"xa": 0.0, "xb": 0.0})])
    assert robustness.lead_gained(some, "own")[0] == pytest.approx(0.25)
    alone = pd.concat([table[table["method"] == "own"], third])
    assert np.isnan(robustness.lead_gained(alone, "own")).all()
