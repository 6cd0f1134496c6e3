"""Figures show what their tables hold."""

import numpy as np
import pandas as pd
import pytest

from dinolizer.study.diagrams import (
    LEAST,
    confusion_matrices,
    difference_intervals,
    not_run,
    policy_examples,
    policy_panels,
    reliability_curves,
)
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.plots import WIDTH, style

NOTE = "profile: pocket; n = 84 images, 7 photos"
POLICIES = ("pristine", "fake", "three-class")


@pytest.fixture(autouse=True)
def _style() -> None:
    style()


def test_differences_have_a_panel_for_each_other_method_and_a_dot_for_each_line() -> None:
    table = pd.DataFrame(
        [
            {"other": other, "family": family, "kind": kind, "difference": number / 10}
            | {"low": number / 10 - 0.1, "high": 0.9, "low_corrected": -0.2, "high_corrected": 1}
            | {"significant_corrected": number > 1}
            for other in ("one", "two", "three", "four", "five")
            for number, (family, kind) in enumerate([("x", "sp"), ("y", "fr"), ("all", "all")])
        ]
    )
    figure = difference_intervals(table, NOTE)
    assert [axes.get_title() for axes in figure.axes if axes.has_data()] == [
        f"to {other}" for other in ("one", "two", "three", "four", "five")
    ]
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["x, sp", "y, fr", "all"]
    held, open_ = first.lines[1:]
    assert np.asarray(held.get_xdata()).tolist() == [0.2]
    assert np.asarray(open_.get_xdata()).tolist() == [0, 0.1]
    assert figure.get_figwidth() == WIDTH


def test_policies_are_drawn_by_sort_and_recall_is_left_out() -> None:
    sorts = [("sp", True), ("fr", False)]
    iou = pd.DataFrame(
        [
            {"method": method, "kind": kind, "seen": seen, "iou": 0.5, "iou_low": 0.4}
            | {"iou_high": 0.6}
            for method in POLICIES
            for kind, seen in [*sorts, ("all", "all")]
        ]
    )
    marked = pd.DataFrame(
        [
            {"method": method, "kind": kind, "seen": seen, "pixels": pixels}
            | {"share": share, "low": 0.1, "high": 0.9}
            for method in POLICIES
            for kind, seen in sorts
            for pixels, share in ((CLASS_NAMES[1], 0.3), (CLASS_NAMES[2], 0.8))
        ]
    )
    left, right = policy_panels(iou, marked, NOTE).axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["sp", "fr*", "all"]
    assert len(left.lines) == len(right.lines) == 3
    assert {value for line in right.lines for value in np.asarray(line.get_ydata())} == {0.3}


def test_confusions_are_written_into_their_cells() -> None:
    shares = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.5, 0.5]])
    table = pd.DataFrame(
        [
            {"seen": seen, "truth": truth, "called": called, "share": shares[row, column]}
            | {"low": 0.0, "high": 1.0}
            for seen in (True, False)
            for row, truth in enumerate(CLASS_NAMES)
            for column, called in enumerate(CLASS_NAMES)
            if seen or truth != CLASS_NAMES[1]  # no image of the held-out generator is re-encoded
        ]
    )
    first, second, _ = confusion_matrices(table, NOTE).axes
    np.testing.assert_array_equal(first.images[0].get_array(), shares)
    np.testing.assert_array_equal(second.images[0].get_array(), shares[[0, 2]])
    assert [text.get_text().split("\n")[0] for text in first.texts[:3]] == ["0.70", "0.20", "0.10"]


def test_bins_of_few_cases_are_not_drawn_as_points_of_the_curve() -> None:
    points = pd.DataFrame({"predicted": [0.1, 0.5, 0.9], "observed": [0.2, 0.4, 0.8]})
    points = points.assign(low=0.1, high=0.9, n=[LEAST, LEAST - 1, 81])
    left, right = reliability_curves({"head": points}, NOTE, what="pixels").axes
    _, curve = left.lines
    assert np.asarray(curve.get_ydata()).tolist() == [0.2, 0.8]
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), points["n"] / 90)


def test_examples_show_every_policy_on_one_scale() -> None:
    maps = {name: np.full((30, 40), 0.2) for name in POLICIES}
    maps["fake"][:10] = 0.9
    image, truth = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    figure = policy_examples([image] * 2, [truth] * 2, [maps] * 2, ["first", "second"], NOTE)
    panels = figure.axes[:10]
    assert [axes.get_title() for axes in panels[:5]] == ["image", "truth", *POLICIES]
    assert all(axes.images[0].get_clim() == (0, 1) for axes in panels[2:5])


def test_what_was_not_run_says_why() -> None:
    texts = [text.get_text() for text in not_run("no image without an edit", NOTE).texts]
    assert "not run: no image without an edit" in texts
