"""Figures of differences, of label policies and of probabilities; looks as in `plots`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.plots import empty_figure, line_look

LEAST = 5
"""Cases that a bin of a reliability curve must hold to be drawn: of fewer a share says little."""
SHORT = {"real": "real", "re-encoded": "re-enc.", "inpainted": "inpainted"}


def difference_intervals(table: pd.DataFrame, note: str) -> Figure:
    """Draw the differences to every other method, a panel each, with both intervals.

    Parameters
    ----------
    table : of `dinolizer.study.statistics.compare`.
    note : the footer.
    """
    names = (table["family"] + ", " + table["kind"]).str.removesuffix(", all")
    sorts = list(names.drop_duplicates())
    others = list(table["other"].drop_duplicates())
    rows = -(-len(others) // 4)
    figure = empty_figure(0.8 + rows * (0.4 + 0.19 * len(sorts)), note)
    panels = figure.subplots(rows, min(4, len(others)), sharex=True, sharey=True, squeeze=False)
    for panel in panels.ravel()[len(others) :]:
        panel.set_axis_off()
    for number, (panel, other) in enumerate(zip(panels.ravel(), others, strict=False)):
        lines = table[table["other"] == other].set_axis(names[table["other"] == other])
        lines = lines.reindex(sorts)
        places = np.arange(len(sorts))
        panel.axvline(0, color="0.4", linewidth=0.8)
        panel.hlines(
            places, lines["low_corrected"], lines["high_corrected"], color="0.6", linewidth=0.8
        )
        panel.hlines(places, lines["low"], lines["high"], color="0.15", linewidth=2)
        clear = lines["significant_corrected"].astype(bool).to_numpy()
        panel.plot(
            lines["difference"][clear],
            places[clear],
            "o",
            color="0.15",
            label="significant after correction",
        )
        panel.plot(
            lines["difference"][~clear],
            places[~clear],
            "o",
            color="0.15",
            markerfacecolor="white",
            label="does not",
        )
        panel.set_yticks(places, sorts)
        panel.set_title(f"to {other}")
        panel.grid(axis="x")
        if number == 0:
            panel.invert_yaxis()
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    for panel in panels[-1]:
        panel.set_xlabel("difference in IoU")
    return figure


def policy_panels(iou: pd.DataFrame, marked: pd.DataFrame, note: str) -> Figure:
    """Draw what every label policy finds, and what it marks that nobody edited.

    Parameters
    ----------
    iou : of `dinolizer.study.experiments.label_tables.localization`.
    marked : of `marked_shares` there; only unedited pixels are drawn.
    note : the footer.
    """
    figure = empty_figure(3.5, note)
    left, right = figure.subplots(1, 2, width_ratios=[5, 6])
    found = iou.assign(label=_labels(iou))
    _dots(left, found.rename(columns={"iou_low": "low", "iou_high": "high", "iou": "value"}))
    left.set(ylabel="IoU of the edit, mean over images", ylim=(0, 1))
    rest = marked[marked["pixels"] != CLASS_NAMES[2]]
    rest = rest.assign(label=_labels(rest))
    _dots(right, rest.rename(columns={"share": "value"}))
    right.set(ylabel="share of unedited pixels marked", ylim=(0, 1))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def confusion_matrices(table: pd.DataFrame, note: str) -> Figure:
    """Draw what pixels of each class are called, a panel for seen generators and one for others.

    Parameters
    ----------
    table : of `confusion` there; every cell shows its share and interval.
    note : the footer.
    """
    sorts = list(table["seen"].unique())
    figure = empty_figure(2.9, note)
    panels = figure.subplots(1, len(sorts), squeeze=False)[0]
    for panel, seen in zip(panels, sorts, strict=True):
        own = table[table["seen"] == seen]
        truths = [name for name in CLASS_NAMES if (own["truth"] == name).any()]
        cells = own.set_index(["truth", "called"])
        shares = cells["share"].unstack().reindex(index=truths, columns=list(CLASS_NAMES))
        drawn = panel.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for row, truth in enumerate(truths):
            for column, called in enumerate(CLASS_NAMES):
                cell = cells.loc[(truth, called)]
                panel.text(
                    column,
                    row,
                    f"{cell['share']:.2f}\n({cell['low']:.2f} to {cell['high']:.2f})",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if cell["share"] < 0.5 else "black",
                )
        panel.set_xticks(range(3), [SHORT[name] for name in CLASS_NAMES])
        panel.set_yticks(range(len(truths)), [SHORT[name] for name in truths])
        panel.set(xlabel="called", title="generators seen" if seen else "generator held out")
        panel.grid(False)
    panels[0].set_ylabel("truth")
    bar = figure.colorbar(drawn, ax=panels, fraction=0.03, pad=0.01)
    bar.set_label("share of the true class")
    return figure


def reliability_curves(curves: Mapping[str, pd.DataFrame], note: str, *, what: str) -> Figure:
    """Draw how often it happens against what is said, with intervals, and how much is said so.

    Bins of fewer than `LEAST` cases are in the right panel only.

    Parameters
    ----------
    curves : from a name to the points of `dinolizer.study.detection.reliability`.
    note : the footer.
    what : whose share it is, such as ``"pixels"``.
    """
    figure = empty_figure(3.4, note)
    left, right = figure.subplots(1, 2, width_ratios=[5, 4])
    left.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    for number, (name, points) in enumerate(curves.items()):
        look = line_look(number)
        known = points[points["n"] >= LEAST]
        left.plot(known["predicted"], known["observed"], label=name, **look)
        left.vlines(known["predicted"], known["low"], known["high"], color=look["color"])
        share = points["n"] / points["n"].sum()
        right.plot(points["predicted"], share, **look)
    left.set(xlabel=f"predicted share of edited {what}", ylabel=f"observed share of edited {what}")
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    right.set(xlabel="predicted share", ylabel=f"share of the {what} (log scale)", yscale="log")
    right.set(xlim=(-0.02, 1.02))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def policy_examples(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[NDArray[np.uint8]],
    maps: Sequence[Mapping[str, NDArray[np.floating]]],
    titles: Sequence[str],
    note: str,
) -> Figure:
    """Show examples, one a row: the image, what its pixels are, and every policy's map.

    Parameters
    ----------
    images : uint8 (H, W, 3), RGB.
    truths : uint8 (H, W), places in `CLASS_NAMES`: black, grey, white.
    maps : from a policy's name to its probability, float (H, W); the mask is drawn as an outline.
    titles : one per example, to its left.
    note : the footer.
    """
    names = list(maps[0])
    figure = empty_figure(len(images) * 1.22 + 0.5, note)
    grid = figure.subplots(len(images), 2 + len(names), squeeze=False)
    for row, image, truth, found, title in zip(grid, images, truths, maps, titles, strict=True):
        row[0].imshow(image)
        row[0].set_ylabel(title)
        row[1].imshow(truth, cmap="gray", vmin=0, vmax=2)
        for panel, name in zip(row[2:], names, strict=True):
            drawn = panel.imshow(found[name], cmap="cividis", vmin=0, vmax=1)
            panel.contour(found[name] > 0.5, levels=[0.5], colors="white", linewidths=0.8)
        for panel in row:
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set(visible=True, color="0.6", linewidth=0.5)
    for panel, name in zip(grid[0], ("image", "truth", *names), strict=True):
        panel.set_title(name)
    bar = figure.colorbar(drawn, ax=grid, fraction=0.02, pad=0.01, aspect=12 * len(images))
    bar.set_label("probability of inpainting")
    return figure


def not_run(why: str, note: str) -> Figure:
    """Say in a figure's place why there is none."""
    figure = empty_figure(1.2, note)
    figure.text(0.5, 0.55, f"not run: {why}", ha="center", va="center")
    return figure


def _dots(axes: Axes, table: pd.DataFrame) -> None:
    """A column for each label, a dot with its interval for each method."""
    labels = list(table["label"].drop_duplicates())
    methods = list(table["method"].drop_duplicates())
    for number, method in enumerate(methods):
        lines = table[table["method"] == method].set_index("label").reindex(labels)
        at = np.arange(len(labels)) + 0.22 * (number - (len(methods) - 1) / 2)
        look = line_look(number) | {"linestyle": ""}
        axes.vlines(at, lines["low"], lines["high"], color=look["color"])
        axes.plot(at, lines["value"], label=method, **look)
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(labels) - 0.4)


def _labels(table: pd.DataFrame) -> list[str]:
    """What the lines are of; an asterisk marks generators that no training has met."""
    names = {"real": "photograph", "reencoded": "re-encoded"}
    return [
        names.get(kind, kind) + ("" if seen else "*")
        for kind, seen in zip(table["kind"], table["seen"], strict=True)
    ]
