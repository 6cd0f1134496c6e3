"""Figures of costs show what their tables hold, and no label lies on another."""

import numpy as np
import pandas as pd
import pytest
from figures import overlapping

from dinolizer.study.cost_plots import BESIDE, mode_panels, roofline, time_panels
from dinolizer.study.experiments.cost import limits, line_fit
from dinolizer.study.machine import Demand
from dinolizer.study.plots import style

NOTE = "profile: pocket; cpu, threads: 2; rounds: 3"


@pytest.fixture(autouse=True)
def _style() -> None:
    style()


def test_points_line_and_stages_are_drawn_where_the_tables_say() -> None:
    points = pd.DataFrame({"megapixels": [0.2, 0.5, 1.0], "seconds": [0.7, 2.2, 4.6]})
    stages = pd.DataFrame(
        {"stage": ["read", "backbone"], "seconds": [0.01, 1.0], "share": [0.0099, 0.9901]}
    )
    fitted = line_fit(points)
    figure = time_panels(points, fitted, stages, NOTE)
    left, right = figure.axes
    drawn, line = left.lines
    np.testing.assert_array_equal(drawn.get_xydata(), points)
    slope = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    assert slope.item() == pytest.approx(fitted["seconds_per_megapixel"].item())
    np.testing.assert_allclose(right.lines[0].get_xdata(), [10, 1000])
    assert [text.get_text() for text in right.texts] == ["1.0%", "99.0%"]
    assert overlapping(figure) == []


def test_the_backbone_lies_under_the_roof() -> None:
    asked = Demand(flops=2 * 10**9, least_bytes=10**7, most_bytes=10**8)
    figure = roofline(limits(asked, peak=8e10, bandwidth=1e10, seconds=0.1), NOTE)
    roof, reached = figure.axes[0].lines
    assert np.max(roof.get_ydata()) == 80
    at = np.interp(1.0, roof.get_xdata(), roof.get_ydata())  # an operation for each byte
    assert at == pytest.approx(10, rel=0.01)
    np.testing.assert_allclose(reached.get_xydata(), [[20, 20], [200, 20]])
    assert overlapping(figure) == []


def test_every_mode_is_drawn_with_both_intervals() -> None:
    table = pd.DataFrame(
        [
            {
                "mode": mode,
                "tokens": tokens,
                "iou": iou,
                "iou_low": iou - 0.1,
                "iou_high": iou + 0.1,
            }
            | {"iou_change": iou - 0.4, "iou_change_low": iou - 0.41, "iou_change_high": iou - 0.39}
            for mode, tokens, iou in (("exact", 1024, 0.4), ("half", 1024, 0.4), ("few", 256, 0.37))
        ]
    )
    figure = mode_panels(table, 0.005, NOTE)
    left, right = figure.axes
    dots = [line.get_xydata()[0].tolist() for line in left.lines if line.get_marker() != "None"]
    assert dots == [[1024, 0.4], [1024 * BESIDE, 0.4], [256, 0.37]]
    ends = [line.get_ydata() for line in right.lines[:6:2]]
    np.testing.assert_allclose(ends, table[["iou_change_low", "iou_change_high"]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact", "half", "few"]
    assert overlapping(figure) == []
