"""Figures of the study: from tables to matplotlib figures, legible in grey and 7 inches wide.

Every function returns a `matplotlib.figure.Figure` that pyplot does not hold, and ends with a
footer, ``note``: the profile, the numbers of images and photographs, what the intervals are.
Methods keep their look across figures by the order in which a table names them: colour (of
seaborn's colour-blind palette), marker, line and hatch all differ, for up to six methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dinolizer.study.statistics import ALL_FAMILIES

WIDTH = 7.0  # inches: a text width
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
PALETTE = sns.color_palette("colorblind")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++")


def style() -> None:
    """Set fonts, sizes and lines of all figures that are drawn from now on."""
    sns.set_theme(
        context="paper",
        style="ticks",
        palette="colorblind",
        rc={
            "font.size": 9,
            "axes.labelsize": 9,
            "axes.titlesize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "legend.handlelength": 2.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "grid.color": "0.9",
            "hatch.linewidth": 0.6,
            "hatch.color": "white",
            "lines.linewidth": 1.4,
            "lines.markersize": 4.5,
        },
    )


def mask_area_histogram(manifest: pd.DataFrame, note: str) -> Figure:
    """Draw how large the edits are: a histogram of their share of the image, in logarithmic bins.

    Parameters
    ----------
    manifest : see `dinolizer.data.manifest`; authentic images are left out.
    note : the footer.
    """
    figure, axes = canvas(3.0, note)
    edited = manifest[~manifest["authentic"]]
    kinds = list(edited["kind"].unique())
    bins = np.geomspace(edited["area"].min() * 0.999, edited["area"].max() * 1.001, 16)
    _, _, bars = axes.hist(
        [edited.loc[edited["kind"] == kind, "area"] for kind in kinds],
        bins=list(bins),
        stacked=True,
        label=[f"{kind} ({(edited['kind'] == kind).sum()} images)" for kind in kinds],
        color=sns.color_palette(n_colors=len(kinds)),
        edgecolor="white",
    )
    for container, hatch in zip(
        np.atleast_1d(np.asarray(bars, dtype=object)), HATCHES, strict=False
    ):
        for bar in container:
            bar.set_hatch(hatch)
    axes.set_xscale("log")
    ticks = [
        tick
        for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
        if bins[0] * 0.9 < tick < bins[-1] * 1.1
    ]
    axes.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="edited share of the image (log scale)", ylabel="number of images")
    figure.legend(loc="outside upper center", ncols=len(kinds))
    return figure


def example_panel(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[NDArray[np.bool_]],
    maps: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[np.bool_]],
    titles: Sequence[str],
    note: str,
) -> Figure:
    """Show examples, one per row: the image, the truth, the probability and the mask.

    Parameters
    ----------
    images : uint8 (H, W, 3), RGB.
    truths, masks : bool (H, W), white = edited, white = marked.
    maps : float (H, W), probabilities from 0 to 1.
    titles : one per example, to its left.
    note : the footer.
    """
    shape = max(image.shape[0] / image.shape[1] for image in images)
    figure = empty_figure(len(images) * 1.52 * shape + 0.5, note)
    grid = figure.subplots(len(images), 4, squeeze=False)
    for row, image, truth, values, mask, title in zip(
        grid, images, truths, maps, masks, titles, strict=True
    ):
        row[0].imshow(image)
        row[1].imshow(truth, cmap="gray", vmin=0, vmax=1)
        probability = row[2].imshow(values, cmap="cividis", vmin=0, vmax=1)
        row[3].imshow(mask, cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(title)
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set(visible=True, color="0.6", linewidth=0.5)
    for axes, title in zip(grid[0], ("image", "truth", "map", "mask"), strict=True):
        axes.set_title(title)
    bar = figure.colorbar(probability, ax=grid, fraction=0.02, pad=0.01, aspect=12 * len(images))
    bar.set_ticks([0, 0.5, 1])
    bar.set_label("probability")
    return figure


def gallery(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    titles: Sequence[str],
    note: str,
    columns: int = 5,
) -> Figure:
    """Show images in a grid, each with its mask as an outline.

    Parameters
    ----------
    images : uint8 (H, W, 3), RGB.
    masks : bool (H, W); an empty one draws nothing.
    titles : one per image, above it.
    note : the footer.
    columns : images in a row.
    """
    rows = -(-len(images) // columns)
    figure = empty_figure(rows * 1.85 + 0.3, note)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, image, mask, title in zip(panels, images, masks, titles, strict=False):
        panel.imshow(image)
        if mask.any():
            panel.contour(mask, levels=[0.5], colors="white", linewidths=1.6)
            panel.contour(mask, levels=[0.5], colors="black", linewidths=0.7)
        panel.set_title(title, fontsize=8)
    return figure


def benchmark_bars(table: pd.DataFrame, note: str) -> Figure:
    """Draw the IoU of every method on every family, with intervals.

    Parameters
    ----------
    table : of `dinolizer.study.evaluation.benchmark_table`; families that were not seen in training
        are marked with an asterisk.
    note : the footer.
    """
    figure, axes = canvas(3.6, note)
    labels = table.apply(_family_label, axis=1)
    names = list(labels.drop_duplicates())
    places = np.arange(len(names), dtype=float)
    methods = list(table["method"].unique())
    width = 0.84 / len(methods)
    for number, method in enumerate(methods):
        lines = table[table["method"] == method].set_axis(labels[table["method"] == method])
        lines = lines.reindex(names)
        at = places + (number - (len(methods) - 1) / 2) * width
        look = {"color": PALETTE[number % len(PALETTE)], "hatch": HATCHES[number % len(HATCHES)]}
        axes.bar(at, lines["iou"], width * 0.94, label=method, linewidth=0, **look)
        axes.errorbar(at, lines["iou"], _errors(lines), fmt="none", ecolor="0.15", elinewidth=0.8)
    if names[-1] == ALL_FAMILIES:
        axes.axvline(places[-1] - 0.5, color="0.4", linewidth=0.8)
    axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel="IoU, mean over images", ylim=(0, 1), xlim=(-0.55, len(names) - 0.45))
    figure.legend(loc="outside upper center", ncols=min(len(methods), 4))
    return figure


def training_curve(history: pd.DataFrame, note: str) -> Figure:
    """Draw the training of a head: ``loss`` and ``validation_dice`` against ``epoch``."""
    figure, axes = canvas(2.8, note)
    curves = {"loss": "training: Dice loss", "validation_dice": "validation: Dice coefficient"}
    for number, (column, label) in enumerate(curves.items()):
        if history[column].notna().any():
            look = line_look(number) | {"marker": ""}
            axes.plot(history["epoch"], history[column], label=label, **look)
    axes.set(xlabel="epoch", ylabel="Dice loss, Dice coefficient", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def pretraining_curves(losses: pd.DataFrame, note: str) -> Figure:
    """Draw the cross-entropy ``loss`` against the number of ``crops`` seen, a curve for each
    ``backbone``, and that of a coin."""
    figure, axes = canvas(2.6, note)
    for number, (name, own) in enumerate(losses.groupby("backbone", sort=False)):
        look = line_look(number) | {"markevery": 4}
        axes.plot(own["crops"] / 1000, own["loss"], label=str(name), **look)
    axes.axhline(np.log(2), label="a coin", color="0.4", linestyle=":")
    axes.set(xlabel="crops seen [thousands]", ylabel="cross-entropy [nats]", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def empty_figure(height: float, note: str) -> Figure:
    """Make a figure of that height in inches, with its footer."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.supxlabel(note, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def canvas(height: float, note: str) -> tuple[Figure, Axes]:
    """Make a figure of that height in inches, with its footer, and its only axes."""
    figure = empty_figure(height, note)
    return figure, figure.subplots()


def line_look(number: int) -> dict[str, Any]:
    """How the curve of the n-th method is drawn; from the seventh on, looks come again."""
    look = {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number % len(LINES)]}
    look["marker"] = MARKERS[number % len(MARKERS)]
    return look | {"markeredgecolor": "white", "markeredgewidth": 0.5}


def _errors(lines: pd.DataFrame) -> NDArray[np.floating]:
    """Lengths of the error bars, (2, N): below and above the mean."""
    ends = [lines["iou"] - lines["iou_low"], lines["iou_high"] - lines["iou"]]
    return np.asarray(np.clip(np.array(ends, dtype=float), 0, None))


def _family_label(line: "pd.Series[Any]") -> str:
    if line["family"] == ALL_FAMILIES:
        return ALL_FAMILIES
    return f"{line['family']}, {line['kind']}" + ("" if line["seen"] else "*")
