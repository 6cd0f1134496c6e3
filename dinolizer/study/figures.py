"""Figures of the study, from tables: 7 inches wide, legible in grey, one message each.

Every function returns a `matplotlib.figure.Figure` that pyplot does not hold; ``note`` is its
footer. Intervals are given, in columns beside a score with the endings ``_low`` and ``_high``.
Methods are told apart by colour, marker and line, in the order in which a table names them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from seaborn.utils import relative_luminance

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.statistics import ALL_FAMILIES

WIDTH = 7.0  # inches: a text width
GREY = "0.4"
FLOOR = "everything predicted"
"""What a mask of the whole image scores: no method should be below it."""
REFERENCE: dict[str, Any] = {"color": "black", "linestyle": ":"}
"""How floors and chance are drawn."""
INTERVAL: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}
"""How seaborn draws `_with_ends`: the score, and its given interval."""
LEAST = 5
"""Cases that a bin of a reliability curve must hold to be drawn: of fewer a share says little."""


def style() -> None:
    """Set fonts, sizes and colours of all figures that are drawn from now on."""
    rc: dict[str, Any] = {"legend.frameon": False, "grid.color": "0.9"}
    rc |= {"axes.spines.top": False, "axes.spines.right": False}
    rc |= {"axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True}
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc=rc)


def mask_areas(manifest: pd.DataFrame, note: str) -> Figure:
    """Draw how large the edits of a manifest are: a histogram of their shares of the image."""
    figure, ((axes,),) = panels(1, 1, 3.0, note)
    edited = manifest[~manifest["authentic"]]
    counts = edited["kind"].value_counts()
    kinds = edited["kind"].map(lambda kind: f"{kind} ({counts[kind]} images)")
    sns.histplot(x=edited["area"], hue=kinds, bins=15, log_scale=True, multiple="stack", ax=axes)
    _share_axis(axes, edited["area"])
    axes.set(xlabel="edited share of the image (log scale)", ylabel="number of images")
    return figure


def pictures(
    columns: Mapping[str, Any],
    titles: Sequence[str],
    note: str,
    *,
    across: bool = False,
) -> Figure:
    """Show examples, a row each, in named columns.

    Parameters
    ----------
    columns : an array of each example: RGB (H, W, 3), uint8 or float in [0, 1]; a mask, bool
        (H, W); labels, uint8 (H, W), from 0 to 2; or a probability, float (H, W),
        whose mask is outlined.
    titles : one per example, beside its row.
    across : whether the examples are the columns instead.
    """
    largest = max(image.shape[0] / image.shape[1] for image in next(iter(columns.values())))
    rows, across_page = (len(columns), len(titles))[:: 1 if across else -1]
    figure, grid = panels(rows, across_page, 0.6 + rows * 6.4 / across_page * largest, note)
    probability = None
    for line, (name, arrays) in zip(grid if across else grid.T, columns.items(), strict=True):
        for panel, array, title in zip(line, arrays, titles, strict=True):
            is_map = array.ndim == 2 and np.issubdtype(array.dtype, np.floating)
            drawn = panel.imshow(
                array,
                cmap="cividis" if is_map else "gray",
                vmin=0,
                vmax=2 if array.dtype == np.uint8 else 1,
            )
            if is_map:
                probability = drawn
                _outline(panel, array > 0.5)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set(visible=True, color="0.6", linewidth=0.5)
            above, beside = (title, name) if across else (name, title)
            panel.set_title(above if panel in grid[0] else "", fontsize=8)
            panel.set_ylabel(beside if panel in grid[:, 0] else "", fontsize=8)
    if probability is not None:
        figure.colorbar(probability, ax=grid, fraction=0.02, pad=0.01, label="probability")
    return figure


def gallery(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    titles: Sequence[str],
    note: str,
    columns: int = 5,
) -> Figure:
    """Show images, uint8 (H, W, 3), in a grid, each with its mask, bool (H, W), as an outline."""
    rows = -(-len(images) // columns)
    figure, grid = panels(rows, columns, rows * 1.85 + 0.3, note)
    for panel in grid.flat:
        panel.set_axis_off()
    for panel, image, mask, title in zip(grid.flat, images, masks, titles, strict=False):
        panel.imshow(image)
        _outline(panel, mask)
        panel.set_title(title, fontsize=8)
    return figure


def benchmark(table: pd.DataFrame, rows: pd.DataFrame, note: str) -> Figure:
    """Draw the IoU of every method on every family: intervals, photographs as points, the floor.

    Families that were not seen in training get an asterisk.

    Parameters
    ----------
    table : of `dinolizer.study.evaluation.benchmark_table`, made of the rows.
    rows : of `dinolizer.study.evaluation.evaluate`.
    """
    figure, ((axes,),) = panels(1, 1, 3.8, note)
    rows = rows[~rows["kind"].isin(AUTHENTIC_KINDS)]
    rows = pd.concat([rows, rows.assign(family=ALL_FAMILIES)])
    rows, table = (of.assign(label=of.apply(_family, axis=1)) for of in (rows, table))
    photos = rows.groupby(["label", "method", "group"], sort=False)["iou"].mean().reset_index()
    order, methods = list(table["label"].unique()), list(table["method"].unique())
    at = {"x": "label", "y": "iou", "hue": "method", "order": order, "hue_order": methods}
    bars = {"err_kws": {"color": "0.15", "linewidth": 1}}
    sns.barplot(_with_ends(table, "iou"), **at, **INTERVAL, **bars, ax=axes)
    points = {"dodge": True, "size": 2, "palette": ["0.3"] * len(methods), "legend": False}
    sns.stripplot(photos, **at, **points, ax=axes)
    share = (rows["tp"] + rows["fn"]) / rows[["tp", "fp", "fn", "tn"]].sum(axis=1)
    ends = np.arange(len(order)) + np.array([[-0.45], [0.45]])
    axes.hlines(share.groupby(rows["label"]).mean()[order], *ends, **REFERENCE, label=FLOOR)
    axes.set_xticks(range(len(order)), order, rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlabel="", ylabel="IoU, mean over images", ylim=(0, 1))
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
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Draw one column against another, a curve with its band for each value of a third.

    Parameters
    ----------
    tables : from the label of a panel's horizontal axis to what it shows; text on it is drawn in
        its order, at equal distances.
    label : of the vertical axis, which all panels share.
    lines : from a name, such as chance, to where it lies.
    """
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure, grid = panels(rows, columns, 0.7 + 2.2 * rows, note, sharey=True)
    order = list(pd.concat(tables.values())[hue].unique())
    for panel, (across, table) in zip(grid.flat, tables.items(), strict=False):
        _curves(panel, table, x, y, hue, hue_order=order, style_order=order)
        for name, value in (lines or {}).items():
            panel.axhline(value, **REFERENCE, label=name)
        if table[x].dtype.kind in "if" and table[x].nunique() < 8 and not (table[x] % 1).any():
            panel.set_xticks(sorted(set(table[x])))
        panel.set(xlabel=across, ylabel=label)
    for panel in grid.ravel()[len(tables) :]:
        panel.set_axis_off()
    panel = grid[0, 0]
    panel.set_ylim(min(0, panel.get_ylim()[0]), None)
    _legend(figure, panel)
    return figure


def dots(
    table: pd.DataFrame,
    scores: Mapping[str, str],
    note: str,
    *,
    hue: str | None = None,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Draw scores with intervals as dots, a row for each ``label`` and a panel for each score.

    Parameters
    ----------
    scores : from a column to the label of its panel; ``size``, a share, gets a logarithmic axis, a
        change its zero.
    hue : a column that tells dots of one row apart.
    lines : from a score to its floor.
    """
    height = 1.3 + 0.35 * table["label"].nunique()
    figure, (row,) = panels(1, len(scores), height, note, sharey=True)
    for panel, (score, label) in zip(row, scores.items(), strict=True):
        _dots(panel, table, score, "label", hue)
        panel.set(xlabel=label, ylabel="")
        panel.grid(True, axis="x")
        if score == "size":
            panel.set(xscale="log", xlim=(0.004, 1.25))
            panel.set_xticks((0.01, 0.1, 1), ("1 %", "10 %", "100 %"))
            panel.minorticks_off()
        if score.endswith("change"):
            panel.axvline(0, color=GREY, linewidth=0.8)
        if lines and score in lines:
            panel.axvline(lines[score], **REFERENCE, label=FLOOR)
    _legend(figure, row[0])
    return figure


def differences(table: pd.DataFrame, note: str) -> Figure:
    """Draw the differences to every other method, a panel each, with both intervals of
    `dinolizer.study.statistics.compare`; filled where significant after correction."""
    table = table.assign(label=(table["family"] + ", " + table["kind"]).str.removesuffix(", all"))
    others, labels = list(table["other"].unique()), list(table["label"].unique())
    rows, columns = -(-len(others) // 4), min(4, len(others))
    height = 0.9 + rows * (0.4 + 0.2 * len(labels))
    figure, grid = panels(rows, columns, height, note, sharex=True, sharey=True)
    for panel in grid.ravel()[len(others) :]:
        panel.set_axis_off()
    for panel, other in zip(grid.ravel(), others, strict=False):
        lines = table[table["other"] == other].set_index("label").reindex(labels)
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.hlines(
            labels, lines["low_corrected"], lines["high_corrected"], color="0.6", linewidth=0.8
        )
        panel.hlines(labels, lines["low"], lines["high"], color="0.15", linewidth=2)
        clear = lines["significant_corrected"].astype(bool)
        for chosen, fill, name in (
            (clear, "0.15", "significant after correction"),
            (~clear, "white", "not significant"),
        ):
            look = {"color": "0.15", "markerfacecolor": fill, "label": name}
            panel.plot(lines["difference"][chosen], lines.index[chosen], "o", **look)
        panel.set(title=f"to {other}", xlabel="difference in IoU")
        panel.grid(axis="x")
    grid[0, 0].invert_yaxis()
    _legend(figure, grid[0, 0])
    return figure


def heatmaps(
    tables: Mapping[str, pd.DataFrame], row: str, column: str, score: str, label: str, note: str
) -> Figure:
    """Draw a score from 0 to 1 as cells that name it, and its interval where there is one.

    Parameters
    ----------
    tables : from the title of a panel to what it shows.
    row, column, score : columns; rows and columns of cells come in the order of the table.
    label : of the score.
    """
    most = max(table[row].nunique() for table in tables.values())
    figure, (line,) = panels(1, len(tables), 1.3 + 0.5 * most, note)
    for panel, (title, table) in zip(line, tables.items(), strict=True):
        texts = table[score].map("{:.2f}".format)
        if f"{score}_low" in table:
            low, high = (table[f"{score}_{end}"].map("{:.2f}".format) for end in ("low", "high"))
            known = table[f"{score}_low"].notna()
            texts = texts + ("\n" + low + " to " + high).where(known, "")
        values, names = (
            table.assign(cell=cell)
            .pivot(index=row, columns=column, values="cell")
            .reindex(index=table[row].unique(), columns=table[column].unique())
            for cell in (table[score], texts)
        )
        look = {"cmap": "cividis", "vmin": 0, "vmax": 1, "linewidths": 0.5, "cbar": False}
        sns.heatmap(values, annot=names, fmt="", annot_kws={"fontsize": 7}, ax=panel, **look)
        for text, colour in zip(panel.texts, panel.collections[0].get_facecolor(), strict=True):
            # Where the contrast (WCAG 2) with black equals that with white.
            text.set_color("black" if relative_luminance(colour) > 0.18 else "white")
        panel.set(title=title, xlabel=column.replace("_", " "), ylabel=row.replace("_", " "))
        panel.tick_params(length=0, rotation=0)
    drawn = line[0].collections[0]
    figure.colorbar(drawn, ax=line, fraction=0.03, pad=0.01, label=label)
    return figure


def reliability(points: Mapping[str, pd.DataFrame], note: str, *, what: str) -> Figure:
    """Draw observed against predicted shares, with intervals, and how often each is predicted.

    Bins of fewer than `LEAST` cases are in the right panel only.

    Parameters
    ----------
    points : from a name to what `dinolizer.study.detection.reliability` gives.
    what : whose share it is, such as ``"pixels"``.
    """
    figure, ((left, right),) = panels(1, 2, 3.4, note, width_ratios=[5, 4])
    table = pd.concat(
        lines.assign(name=name, share=lines["n"] / lines["n"].sum())
        for name, lines in points.items()
    )
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    known = table[table["n"] >= LEAST]
    known = known.rename(columns={"low": "observed_low", "high": "observed_high"})
    _curves(left, known, "predicted", "observed", "name", hue_order=list(points), err_style="bars")
    _curves(right, table, "predicted", "share", "name", hue_order=list(points))
    left.set(xlabel=f"predicted share of edited {what}", ylabel=f"observed share of edited {what}")
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    right.set(xlabel="predicted share", ylabel=f"share of the {what} (log scale)", yscale="log")
    _legend(figure, left)
    return figure


def not_run(why: str, note: str) -> Figure:
    """Say in a figure's stead why there is none."""
    figure, ((axes,),) = panels(1, 1, 1.2, note)
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"not run: {why}", ha="center", va="center")
    return figure


def sizes(
    table: pd.DataFrame,
    half: tuple[float, float, float],
    claimed: tuple[float, float],
    note: str,
) -> Figure:
    """Draw IoU, recall and miss rate against the edited share, a panel each.

    Parameters
    ----------
    table : of `dinolizer.study.experiments.edit_size.by_size`, with ``of``: what the share is of.
    half : the size at 50 % detection, a share of the window, and its interval; nan for none.
    claimed : range of the shares below which the paper says that edits are missed.
    """
    figure, (row,) = panels(1, 3, 3.1, note, sharex=True, sharey=True)
    shares = np.geomspace(table["share"].min(), table["share"].max(), 50)
    row[2].plot([], [], **REFERENCE, label=FLOOR)  # for the legend
    row[0].plot(shares, shares, **REFERENCE)  # the intersection is the edit, the union all
    labels = {"iou": "IoU", "recall": "recall of edited pixels", "missed": "share of edits missed"}
    for panel, (score, label) in zip(row, labels.items(), strict=True):
        _curves(panel, table, "share", score, "of")
        panel.axvspan(*claimed, color="0.85", linewidth=0, label="paper: missed below", zorder=0)
        panel.set(title=label, xscale="log", ylim=(0, 1), xlabel="edited share", ylabel="")
        _share_axis(panel, table["share"])
    row[0].set_ylabel("mean over edits")
    value, low, high = half
    look = {"color": "0.2", "fmt": "x", "label": "50 % detection (fit)", "capsize": 2}
    row[2].errorbar(value, 0.5, xerr=[[value - low], [high - value]], **look)
    _legend(figure, row[2])
    return figure


def detection_by_size(
    table: pd.DataFrame,
    edits: pd.DataFrame,
    sizes: pd.DataFrame,
    windows: float,
    claimed: tuple[float, float],
    note: str,
) -> Figure:
    """Draw the share of edits detected, by each rule, and IoU against the edited share of the image
    and, above, of a window.

    Parameters
    ----------
    table : a line for each bin: ``share``, and ``iou`` and a column for each rule with intervals.
    edits : the single edits: ``area, iou``.
    sizes : the size at 50 % detection by each rule: ``column`` and ``rule``, its name.
    windows : an edit's share of a window is so many times that of the image.
    claimed : range of the shares of a window below which the paper says that edits are missed.
    """
    figure, ((left, right),) = panels(1, 2, 4.2, note, sharex=True)

    def curve(panel: Axes, column: str, label: str, **look: Any) -> None:
        ends = [(table[column] - table[f"{column}_{end}"]).abs() for end in ("low", "high")]
        look |= {"capsize": 2, "markersize": 4, "label": label}
        panel.errorbar(table["share"], table[column], yerr=ends, **look)

    styles = (("C0", "o-"), ("C1", "s--"))
    for line, (colour, style) in zip(sizes.to_dict("records"), styles, strict=True):
        curve(left, line["column"], line["rule"], color=colour, fmt=style)
        ends = [[abs(line["size"] - line[f"size_{end}"])] for end in ("low", "high")]
        left.errorbar(line["size"], 0.5, xerr=ends, fmt="x", color=colour, capsize=2)
    left.plot([], [], "x", color="0.2", label="its size at 50 % detection (fit)")
    least = edits["area"].min()
    right.plot(edits["area"], edits["iou"], ".", color="0.75", markersize=3, label="single edits")
    curve(right, "iou", "mean of the edits", color="0.15", fmt="o-")
    shares = np.geomspace(least, 1, 50)
    right.plot(shares, shares, **REFERENCE, label=FLOOR)
    for panel, label in ((left, "share of edits detected"), (right, "IoU")):
        panel.axvspan(1e-3, least, color="0.95", linewidth=0, label="no edit so small", zorder=0)
        span = [end / windows for end in claimed]
        panel.axvspan(*span, color="0.85", linewidth=0, label="paper: missed below", zorder=0)
        panel.set(xscale="log", xlim=(0.004, 1.1), ylim=(0, 1.03), ylabel=label)
        panel.set_xlabel("edited share of the image")
        _share_axis(panel, pd.Series([0.004, 1.1]))
        above = panel.secondary_xaxis("top", (lambda x: x * windows, lambda x: x / windows))
        above.set_xticks([0.03, 0.1, 0.3, 1], ["3 %", "10 %", "30 %", "100 %"])
        above.minorticks_off()
        above.set_xlabel("edited share of a window, at most")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7)
    return figure


def roc(
    curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, tuple[float, float]], note: str
) -> Figure:
    """Draw ROC curves, whole and their upper left corner.

    Parameters
    ----------
    curves : from a name to the points ``false_positive_rate, sensitivity``.
    chosen : from the same names to the point of the threshold in use.
    """
    figure, ((whole, corner),) = panels(1, 2, 3.7, note)
    for panel in (whole, corner):
        for (name, points), style in zip(curves.items(), ("-", "--"), strict=False):
            drawn = panel.step(*points.to_numpy().T, where="post", linestyle=style, label=name)
            panel.plot(*chosen[name], "o", color=drawn[0].get_color())
        panel.plot([0, 1], [0, 1], **REFERENCE, label="chance")
        panel.plot([], [], "o", color="0.4", label="threshold in use")
        panel.set(xlabel="false-positive rate", ylabel="sensitivity", aspect="equal")
    whole.set(xlim=(-0.01, 1), ylim=(0, 1.01))
    corner.set(xlim=(-0.002, 0.2), ylim=(0.8, 1.002))
    corner.set(xticks=(0, 0.05, 0.1, 0.15, 0.2), yticks=(0.8, 0.85, 0.9, 0.95, 1))
    _legend(figure, whole)
    return figure


def agreement(
    rows: pd.DataFrame, scores: Mapping[str, str], names: tuple[str, str], note: str
) -> Figure:
    """Draw scores of one against those of another, in columns with the ending ``_ours``, image by
    image; ``scores`` is from a column to its label, ``names`` are who is across and who is up."""
    figure, (line,) = panels(1, len(scores), 3.6, note)
    for panel, (score, label) in zip(line, scores.items(), strict=True):
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        panel.plot(rows[score], rows[f"{score}_ours"], ".", markersize=3)
        panel.set(title=label, xlabel=names[0], ylabel=names[1], aspect="equal")
    return figure


def panels(
    rows: int, columns: int, height: float, note: str, **settings: Any
) -> tuple[Figure, NDArray[Any]]:
    """Make a figure of that height in inches, with its footer, and its axes, (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.supxlabel(note, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def _legend(figure: Figure, axes: Axes) -> None:
    """The legend of one panel above all of them."""
    for panel in figure.axes:
        if (legend := panel.get_legend()) is not None:
            legend.remove()
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 4))


def _with_ends(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Three lines for each: the score and the ends of its interval around it, for `INTERVAL`."""
    if f"{score}_low" not in table:
        return table
    low = table[[score, f"{score}_low"]].min(axis=1)
    high = table[[score, f"{score}_high"]].max(axis=1)
    return pd.concat([table, *(table.assign(**{score: ends}) for ends in (low, high))])


def _curves(axes: Axes, table: pd.DataFrame, x: str, y: str, hue: str, **settings: Any) -> None:
    """A curve for each value of a column, with its interval as a band."""
    look = {"hue": hue, "style": hue, "markers": True} | INTERVAL | settings
    sns.lineplot(_with_ends(table, y), x=x, y=y, **look, ax=axes)


def _dots(axes: Axes, table: pd.DataFrame, x: str, y: str, hue: str | None) -> None:
    """A dot with its interval for each line; the score is on the axis that is not ``label``."""
    count = 1 if hue is None else table[hue].nunique()
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4, "err_kws": {"linewidth": 1.4}}
    if count > 1:
        look |= {"dodge": 0.2 * (count - 1), "markers": ["o", "s", "^", "D"][:count]}
    table = _with_ends(table, x if y == "label" else y)
    sns.pointplot(table, x=x, y=y, hue=hue, **look, **INTERVAL, ax=axes)


def _outline(axes: Axes, mask: NDArray[np.bool_]) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors="white", linewidths=1.6)
        axes.contour(mask, levels=[0.5], colors="black", linewidths=0.7)


def _share_axis(axes: Axes, shares: "pd.Series[float]") -> None:
    """A logarithmic axis of shares in percent."""
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.3, 1) if shares.min() < tick < shares.max()]
    axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.minorticks_off()


def _family(line: "pd.Series[Any]") -> str:
    if line["family"] == ALL_FAMILIES:
        return ALL_FAMILIES
    return f"{line['family']}, {line['kind']}" + ("" if line["seen"] else "*")
