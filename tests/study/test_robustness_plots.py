"""The figures of the robustness study show what their tables hold, and can be read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figures import overlapping, with_interval
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.study.evaluation import step_columns
from dinolizer.study.experiments import robustness
from dinolizer.study.plots import WIDTH, style
from dinolizer.study.robustness_plots import chain_curves, quality_heatmap, robustness_curves

METHODS = ["localizer", "noise inconsistency", "error level analysis", "residual features"]
NOTE = "profile: pocket; n = 84 images, 7 photos; 95 % bootstrap intervals over photos"


@pytest.fixture(autouse=True)
def _style() -> None:
    style()


@pytest.fixture
def table() -> pd.DataFrame:
    cases = [robustness.CLEAN, *robustness.SINGLE, *robustness.CHAINS]
    ious = iter(np.linspace(0.2, 0.9, len(METHODS) * len(cases)))
    return pd.DataFrame(
        [
            {"method": method} | step_columns(case) | with_interval(next(ious))
            for method in METHODS
            for case in cases
        ]
    )


@pytest.fixture
def qualities() -> pd.DataFrame:
    firsts = ["none", *map(str, robustness.QUALITIES)]
    pairs = [(first, second) for first in firsts for second in robustness.QUALITIES]
    ious = np.linspace(0.1, 0.9, len(pairs))
    return pd.DataFrame(
        [
            {"first": first, "second": second} | with_interval(iou)
            for (first, second), iou in zip(pairs, ious, strict=True)
        ]
    )


def test_curves_go_through_the_table_and_begin_undegraded(table: pd.DataFrame) -> None:
    figure = robustness_curves(table, NOTE)
    assert [axes.get_xlabel() for axes in figure.axes] == [d.label for d in DEGRADATIONS.values()]
    single = table[table["before"] == "none"]
    for axes, name in zip(figure.axes, DEGRADATIONS, strict=True):
        labels = [label.get_text() for label in axes.get_xticklabels()]
        levels = [f"{level:g}" for level in DEGRADATIONS[name].levels]
        assert sorted(labels) == sorted([*levels, "none"])
        for line, method in zip(axes.lines, METHODS, strict=True):
            own = single[single["method"] == method].set_index("degradation")
            drawn = dict(zip(labels, np.asarray(line.get_ydata()), strict=True))
            assert drawn["none"] == own.loc["none", "iou"]
            assert [drawn[level] for level in levels] == np.atleast_1d(
                own.loc[name, "iou"]
            ).tolist()


def test_one_degradation_gets_one_panel(table: pd.DataFrame) -> None:
    only = table[table["degradation"].isin(["none", "noise"])]
    (axes,) = robustness_curves(only, NOTE).axes
    assert axes.get_xlabel() == DEGRADATIONS["noise"].label


def test_a_chain_ends_at_its_first_step_alone_beside_jpeg_alone(table: pd.DataFrame) -> None:
    figure = chain_curves(table, NOTE)
    assert len(figure.axes) == len(robustness.FIRST)
    cleared = robustness.rows_of(table, robustness.CLEAN)["iou"].tolist()
    for axes, step in zip(figure.axes, robustness.FIRST, strict=True):
        *chains, alone = (np.asarray(line.get_ydata()).tolist() for line in axes.lines)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["60", "90", "no JPEG"]
        assert alone[-1] == cleared[0]
        assert len(alone) == 6  # 60, 70, 80, 90, 100 and none
        cases: list[robustness.Case] = [(step, ("jpeg", 60)), (step, ("jpeg", 90)), (step,)]
        columns = [robustness.rows_of(table, case)["iou"].tolist() for case in cases]
        assert chains == [list(values) for values in zip(*columns, strict=True)]


def test_the_heat_map_names_every_pair_with_its_interval(qualities: pd.DataFrame) -> None:
    axes = quality_heatmap(qualities, NOTE).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == [
        f"{line['iou']:.2f}\n{line['iou_low']:.2f} to {line['iou_high']:.2f}"
        for line in qualities.to_dict("records")
    ]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["none", "50"]
    colours = np.asarray(axes.collections[0].get_array()).ravel()
    np.testing.assert_allclose(colours, qualities["iou"])


def test_letters_and_cells_contrast(qualities: pd.DataFrame) -> None:
    """By WCAG 2: 4.5 to 1, from the definition of relative luminance."""

    def luminance(colour: Any) -> float:
        channels = np.array(to_rgb(colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    figure = quality_heatmap(qualities, NOTE)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text, cell in zip(axes.texts, axes.collections[0].get_facecolor(), strict=True):
        darker, lighter = sorted([luminance(text.get_color()), luminance(cell)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_methods_differ_in_more_than_colour(table: pd.DataFrame) -> None:
    lines = robustness_curves(table, NOTE).axes[0].lines
    assert len({str(line.get_marker()) for line in lines}) == len(METHODS)
    assert len({str(line.get_linestyle()) for line in lines}) == len(METHODS)


@pytest.mark.parametrize("draw", [robustness_curves, chain_curves])
def test_curves_fit_a_page_and_no_label_covers_another(
    draw: Callable[[pd.DataFrame, str], Figure], table: pd.DataFrame
) -> None:
    figure = draw(table, NOTE)
    assert figure.get_figwidth() == WIDTH
    assert figure.get_supxlabel() == NOTE
    assert overlapping(figure) == []
    assert plt.get_fignums() == []
