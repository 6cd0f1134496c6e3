"""Figures show what their tables hold, and can be read: in grey, and with no label on another."""

import numpy as np
import pandas as pd
import pytest
from figures import overlapping, with_interval
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from dinolizer.study import figures
from dinolizer.study.methods import BASELINES

NOTE = "profile: pocket; n = 84 images, 7 photos; 95 % intervals over photos"
METHODS = ["localizer", "noise inconsistency", "error level analysis", "residual features"]
FAMILIES = [
    *((name, "sp", True) for name in ("telea", "navier-stokes", "biharmonic", "autoencoder")),
    *((name, "fr", True) for name in ("autoencoder", "inpainter")),
    ("heldout", "fr", False),
]


@pytest.fixture(autouse=True)
def _style() -> None:
    figures.style()


@pytest.fixture
def table() -> pd.DataFrame:
    families = [*FAMILIES, (figures.ALL_FAMILIES, "all", "all")]
    aps = iter(np.linspace(0.2, 0.9, len(METHODS) * len(families)))
    return pd.DataFrame(
        [
            {"method": method, "family": family, "kind": kind, "seen": seen}
            | with_interval(next(aps), "ap")
            for method in METHODS
            for family, kind, seen in families
        ]
    )


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two images of each of three photographs; a fifth of the pixels is edited."""
    return pd.DataFrame(
        [
            {"method": method, "family": family, "kind": kind, "seen": seen, "group": group}
            | {"ap": iou, "tp": 10, "fn": 10, "fp": 40, "tn": 40}
            for method in METHODS
            for family, kind, seen in FAMILIES
            for group in "abc"
            for iou in (0.1, 0.3)
        ]
    )


def segments(axes: Axes) -> list[LineCollection]:
    """The intervals of each curve, or of each kind of dots."""
    drawn = [part for of in axes.containers for part in of if isinstance(part, tuple)]
    return [part for of in drawn for part in of if isinstance(part, LineCollection)]


def test_means_intervals_photographs_and_chance_are_those_of_the_tables(
    table: pd.DataFrame, rows: pd.DataFrame
) -> None:
    figure = figures.benchmark(table, rows, NOTE)
    axes = figure.axes[0]
    drawn = np.concatenate([line.get_xdata() for line in axes.lines])
    assert drawn.tolist() == pytest.approx(table["ap"].tolist())
    ends = [part[:, 0] for of in segments(axes) for part in of.get_segments()]
    np.testing.assert_allclose(ends, table[["ap_low", "ap_high"]])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "telea, sp"
    assert labels[-2:] == ["heldout, fr*", figures.ALL_FAMILIES]
    (chance,) = (part for part in axes.collections if part.get_label() == "chance")
    np.testing.assert_allclose([segment[:, 0] for segment in chance.get_segments()], 0.2)
    photos = [part for part in axes.collections if isinstance(part, PathCollection)]
    points = np.concatenate([part.get_offsets() for part in photos])
    # The first method's three photographs, at the mean of their images and on its line of a family:
    ours = axes.containers[0].lines[0]
    np.testing.assert_allclose(points[:, 0], 0.2)
    np.testing.assert_allclose(np.sort(points[:, 1]), np.asarray(ours.get_ydata(), float).repeat(3))
    assert (figure.get_figwidth(), figure.get_supxlabel()) == (figures.WIDTH, NOTE)
    assert overlapping(figure) == []
    assert plt.get_fignums() == []


def test_chance_over_all_is_the_mean_over_families(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Where `autoencoder, fr` has 80 % edited and all else 20 %: (5 * 0.2 + 0.5) / 6."""
    large = (rows["family"] == "autoencoder") & (rows["kind"] == "fr")
    rows.loc[large, ["tp", "fn", "fp", "tn"]] = [40, 40, 10, 10]
    (axes,) = figures.benchmark(table, rows, NOTE).axes
    (chance,) = (part for part in axes.collections if part.get_label() == "chance")
    assert chance.get_segments()[-1][0, 0] == pytest.approx(0.25)


@pytest.mark.parametrize("titles", [["one", "two"], list("abcd")])
def test_pictures_are_named_and_maps_have_one_scale_and_their_mask_as_outline(
    titles: list[str],
) -> None:
    """The longer side of the grid goes across the page."""
    count, across = len(titles), len(titles) == 4
    images = [np.zeros((30, 40, 3), np.uint8)] * count
    maps = [np.full((30, 40), value, np.float32) for value in (0.1, 0.2, 0.2, 0.2)[:count]]
    maps[0][:5] = 0.9
    columns = {"image": images, "truth": [image[..., 0] > 0 for image in images], "map": maps}
    figure = figures.pictures(columns, titles, NOTE)
    grid = np.array(figure.axes[: 3 * count]).reshape((3, 4) if across else (2, 3))
    above, beside = (titles, list(columns))[:: 1 if across else -1]
    assert [panel.get_title() for panel in grid[0]] == above
    assert [panel.get_ylabel() for panel in grid[:, 0]] == beside
    drawn = grid[2] if across else grid[:, 2]
    assert {panel.images[0].get_clim() for panel in drawn} == {(0, 1)}
    assert [bool(panel.collections) for panel in drawn] == [True] + [False] * (count - 1)


def test_a_gallery_outlines_what_is_edited() -> None:
    mask = np.zeros((30, 40), bool)
    mask[:10, :10] = True
    images = [np.zeros((30, 40, 3), np.uint8)] * 3
    figure = figures.gallery(images, [mask, mask & False, mask], list("abc"), NOTE, columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    assert [bool(axes.collections) for axes in figure.axes] == [True, False, True, False]


def levels(methods: list[str], names: list[str], first: float) -> pd.DataFrame:
    cases = [(method, name) for method in methods for name in names]
    return pd.DataFrame(
        [
            {"method": method, "level": name} | with_interval(first + number / 20)
            for number, (method, name) in enumerate(cases)
        ]
    )


def test_curves_go_through_their_tables_with_intervals_and_reference_lines() -> None:
    tables = {
        "JPEG quality": levels(METHODS, ["50", "90", "none"], 0.2),
        "noise": levels(METHODS[1:], ["none", "3"], 0.3),
    }
    figure = figures.curves(
        tables, "level", "iou", "method", NOTE, label="IoU", lines={"chance": 0.1}
    )
    first, second = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == list(tables)
    drawn = [line for line in first.lines if len(line.get_xdata()) == 3]
    values = [np.asarray(line.get_ydata()).tolist() for line in drawn]
    assert values == tables["JPEG quality"]["iou"].to_numpy().reshape(4, 3).tolist()
    assert [label.get_text() for label in second.get_xticklabels()] == ["none", "3"]
    ends = [part[:, 1] for of in segments(first) for part in of.get_segments()]
    np.testing.assert_allclose(ends, tables["JPEG quality"][["iou_low", "iou_high"]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*METHODS, "chance"]
    assert len({str(line.get_marker()) for line in drawn}) == len(METHODS)
    colours = [
        {line.get_color() for line in axes.lines if len(line.get_xdata())} for axes in figure.axes
    ]
    assert colours[1] < colours[0]  # a method looks the same in the panel that lacks another
    assert overlapping(figure) == []


def test_dots_lie_where_the_table_says() -> None:
    scores = pd.DataFrame(
        {"label": list("aabb"), "marks": list("xyxy"), "iou": [0.2, 0.3, 0.4, 0.5]}
    )
    ends = {f"iou_{end}": scores["iou"] + by for end, by in (("low", -0.1), ("high", 0.1))}
    table = scores.assign(**ends, iou_change=scores["iou"] - 0.2)
    names = {"iou": "IoU", "iou_change": "change", "false_positive_rate": "not measured"}
    figure = figures.dots(table, names, NOTE, hue="marks", lines={"iou": 0.12})
    panel, other = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["a", "b"]
    assert [panel.get_xlabel(), other.get_xlabel()] == ["IoU", "change"]
    ends = [line.get_xdata() for line in panel.lines if line.get_linestyle() == ":"]
    assert ends == [[0.12, 0.12]]
    spans = [part[:, 0].tolist() for of in segments(panel) for part in of.get_segments()]
    np.testing.assert_allclose(sorted(spans), table[["iou_low", "iou_high"]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["x", "y"]


def test_differences_have_a_panel_for_each_other_method_and_both_intervals() -> None:
    others = list(BASELINES)
    table = pd.DataFrame(
        [
            {"other": other, "family": family, "kind": kind, "difference": number / 10}
            | {"low": number / 10 - 0.1, "high": 0.9, "low_corrected": -0.2, "high_corrected": 1}
            for other in others
            for number, (family, kind) in enumerate([("x", "sp"), ("y", "fr"), ("all", "all")])
        ]
    )
    figure = figures.differences(table, NOTE)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["AP minus\nthat of\n" + other.replace(" ", "\n", 1) for other in others]
    assert not set(labels) & {text for pair in overlapping(figure) for text in pair}
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["x, sp", "y, fr", "all"]
    (drawn,) = segments(first)
    spans = [part[:, 0] for part in drawn.get_segments()]
    np.testing.assert_allclose(spans, [(-0.1, 0.9), (0, 0.9), (0.1, 0.9)])
    assert len({axes.get_xlim() for axes in figure.axes}) == 1  # differences can be compared
    lines = [part for part in first.collections if isinstance(part, LineCollection)]
    (corrected,) = (part for part in lines if part is not drawn)
    np.testing.assert_allclose([part[:, 0] for part in corrected.get_segments()], [[-0.2, 1]] * 3)


def test_a_method_without_a_score_has_no_curve() -> None:
    table = levels(METHODS, ["50", "none"], 0.2)
    table.loc[table["method"] == METHODS[1], "iou"] = np.nan
    tables = {"JPEG quality": table}
    figure = figures.curves(tables, "level", "iou", "method", NOTE, label="score")
    drawn = [line for line in figure.axes[0].lines if len(line.get_ydata())]
    assert len(drawn) == len(METHODS) - 1


def test_several_scores_are_curves_beside_each_other_on_an_axis_of_shares() -> None:
    scores = {"iou": [0.2, 0.4, 0.6], "recall": [0.3, 0.5, 0.7]}
    table = pd.DataFrame(scores).assign(share=[0.01, 0.1, 0.5], iou_low=0.1, iou_high=0.9)
    long = figures.by_score(table, {"iou": "IoU", "recall": "recall"})
    span = {"paper: missed below": (0.12, 0.2)}
    figure = figures.curves(
        {"edited share": long}, "share", "value", "score", NOTE, label="mean", spans=span
    )
    (panel,) = figure.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in panel.lines]
    assert all(values in drawn for values in scores.values())
    ends = segments(panel)[0].get_segments()
    np.testing.assert_allclose([part[:, 1] for part in ends], [(0.1, 0.9)] * 3)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["IoU", "recall", "paper: missed below"]
    assert panel.get_xscale() == "log"
    assert overlapping(figure) == []


def test_points_are_spread_alike_each_time() -> None:
    """seaborn spreads points by NumPy's global generator."""
    first = np.random.uniform()
    figures.style()
    assert np.random.uniform() == first
