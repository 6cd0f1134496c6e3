"""Figures of the study, from tables, in which ``_low`` and ``_high`` end the names of intervals:
7 inches wide, legible in grey, one message each. ``note`` is the footer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter
from numpy.typing import NDArray

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.metrics import chance
from dinolizer.study.statistics import ALL_FAMILIES

Images = Sequence[NDArray[Any]]
Lines = Mapping[str, float] | None
WIDTH = 7.0  # inches: a text width
MARKERS, DASHES = "osD^vP*d<>", ("-", "--", ":", "-.")
APART = 0.01  # share of the width between intervals of several curves at one place
REFERENCE: dict[str, Any] = {"color": "black", "linestyle": ":"}  # floors, chance


def style() -> None:
    """Set the look of all figures that are drawn from now on."""
    rc: dict[str, Any] = {"legend.frameon": False, "grid.color": "0.9", "axes.grid": True}
    rc |= {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc=rc)
    np.random.seed(0)  # by which seaborn spreads points: figures can be made again


def pictures(columns: Mapping[str, Any], titles: Sequence[str], note: str) -> Figure:
    """Show examples, named by ``titles``, a row each or, if there are more of them than columns, a
    column each. An array is an image, also float in [0, 1]; a mask; labels, uint8 (H, W), from 0 to
    2; or a probability, float (H, W), whose mask is outlined."""
    across = len(titles) > len(columns)
    largest = max(image.shape[0] / image.shape[1] for image in next(iter(columns.values())))
    rows, wide = sorted((len(titles), len(columns)))
    figure, grid = panels(rows, wide, 0.6 + rows * 6.4 / wide * largest, note)
    for line, (name, arrays) in zip(grid if across else grid.T, columns.items(), strict=True):
        for panel, array, title in zip(line, arrays, titles, strict=True):
            above, beside = (title, name) if across else (name, title)
            is_map = array.ndim == 2 and array.dtype.kind == "f"
            drawn = _show(panel, array, array > 0.5 if is_map else None)
            panel.set_title(above if panel in grid[0] else "", fontsize=10 if wide < 5 else 8)
            panel.set_ylabel(beside if panel in grid[:, 0] else "", fontsize=10 if wide < 5 else 8)
            if is_map and len(figure.axes) == grid.size:
                figure.colorbar(drawn, ax=grid, fraction=0.02, pad=0.01, label="probability")
    return figure


def gallery(
    images: Images, masks: Images, titles: Sequence[str], note: str, columns: int = 5
) -> Figure:
    """Show images in a grid, each with its mask as an outline."""
    rows = -(-len(images) // columns)
    largest = max(image.shape[0] / image.shape[1] for image in images)
    height = 0.4 + rows * (0.25 + 6.4 / columns * largest)
    figure, grid = panels(rows, columns, height, note, used=len(images))
    for panel, image, mask, title in zip(grid.flat, images, masks, titles, strict=False):
        _show(panel, image, mask)
        panel.set_title(title, fontsize=8)
    return figure


def benchmark(table: pd.DataFrame, rows: pd.DataFrame, note: str) -> Figure:
    """Draw the AP of every method on every family: means, intervals, chance, and the first method's
    photographs. The table is `benchmark_table` of the rows; unseen families get an asterisk."""
    rows = rows[~rows["kind"].isin(AUTHENTIC_KINDS)].assign(of=rows["family"], chance=chance(rows))
    rows = pd.concat([rows, rows.assign(family=ALL_FAMILIES, kind="all")])
    rows, table = (of.assign(label=_families(of)) for of in (rows, table))
    order, methods = list(table["label"].unique()), list(table["method"].unique())
    figure, ((axes,),) = panels(1, 1, 1 + len(order) * (0.2 + 0.06 * len(methods)), note)
    at = {"x": "ap", "y": "label", "hue": "method", "order": order, "hue_order": methods}
    ours, by = rows[rows["method"] == methods[0]], ["label", "method", "group"]
    photos = ours.groupby([*by, "of"])["ap"].mean().groupby(by).mean().reset_index()
    sns.stripplot(photos, **at, dodge=True, jitter=False, size=3, alpha=0.5, legend=False, ax=axes)
    _intervals(axes, table, "ap", "method", order, apart=0.8 / len(methods))  # as the points are
    guessed = rows.groupby(["label", "of"])["chance"].mean().groupby("label").mean()
    ends = np.arange(len(order)) + np.array([[-0.45], [0.45]])
    axes.vlines(guessed[order], *ends, **REFERENCE, label="chance")
    axes.set(xlabel="average precision", ylabel="", xlim=(0, 1))
    _legend(figure, axes)
    return figure


def curves(
    tables: Mapping[str, pd.DataFrame],
    x: str,
    y: str,
    hue: str,
    note: str,
    *,
    label: str,
    lines: Lines = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw one column against another, a curve for each value of a third, with intervals as bars,
    those of several curves side by side. ``tables`` are from the label of a panel's horizontal axis
    to what it shows: text in its order, a ``share`` on a logarithmic scale. ``label`` is of the
    vertical axis, which all share; ``lines`` on it, and ``spans`` of the other, have a name."""
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure, grid = panels(rows, columns, 0.9 + 2.2 * rows, note, used=len(tables), sharey=True)
    order = list(pd.concat(tables.values())[hue].unique())
    for panel, (across, table) in zip(grid.flat, tables.items(), strict=False):
        known = table.dropna(subset=y)
        barred = [name for name in order if _reach(known[known[hue] == name], y).any()]
        for number, name in enumerate(order):
            line = known[known[hue] == name]
            places = line[x]
            if len(barred) > 1 and places.dtype.kind in "if":
                aside = barred.index(name) - (len(barred) - 1) / 2 if name in barred else 0
                on_axis, back = (np.log, np.exp) if x == "share" else (np.asarray, np.asarray)
                places = back(on_axis(places) + APART * columns * aside * np.ptp(on_axis(known[x])))
            look = _look(number) | {"ls": DASHES[number % len(DASHES)], "label": name}
            panel.errorbar(places, line[y], _reach(line, y), **look)
        for name, value in (lines or {}).items():
            panel.axhline(value, **REFERENCE, label=name)
        for number, (name, span) in enumerate((spans or {}).items()):
            panel.axvspan(*span, color=f"C{9 - number}", alpha=0.2, linewidth=0, label=name)
        if table[x].dtype.kind in "if" and table[x].nunique() < 8 and not (table[x] % 1).any():
            panel.set_xticks(sorted(set(table[x])))
        if x == "share":
            share_axis(panel)
        panel.set(xlabel=across, ylabel=label)
    grid[0, 0].set_ylim(min(0, grid[0, 0].get_ylim()[0]), None)
    _legend(figure, grid[0, 0])
    return figure


def dots(
    table: pd.DataFrame, scores: Mapping[str, str], note: str, *, hue: str = "", lines: Lines = None
) -> Figure:
    """Draw scores with intervals as dots, a row for each ``label`` and a panel for each score.
    ``scores`` are from a column to the label of its panel: ``size``, a share, gets a logarithmic
    axis, a change its zero, a corrected interval (``_low_corrected``) a thin line; what the table
    lacks is left out. ``hue`` tells dots apart; ``lines`` are from a score to chance."""
    scores = {score: label for score, label in scores.items() if score in table}
    height = 1.3 + 0.35 * table["label"].nunique()
    alike = all("change" in score for score in scores)
    figure, (row,) = panels(1, len(scores), height, note, sharey=True, sharex=alike)
    order = list(table["label"].unique())
    for panel, (score, label) in zip(row, scores.items(), strict=True):
        if f"{score}_low_corrected" in table:
            wide = [table[f"{score}_{end}_corrected"] for end in ("low", "high")]
            panel.hlines(table["label"].map(order.index), *wide, color="0.6", linewidth=0.8)
        _intervals(panel, table, score, hue, order)
        if score == "size":
            share_axis(panel, ticks=(1,))  # more do not fit beside other panels
        if "change" in score:
            panel.axvline(0, color="0.5", linewidth=0.8)  # dotted is chance
        if lines and score in lines:
            panel.axvline(lines[score], **REFERENCE, label="chance")
        panel.set(xlabel=label, ylabel="")
    _legend(figure, row[0])
    return figure


def differences(table: pd.DataFrame, note: str) -> Figure:
    """Draw a table of `compare`: a panel for each other method, with both intervals."""
    table = table.assign(label=(table["family"] + ", " + table["kind"]).str.removesuffix(", all"))
    wide = table[["label"]].drop_duplicates()
    for other, lines in table.groupby("other", sort=False):
        ends = ["low", "high", "low_corrected", "high_corrected"]
        names = {"difference": f"change {other}"} | {end: f"change {other}_{end}" for end in ends}
        wide = wide.merge(lines[["label", *names]].rename(columns=names), "left", "label")
    others = table["other"].unique()
    scores = {f"change {of}": "AP minus\nthat of\n" + of.replace(" ", "\n", 1) for of in others}
    return dots(wide, scores, note)


def panels(
    rows: int, columns: int, height: float, note: str, used: int | None = None, **settings: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of a height in inches with a footer, and its axes, (rows, columns): those used."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.supxlabel(note, fontsize=7, color="0.35", x=0.01, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False, **settings)
    for panel in grid.flat[used or grid.size :]:
        panel.set_axis_off()
    return figure, grid


def by_score(table: pd.DataFrame, scores: Mapping[str, str]) -> pd.DataFrame:
    """Scores of a table in one column ``value``, with intervals, by their label ``score``."""
    ends = ("", "_low", "_high")
    return pd.concat(
        table.assign(score=label, **{f"value{end}": table.get(f"{name}{end}") for end in ends})
        for name, label in scores.items()
    )


def _legend(figure: Figure, axes: Axes) -> None:
    """The legend of one panel above all of them, each name once."""
    for legend in filter(None, [panel.get_legend() for panel in figure.axes]):
        legend.remove()
    handles, names = axes.get_legend_handles_labels()
    pairs = zip(names, handles, strict=True)
    if each := dict(sorted(pairs, key=lambda pair: not isinstance(pair[1], ErrorbarContainer))):
        fit = 115 // (max(map(len, each)) + 8)  # so many characters, with their line, are 7 inches
        figure.legend(each.values(), each, loc="outside upper center", ncols=min(max(fit, 1), 4))


def _intervals(
    axes: Axes, table: pd.DataFrame, score: str, hue: str, order: Sequence[str], apart: float = 0.2
) -> None:
    """Draw a score with its intervals, a row for each ``label``; values of ``hue`` lie apart."""
    named = table.groupby(hue, sort=False) if hue else [("", table)]
    for number, (name, lines) in enumerate(named):
        aside = apart * (number - (len(named) - 1) / 2)
        look = _look(number) | {"ls": "none", "label": name or None}
        rows = lines["label"].map(order.index) + aside
        axes.errorbar(lines[score], rows, xerr=_reach(lines, score), **look)
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.5, -0.5)


def _look(number: int) -> dict[str, Any]:
    look: dict[str, Any] = {"color": f"C{number}", "marker": MARKERS[number % len(MARKERS)]}
    return look | {"markersize": 4, "markeredgewidth": 0, "elinewidth": 1.2}


def _reach(table: pd.DataFrame, score: str) -> NDArray[np.float64]:
    """How far the interval of a score reaches down and up, (2, N); 0 where there is none."""
    ends = [table.get(f"{score}_{end}", table[score]) - table[score] for end in ("low", "high")]
    return np.nan_to_num(np.abs(ends).astype(float))


def _show(axes: Axes, array: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> Any:
    """An image, mask, labels or map, as in `pictures`, with the outline of a mask."""
    colours = "cividis" if array.ndim == 2 and array.dtype.kind == "f" else "gray"
    drawn = axes.imshow(array, cmap=colours, vmin=0, vmax=2 if array.dtype == np.uint8 else 1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if mask is not None and mask.any() and not mask.all():
        zoom = -(-256 // mask.shape[1])  # contours cut the corners of large pixels
        across, down = ((np.arange(zoom * n) + 0.5) / zoom - 0.5 for n in mask.shape[::-1])
        fine = mask.repeat(zoom, axis=0).repeat(zoom, axis=1)
        for colour, width in (("white", 1.6), ("black", 0.7)):
            axes.contour(across, down, fine, levels=[0.5], colors=colour, linewidths=width)
    return drawn


def share_axis(axes: Axes, ticks: Sequence[float] = (1, 3)) -> None:
    """A logarithmic axis of shares in percent, with ticks at these multiples of powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.minorticks_off()


def _families(table: pd.DataFrame) -> "pd.Series[str]":
    kinds = table["kind"] + np.where(table["seen"].astype(bool), "", "*")
    return table["family"].where(table["kind"] == "all", table["family"] + ", " + kinds)
