"""Figures show what their tables hold, and can be read: in grey, and with no label on another."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from figures import overlapping, with_interval
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb

from dinolizer.study import figures

NOTE = "profile: pocket; n = 84 images, 7 photos; 95 % bootstrap intervals over photos"
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
    ious = iter(np.linspace(0.2, 0.9, len(METHODS) * len(families)))
    return pd.DataFrame(
        [
            {"method": method, "family": family, "kind": kind, "seen": seen}
            | with_interval(next(ious))
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
            | {"iou": iou, "tp": 10, "fn": 10, "fp": 40, "tn": 40}
            for method in METHODS
            for family, kind, seen in FAMILIES
            for group in "abc"
            for iou in (0.1, 0.3)
        ]
    )


def test_bars_intervals_photographs_and_floor_are_those_of_the_tables(
    table: pd.DataFrame, rows: pd.DataFrame
) -> None:
    figure = figures.benchmark(table, rows, NOTE)
    axes = figure.axes[0]
    heights = [bar.get_height() for bar in axes.patches if bar.get_height()]
    assert sorted(heights) == pytest.approx(table["iou"].tolist())
    ends = sorted(np.asarray(line.get_ydata()).tolist() for line in axes.lines)
    np.testing.assert_allclose(ends, table[["iou_low", "iou_high"]])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "telea, sp"
    assert labels[-2:] == ["heldout, fr*", figures.ALL_FAMILIES]
    *_, floor = axes.collections
    np.testing.assert_allclose([segment[:, 1] for segment in floor.get_segments()], 0.2)
    photos = [part for part in axes.collections if isinstance(part, PathCollection)]
    points = np.concatenate([part.get_offsets() for part in photos])
    assert len(points) == 3 * len(table)  # three photographs a bar, at the mean of their images
    np.testing.assert_allclose(points[:, 1], 0.2)
    assert (figure.get_figwidth(), figure.get_supxlabel()) == (figures.WIDTH, NOTE)
    assert overlapping(figure) == []
    assert plt.get_fignums() == []


def test_the_histogram_counts_edited_images_alone() -> None:
    manifest = pd.DataFrame(
        {
            "authentic": [False] * 5 + [True] * 3,
            "kind": ["sp", "sp", "fr", "sp", "fr", "real", "real", "real"],
            "area": [0.01, 0.02, 0.1, 0.3, 0.6, 0, 0, 0],
        }
    )
    axes = figures.mask_areas(manifest, NOTE).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 5
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["sp (3 images)", "fr (2 images)"]


@pytest.mark.parametrize("across", [False, True])
def test_pictures_are_named_and_maps_have_one_scale_and_their_mask_as_outline(across: bool) -> None:
    images = [np.zeros((30, 40, 3), np.uint8)] * 2
    maps = [np.full((30, 40), value, np.float32) for value in (0.1, 0.2)]
    maps[0][:5] = 0.9
    columns = {"image": images, "truth": [image[..., 0] > 0 for image in images], "map": maps}
    figure = figures.pictures(columns, ["one", "two"], NOTE, across=across)
    grid = np.array(figure.axes[:6]).reshape((3, 2) if across else (2, 3))
    above, beside = (["one", "two"], list(columns))[:: 1 if across else -1]
    assert [panel.get_title() for panel in grid[0]] == above
    assert [panel.get_ylabel() for panel in grid[:, 0]] == beside
    drawn = grid[2] if across else grid[:, 2]
    assert {panel.images[0].get_clim() for panel in drawn} == {(0, 1)}
    assert [bool(panel.collections) for panel in drawn] == [True, False]


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


def test_curves_go_through_their_tables_with_bands_and_reference_lines() -> None:
    tables = {
        "JPEG quality": levels(METHODS, ["50", "90", "none"], 0.2),
        "noise": levels(METHODS[1:], ["none", "3"], 0.3),
    }
    figure = figures.curves(
        tables, "level", "iou", "method", NOTE, label="IoU", lines={figures.FLOOR: 0.1}
    )
    first, second = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == list(tables)
    drawn = [line for line in first.lines if len(line.get_xdata()) == 3]
    values = [np.asarray(line.get_ydata()).tolist() for line in drawn]
    assert values == tables["JPEG quality"]["iou"].to_numpy().reshape(4, 3).tolist()
    assert [label.get_text() for label in second.get_xticklabels()] == ["none", "3"]
    band = first.collections[0].get_paths()[0].vertices[:, 1]
    assert [band.min(), band.max()] == pytest.approx([0.1, 0.35])
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
    names = {"iou": "IoU", "iou_change": "change"}
    figure = figures.dots(table, names, NOTE, hue="marks", lines={"iou": 0.12})
    panel, other = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["a", "b"]
    assert [panel.get_xlabel(), other.get_xlabel()] == ["IoU", "change"]
    ends = [line.get_xdata() for line in panel.lines if line.get_linestyle() in ("-", ":")]
    assert [0.12, 0.12] in np.array(ends).tolist()
    spans = sorted(tuple(map(float, end)) for end in ends if end[0] != end[1])
    np.testing.assert_allclose(spans, table[["iou_low", "iou_high"]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["x", "y"]


def test_differences_have_a_panel_for_each_other_method_and_a_dot_for_each_line() -> None:
    others = ["one", "two", "three", "four", "five"]
    table = pd.DataFrame(
        [
            {"other": other, "family": family, "kind": kind, "difference": number / 10}
            | {"low": number / 10 - 0.1, "high": 0.9, "low_corrected": -0.2, "high_corrected": 1}
            | {"significant_corrected": number > 1}
            for other in others
            for number, (family, kind) in enumerate([("x", "sp"), ("y", "fr"), ("all", "all")])
        ]
    )
    figure = figures.differences(table, NOTE)
    assert [axes.get_title() for axes in figure.axes if axes.has_data()] == [
        f"to {other}" for other in others
    ]
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["x, sp", "y, fr", "all"]
    clear, open_ = first.lines[1:]
    assert np.asarray(clear.get_xdata()).tolist() == [0.2]
    assert np.asarray(open_.get_xdata()).tolist() == [0, 0.1]


@pytest.fixture
def cells() -> pd.DataFrame:
    """Rows in their own order, and one that the second panel lacks."""
    shares = np.linspace(0, 1, 9).reshape(3, 3)
    return pd.DataFrame(
        [
            {"truth": truth, "called": called, "share": shares[row, column]}
            | {"share_low": 0.25, "share_high": 1.0}
            for row, truth in enumerate(["real", "re-encoded", "inpainted"])
            for column, called in enumerate(["real", "re-encoded", "inpainted"])
        ]
    )


def test_cells_name_their_score_with_its_interval(cells: pd.DataFrame) -> None:
    tables = {"seen": cells, "held out": cells[cells["truth"] != "re-encoded"].iloc[:, :3]}
    cells.loc[2, ["share_low", "share_high"]] = np.nan  # of a single photograph
    figure = figures.heatmaps(tables, "truth", "called", "share", "the share", NOTE)
    first, second, _ = figure.axes
    assert [text.get_text() for text in first.texts[:3]] == [
        "0.00\n0.25 to 1.00",
        "0.12\n0.25 to 1.00",
        "0.25",
    ]
    assert [label.get_text() for label in second.get_yticklabels()] == ["real", "inpainted"]
    drawn = np.asarray(second.collections[0].get_array()).ravel()
    assert drawn.tolist() == tables["held out"]["share"].tolist()
    assert second.texts[0].get_text() == "0.00"


def test_letters_and_cells_contrast(cells: pd.DataFrame) -> None:
    """By WCAG 2: 4.5 to 1, from the definition of relative luminance."""

    def luminance(colour: Any) -> float:
        channels = np.array(to_rgb(colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    figure = figures.heatmaps({"": cells}, "truth", "called", "share", "", NOTE)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text, cell in zip(axes.texts, axes.collections[0].get_facecolor(), strict=True):
        darker, lighter = sorted([luminance(text.get_color()), luminance(cell)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_bins_of_few_cases_are_not_drawn_as_points_of_the_curve() -> None:
    points = pd.DataFrame({"predicted": [0.1, 0.5, 0.9], "observed": [0.2, 0.4, 0.8]})
    points = points.assign(low=0.1, high=0.9, n=[figures.LEAST, figures.LEAST - 1, 81])
    figure = figures.reliability({"head": points}, NOTE, what="pixels")
    left, right = figure.axes
    assert np.asarray(left.lines[1].get_ydata()).tolist() == [0.2, 0.8]
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), points["n"] / 90)


def test_size_curves_draw_every_score_and_the_size_at_half() -> None:
    scores = {"iou": [0.2, 0.4, 0.6], "recall": [0.3, 0.5, 0.7], "missed": [0.8, 0.4, 0.1]}
    table = pd.DataFrame(scores).assign(share=[0.01, 0.1, 0.5], of="of the window")
    figure = figures.sizes(table, (0.05, 0.02, 0.1), (0.12, 0.2), NOTE)
    for panel, (score, values) in zip(figure.axes, scores.items(), strict=True):
        drawn = [np.asarray(line.get_ydata()).tolist() for line in panel.lines]
        assert values in drawn, score
    marker = [line for line in figure.axes[2].lines if len(line.get_xdata()) == 1]
    assert [float(line.get_xdata()[0]) for line in marker[:1]] == [0.05]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"of the window", figures.FLOOR, "paper: missed below"} <= set(labels)


def test_what_was_not_run_says_why() -> None:
    figure = figures.not_run("no image without an edit", NOTE)
    assert figure.axes[0].texts[0].get_text() == "not run: no image without an edit"


def test_detection_by_size_draws_curves_floor_and_fitted_sizes() -> None:
    table = pd.DataFrame({"share": [0.03, 0.1, 0.5]})
    for name, values in {"iou": [0.4, 0.6, 0.7], "a": [0.5, 0.9, 1], "b": [0.4, 0.8, 0.9]}.items():
        table[name], table[f"{name}_low"], table[f"{name}_high"] = values, 0.1, 1.0
    edits = pd.DataFrame({"area": [0.02, 0.1, 0.6], "iou": [0.3, 0.6, 0.8]})
    sizes = pd.DataFrame({"column": ["a", "b"], "rule": ["by score", "by pixels"]})
    sizes = sizes.assign(size=[0.015, 0.01], size_low=0.008, size_high=0.02)
    figure = figures.detection_by_size(table, edits, sizes, 4.0, (0.12, 0.2), NOTE)
    left, right = figure.axes
    lines = [np.asarray(line.get_ydata()).tolist() for line in (*left.lines, *right.lines)]
    assert all(table[name].tolist() in lines for name in ("iou", "a", "b"))
    ends = [line.get_xdata() for line in left.lines if list(line.get_ydata()) == [0.5]]
    assert {0.015, 0.01} <= {float(end[0]) for end in ends}
    assert edits["iou"].tolist() in lines
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert {"by score", "by pixels", "paper: missed below"} <= set(texts)
    assert overlapping(figure) == []


def test_roc_marks_the_threshold_in_use_on_its_curve() -> None:
    points = pd.DataFrame({"false_positive_rate": [0, 0.1, 1], "sensitivity": [0, 0.9, 1]})
    figure = figures.roc({"one half": points}, {"one half": (0.1, 0.9)}, NOTE)
    for panel in figure.axes:
        curve, dot, chance, _ = panel.lines
        assert np.asarray(curve.get_ydata()).tolist() == [0, 0.9, 1]
        assert (float(dot.get_xdata()[0]), float(dot.get_ydata()[0])) == (0.1, 0.9)
        assert np.asarray(chance.get_xdata()).tolist() == [0, 1]
    assert overlapping(figure) == []


def test_agreement_is_drawn_image_by_image() -> None:
    rows = pd.DataFrame({"score": [0.1, 0.9], "score_ours": [0.2, 0.8]})
    figure = figures.agreement(rows, {"score": "image score"}, ("they", "we"), NOTE)
    (panel,) = figure.axes
    assert np.asarray(panel.lines[1].get_xydata()).tolist() == [[0.1, 0.2], [0.9, 0.8]]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("they", "we")
