"""Figures show what their tables hold, and can be read: in grey, and with no label on another."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.study.evaluation import ALL_FAMILIES
from dinolizer.study.plots import (
    WIDTH,
    benchmark_bars,
    example_panel,
    mask_area_histogram,
    robustness_curves,
    style,
    training_curve,
)

METHODS = ["localizer", "noise inconsistency", "error level analysis", "residual features"]
NOTE = "profile: pocket; n = 84 images, 7 photos; 95 % bootstrap intervals over photos"
FAMILIES = [
    *((name, "sp", True) for name in ("telea", "navier-stokes", "biharmonic", "autoencoder")),
    *((name, "fr", True) for name in ("autoencoder", "inpainter")),
    ("heldout", "fr", False),
    (ALL_FAMILIES, "all", "all"),
]


@pytest.fixture(autouse=True)
def _style() -> None:
    style()


def with_interval(iou: float) -> dict[str, float]:
    return {"iou": iou, "iou_low": iou - 0.1, "iou_high": iou + 0.05}


@pytest.fixture
def benchmark() -> pd.DataFrame:
    ious = iter(np.linspace(0.2, 0.9, len(METHODS) * len(FAMILIES)))
    return pd.DataFrame(
        [
            {"method": method, "family": family, "kind": kind, "seen": seen}
            | with_interval(next(ious))
            for method in METHODS
            for family, kind, seen in FAMILIES
        ]
    )


@pytest.fixture
def robustness() -> pd.DataFrame:
    levels = [("none", np.nan)]
    levels += [(name, level) for name, row in DEGRADATIONS.items() for level in row.levels]
    ious = iter(np.linspace(0.2, 0.9, len(METHODS) * len(levels)))
    return pd.DataFrame(
        [
            {"method": method, "degradation": name, "level": level} | with_interval(next(ious))
            for method in METHODS
            for name, level in levels
        ]
    )


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, once the figure is laid out."""
    figure.draw_without_rendering()
    placed: list[tuple[str, Bbox]] = []
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        labels += [axes.xaxis.label, axes.yaxis.label, axes.title]
        # A turned label's box is larger than its letters.
        placed += [
            (label.get_text(), label.get_window_extent())
            for label in labels
            if label.get_text() and label.get_visible() and label.get_rotation() in (0, 90)
        ]
    for legend in figure.legends:
        placed += [(text.get_text(), text.get_window_extent()) for text in legend.get_texts()]
    return [
        (first, second)
        for (first, box), (second, other) in combinations(placed, 2)
        if Bbox.intersection(box.padded(-1), other.padded(-1)) is not None
    ]


def test_bars_are_as_high_as_the_table_says(benchmark: pd.DataFrame) -> None:
    axes = benchmark_bars(benchmark, NOTE).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == benchmark["iou"].tolist()
    segments = [line.get_segments() for line in axes.collections]  # type: ignore[attr-defined]
    ends = np.array([segment[:, 1] for bars in segments for segment in bars])
    np.testing.assert_allclose(ends, benchmark[["iou_low", "iou_high"]])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "telea, sp"
    assert labels[-2:] == ["heldout, fr*", ALL_FAMILIES]


def test_a_family_that_a_method_lacks_leaves_a_gap(benchmark: pd.DataFrame) -> None:
    axes = benchmark_bars(benchmark.drop(index=1), NOTE).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert len(axes.get_xticks()) == len(FAMILIES)
    assert np.flatnonzero(np.isnan(heights)).tolist() == [FAMILIES.index(FAMILIES[-1])]


def test_curves_go_through_the_table_and_begin_undegraded(robustness: pd.DataFrame) -> None:
    figure = robustness_curves(robustness, NOTE)
    assert [axes.get_xlabel() for axes in figure.axes] == [d.label for d in DEGRADATIONS.values()]
    for axes, name in zip(figure.axes, DEGRADATIONS, strict=True):
        labels = [label.get_text() for label in axes.get_xticklabels()]
        levels = [f"{level:g}" for level in DEGRADATIONS[name].levels]
        assert sorted(labels) == sorted([*levels, "none"])
        for line, method in zip(axes.lines, METHODS, strict=True):
            table = robustness[robustness["method"] == method].set_index("degradation")
            drawn = dict(zip(labels, np.asarray(line.get_ydata()), strict=True))
            assert drawn["none"] == table.loc["none", "iou"]
            assert [drawn[level] for level in levels] == table.loc[name, "iou"].tolist()


def test_one_degradation_gets_one_panel(robustness: pd.DataFrame) -> None:
    only = robustness[robustness["degradation"].isin(["none", "noise"])]
    (axes,) = robustness_curves(only, NOTE).axes
    assert axes.get_xlabel() == DEGRADATIONS["noise"].label


def test_methods_differ_in_more_than_colour(
    benchmark: pd.DataFrame, robustness: pd.DataFrame
) -> None:
    lines = robustness_curves(robustness, NOTE).axes[0].lines
    assert len({str(line.get_marker()) for line in lines}) == len(METHODS)
    assert len({str(line.get_linestyle()) for line in lines}) == len(METHODS)
    bars = benchmark_bars(benchmark, NOTE).axes[0].patches
    assert len({bar.get_hatch() for bar in bars}) == len(METHODS)


def test_the_histogram_counts_edited_images_alone() -> None:
    manifest = pd.DataFrame(
        {
            "authentic": [False] * 5 + [True] * 3,
            "kind": ["sp", "sp", "fr", "sp", "fr", "real", "real", "real"],
            "area": [0.01, 0.02, 0.1, 0.3, 0.6, 0, 0, 0],
        }
    )
    figure = mask_area_histogram(manifest, NOTE)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 5
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["sp (3 images)", "fr (2 images)"]


def test_the_panel_has_a_row_per_example_and_one_scale_for_all_maps() -> None:
    images = [np.zeros((30, 40, 3), dtype=np.uint8)] * 2
    maps = [np.full((30, 40), value, dtype=np.float32) for value in (0.1, 0.2)]
    masks = [np.zeros((30, 40), dtype=bool)] * 2
    figure = example_panel(images, masks, maps, masks, ["first", "second"], NOTE)
    panels = figure.axes[:8]
    assert [panels[0].get_ylabel(), panels[4].get_ylabel()] == ["first", "second"]
    assert [axes.get_title() for axes in panels[:4]] == ["image", "truth", "map", "mask"]
    for axes in panels[2::4]:
        assert axes.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(("validation", "lines"), [([0.3, 0.6], 2), ([np.nan, np.nan], 1)])
def test_the_training_curve_draws_validation_where_there_is_any(
    validation: list[float], lines: int
) -> None:
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.8, 0.4], "validation_dice": validation})
    axes = training_curve(history, NOTE).axes[0]
    assert len(axes.lines) == lines
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [0.8, 0.4]


def test_figures_fit_a_page_carry_their_note_and_no_label_covers_another(
    benchmark: pd.DataFrame, robustness: pd.DataFrame
) -> None:
    for figure in (benchmark_bars(benchmark, NOTE), robustness_curves(robustness, NOTE)):
        assert figure.get_figwidth() == WIDTH
        assert figure.get_supxlabel() == NOTE
        assert overlapping(figure) == []
    assert plt.get_fignums() == []
