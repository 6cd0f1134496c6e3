"""Figures of the study, from tables, in which ``_low`` and ``_high`` end the names of intervals:
7 inches wide, legible in grey, one message each. ``note`` is the footer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter
from numpy.typing import NDArray

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.statistics import ALL_FAMILIES

Images = Sequence[NDArray[Any]]
Lines = Mapping[str, float] | None
WIDTH = 7.0  # inches: a text width
FLOOR = "everything predicted"
"""What a mask of the whole image scores: no method should be below it."""
REFERENCE: dict[str, Any] = {"color": "black", "linestyle": ":"}  # floors, chance, zero
# How seaborn draws `_with_ends`: the score, and its given interval.
INTERVAL: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}


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
    figure, grid = panels(rows, columns, rows * 1.85 + 0.3, note, used=len(images))
    for panel, image, mask, title in zip(grid.flat, images, masks, titles, strict=False):
        _show(panel, image, mask)
        panel.set_title(title, fontsize=8)
    return figure


def benchmark(table: pd.DataFrame, rows: pd.DataFrame, note: str) -> Figure:
    """Draw the AP of every method on every family: intervals, photographs as points, chance. The
    table is `benchmark_table` of the rows; families unseen in training get an asterisk."""
    figure, ((axes,),) = panels(1, 1, 3.8, note)
    rows = rows[~rows["kind"].isin(AUTHENTIC_KINDS)]
    rows = pd.concat([rows, rows.assign(family=ALL_FAMILIES, kind="all")])
    rows, table = (of.assign(label=_families(of)) for of in (rows, table))
    order, methods = list(table["label"].unique()), list(table["method"].unique())
    at = {"x": "label", "y": "ap", "hue": "method", "order": order, "hue_order": methods}
    thin = {"color": "0.15", "linewidth": 1}
    sns.barplot(_with_ends(table, "ap"), **at, **INTERVAL, err_kws=thin, ax=axes)
    photos = rows.groupby(["label", "method", "group"], sort=False)["ap"].mean().reset_index()
    points = {"dodge": True, "size": 2, "palette": ["0.3"] * len(methods), "legend": False}
    sns.stripplot(photos, **at, **points, ax=axes)
    share = (rows["tp"] + rows["fn"]) / rows[["tp", "fp", "fn", "tn"]].sum(axis=1)
    ends = np.arange(len(order)) + np.array([[-0.45], [0.45]])
    axes.hlines(share.groupby(rows["label"]).mean()[order], *ends, **REFERENCE, label="chance")
    axes.set_xticks(range(len(order)), order, rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlabel="", ylabel="average precision", ylim=(0, 1))
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
    """Draw one column against another, a curve with its band for each value of a third. ``tables``
    are from the label of a panel's horizontal axis to what it shows: text in its order, at equal
    distances, and a ``share`` on a logarithmic scale. ``label`` is of the vertical axis, which all
    share; ``lines`` on it, and ``spans`` of the other, have a name, such as chance."""
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure, grid = panels(rows, columns, 0.9 + 2.2 * rows, note, used=len(tables), sharey=True)
    order = list(pd.concat(tables.values())[hue].unique())
    for panel, (across, table) in zip(grid.flat, tables.items(), strict=False):
        look = {"hue": hue, "hue_order": order, "style": hue, "style_order": order} | INTERVAL
        look["err_kws"] = {"alpha": 0.1}
        sns.lineplot(
            _with_ends(table.dropna(subset=y), y), x=x, y=y, markers=True, **look, ax=panel
        )
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
    lacks is left out. ``hue`` tells dots of one row apart; ``lines`` are from a score to its floor.
    """
    scores = {score: label for score, label in scores.items() if score in table}
    height = 1.3 + 0.35 * table["label"].nunique()
    figure, (row,) = panels(1, len(scores), height, note, sharey=True)
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4, "err_kws": {"linewidth": 1.6}}
    if hue and (count := table[hue].nunique()) > 1:
        look |= {"dodge": 0.2 * (count - 1), "markers": ["o", "s", "^", "D"][:count]}
    for panel, (score, label) in zip(row, scores.items(), strict=True):
        ends = _with_ends(table, score)
        sns.pointplot(ends, x=score, y="label", hue=hue or None, **look, **INTERVAL, ax=panel)
        if f"{score}_low_corrected" in table:
            wide = [table[f"{score}_{end}_corrected"] for end in ("low", "high")]
            panel.hlines(table["label"], *wide, color="0.6", linewidth=0.8)
        if score == "size":
            share_axis(panel, ticks=(1,))  # more do not fit beside other panels
        if "change" in score:
            panel.axvline(0, **REFERENCE)
        if lines and score in lines:
            panel.axvline(lines[score], **REFERENCE, label=FLOOR)
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
    scores = {f"change {of}": "AP less that of\n" + of.replace(" ", "\n", 1) for of in others}
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
    each = dict(zip(names, handles, strict=True))
    if each:
        fit = 115 // (max(map(len, each)) + 8)  # so many characters, with their line, are 7 inches
        figure.legend(each.values(), each, loc="outside upper center", ncols=min(max(fit, 1), 4))


def _with_ends(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Three lines for each: the score and the ends of its interval around it, for `INTERVAL`."""
    if f"{score}_low" not in table:
        return table
    low = table[[score, f"{score}_low"]].min(axis=1)
    high = table[[score, f"{score}_high"]].max(axis=1)
    return pd.concat([table, *(table.assign(**{score: ends}) for ends in (low, high))])


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
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.minorticks_off()


def _families(table: pd.DataFrame) -> "pd.Series[str]":
    kinds = table["kind"] + np.where(table["seen"].astype(bool), "", "*")
    return table["family"].where(table["kind"] == "all", table["family"] + ", " + kinds)
