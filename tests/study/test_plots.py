"""Figures show what their tables hold, and can be read: in grey, and with no label on another."""

import numpy as np
import pandas as pd
import pytest
from figures import overlapping, with_interval
from matplotlib import pyplot as plt

from dinolizer.study.plots import (
    WIDTH,
    benchmark_bars,
    example_panel,
    mask_area_histogram,
    pretraining_curves,
    style,
    training_curve,
)
from dinolizer.study.statistics import ALL_FAMILIES

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


def test_methods_differ_in_more_than_colour(benchmark: pd.DataFrame) -> None:
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


def test_each_pretraining_has_its_curve_beside_that_of_a_coin() -> None:
    """A coin's cross-entropy is the logarithm of 2."""
    losses = pd.DataFrame(
        {"backbone": ["a", "a", "b"], "loss": [0.6, 0.5, 0.7], "crops": [1000, 2000, 1000]}
    )
    axes = pretraining_curves(losses, "").axes[0]
    first, second, coin = axes.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 2], [0.6, 0.5])
    assert list(second.get_ydata()) == [0.7]
    assert list(coin.get_ydata()) == pytest.approx([0.6931, 0.6931], abs=1e-4)


def test_the_bars_fit_a_page_carry_their_note_and_no_label_covers_another(
    benchmark: pd.DataFrame,
) -> None:
    figure = benchmark_bars(benchmark, NOTE)
    assert figure.get_figwidth() == WIDTH
    assert figure.get_supxlabel() == NOTE
    assert overlapping(figure) == []
    assert plt.get_fignums() == []
