"""Figures of what was varied: the size of an edit, the layer, the head; the look is of `plots`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinolizer.study.plots import PALETTE, empty_figure, line_look

SHARE_TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def size_curves(
    tables: Mapping[str, pd.DataFrame],
    threshold: tuple[float, float, float],
    claimed: tuple[float, float],
    note: str,
) -> Figure:
    """Draw IoU, recall and miss rate against the edited share, a panel each.

    Parameters
    ----------
    tables : of `dinolizer.study.experiments.sizes.by_size`, by what the share is of; those without
        a line are left out.
    threshold : share of the window at which half is missed, and its interval; nan for none.
    claimed : range of the shares below which the paper says that edits are missed.
    note : the footer.
    """
    figure = empty_figure(3.1, note)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    labels = {"iou": "IoU", "recall": "recall of edited pixels", "missed": "share of edits missed"}
    for panel, (score, label) in zip(panels, labels.items(), strict=True):
        for number, (name, table) in enumerate(tables.items()):
            if not table.empty:
                with_band(panel, table, "share", score, name, number)
        panel.axvspan(*claimed, color="0.85", linewidth=0, label="paper: missed below", zorder=0)
        panel.set(xscale="log", ylim=(0, 1), title=label, xlabel="edited share (log scale)")
        panel.set_xticks(SHARE_TICKS, [f"{100 * tick:g} %" for tick in SHARE_TICKS], rotation=45)
        panel.minorticks_off()
    panels[0].set_ylabel("mean over edits")
    if np.isfinite(threshold).all():
        value, low, high = threshold
        look = {"color": "0.2", "fmt": "x", "markersize": 6, "elinewidth": 1.2, "capsize": 2}
        ends = [[value - low], [high - value]]
        panels[2].errorbar(value, 0.5, xerr=ends, label="half are missed (fit)", **look)
    handles, names = panels[2].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def comparison_dots(
    tables: Sequence[tuple[str, pd.DataFrame]], scores: Mapping[str, str], note: str
) -> Figure:
    """Draw values with intervals as dots, a row for each variant and a panel for each score.

    Parameters
    ----------
    tables : a heading and lines with the column ``label``; a block of rows each, from the top.
    scores : from a column, which has ``_low`` and ``_high`` beside it (or has no interval), to the
        label of its panel. ``threshold``, a share, gets a logarithmic axis; a change its zero.
    note : the footer.
    """
    count = sum(len(table) for _, table in tables)
    figure = empty_figure(1.2 + 0.24 * (count + len(tables)), note)
    panels = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    ticks: list[tuple[float, str]] = []
    place = 0.0
    for number, (heading, table) in enumerate(tables):
        places = place + np.arange(len(table))
        ticks += list(zip(places, table["label"], strict=True))
        look = line_look(number) | {"linestyle": "", "label": heading}
        for panel, score in zip(panels, scores, strict=True):
            panel.plot(table[score], places, **look)
            if f"{score}_low" in table:
                ends = (table[f"{score}_low"], table[f"{score}_high"])
                panel.hlines(places, *ends, color=PALETTE[number], linewidth=1.2)
        place = places[-1] + 2 if len(places) else place
    for panel, (score, label) in zip(panels, scores.items(), strict=True):
        panel.set_xlabel(label)
        panel.grid(True, axis="x")
        if score == "threshold":
            panel.set_xscale("log")
            panel.set_xlim(SHARE_TICKS[0] * 0.8, 1.25)
            panel.set_xticks((0.01, 0.1, 1), ("1 %", "10 %", "100 %"))
            panel.minorticks_off()
        if score.endswith("change"):
            panel.axvline(0, color="0.4", linewidth=0.8)
    panels[0].set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def layer_curves(table: pd.DataFrame, note: str) -> Figure:
    """Draw IoU against the layer of the tokens, a curve with its band for each ``backbone``.

    Parameters
    ----------
    table : of `dinolizer.study.experiments.ablations.compare`, by ``backbone`` and ``layer``.
    note : the footer.
    """
    figure = empty_figure(3.0, note)
    axes = figure.subplots()
    for number, (name, lines) in enumerate(table.groupby("backbone", sort=False)):
        with_band(axes, lines, "layer", "iou", str(name), number)
    axes.set_xticks(sorted(set(table["layer"])))
    axes.set(xlabel="layer of the tokens", ylabel="IoU, mean over families", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def with_band(
    axes: Axes, table: pd.DataFrame, across: str, score: str, label: str, number: int
) -> None:
    """Draw the n-th curve of a panel, with the interval of the score as a band."""
    axes.plot(table[across], table[score], label=label, **line_look(number))
    ends = (table[f"{score}_low"], table[f"{score}_high"])
    axes.fill_between(table[across], *ends, color=PALETTE[number], alpha=0.15, linewidth=0)
