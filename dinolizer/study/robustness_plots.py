"""Figures of the robustness study; their looks are those of `dinolizer.study.plots`."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.study.plots import PALETTE, canvas, empty_figure, line_look

# Where the undegraded images stand on each axis; qualities end at 100, so beside it.
CLEAN_LEVEL = {"jpeg": 112, "webp": 105, "noise": 0, "blur": 1, "resize": 1, "rescale": 1}
COLUMNS = 2


def robustness_curves(table: pd.DataFrame, note: str) -> Figure:
    """Draw IoU against the level of each single degradation, a panel each, intervals as bands.

    Parameters
    ----------
    table : of `dinolizer.study.evaluation.score_table`; its lines without degradation
        (``"none"``) become the point ``none`` of every curve.
    note : the footer.
    """
    single = table[table["before"] == "none"]
    names = [name for name in DEGRADATIONS if (single["degradation"] == name).any()]
    figure, panels = _panels(len(names), note)
    for panel, name in zip(panels, names, strict=True):
        levels = _with_start(single[single["degradation"].isin([name, "none"])], name)
        _curves(panel, levels)
        _level_ticks(panel, levels, name, "none")
        panel.set_xlabel(DEGRADATIONS[name].label)
    _finish(figure, table)
    return figure


def chain_curves(table: pd.DataFrame, note: str) -> Figure:
    """Draw IoU against the JPEG quality after another step, a panel for each such step.

    Every curve ends, as ``no JPEG``, at the first step alone. The first method's curve of JPEG
    without a first step is drawn beside it in grey.

    Parameters
    ----------
    table : as in `robustness_curves`; its lines with a step before are drawn.
    note : the footer.
    """
    table = table.assign(step=table["degradation"] + table["level"].map(" {:g}".format))
    first = [name for name in table["before"].unique() if name != "none"]
    alone = table[table["before"] == "none"]
    own = alone[alone["method"] == table["method"].iloc[0]]
    only_jpeg = _with_start(own[own["degradation"].isin(["jpeg", "none"])], "jpeg")
    figure, panels = _panels(len(first), note)
    for panel, name in zip(panels, first, strict=True):
        start = alone[alone["step"] == name].assign(level=CLEAN_LEVEL["jpeg"])
        levels = pd.concat([table[table["before"] == name], start])
        drawn = only_jpeg[only_jpeg["level"] >= levels["level"].min()].sort_values("level")
        _curves(panel, levels)
        label = f"{own['method'].iloc[0]}, JPEG alone"
        panel.plot(drawn["level"], drawn["iou"], label=label, color="0.55", linewidth=1)
        _level_ticks(panel, levels, "jpeg", "no JPEG")
        panel.set_xlabel(f"JPEG quality after {name}")
    _finish(figure, table)
    return figure


def quality_heatmap(table: pd.DataFrame, note: str) -> Figure:
    """Draw the IoU after two JPEG compressions: first quality down, second across.

    Parameters
    ----------
    table : a line for each pair, with ``first`` (``"none"`` where there was no first compression),
        ``second``, ``iou, iou_low, iou_high``.
    note : the footer.
    """
    figure, axes = canvas(4.2, note)
    cells = table.assign(
        text=[
            f"{line['iou']:.2f}\n{line['iou_low']:.2f} to {line['iou_high']:.2f}"
            for line in table.to_dict("records")
        ]
    )
    order = list(cells["first"].unique())
    values, texts = (
        cells.pivot(index="first", columns="second", values=name).loc[order]
        for name in ("iou", "text")
    )
    sns.heatmap(
        values,
        annot=texts,
        fmt="",
        annot_kws={"fontsize": 8},
        cmap="cividis",
        vmin=0,
        linewidths=0.5,
        ax=axes,
        cbar_kws={"label": "IoU, mean over families"},
    )
    for text, colour in zip(axes.texts, axes.collections[0].get_facecolor(), strict=True):
        # Where the contrast (WCAG 2) with black equals that with white.
        text.set_color("black" if relative_luminance(colour) > 0.18 else "white")
    axes.set(xlabel="second JPEG quality", ylabel="first JPEG quality")
    axes.tick_params(length=0, rotation=0)
    return figure


def _panels(count: int, note: str) -> tuple[Figure, list[Axes]]:
    """Panels that share their IoU axis, row by row."""
    rows, columns = -(-count // COLUMNS), min(COLUMNS, count)
    figure = empty_figure(0.7 + 2.15 * rows, note)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels[:count:columns]:
        panel.set_ylabel("IoU, mean over families")
    return figure, panels[:count]


def _with_start(levels: pd.DataFrame, name: str) -> pd.DataFrame:
    """The lines of one degradation, with the undegraded ones at their place on its axis."""
    return levels.assign(level=levels["level"].fillna(CLEAN_LEVEL[name]))


def _curves(panel: Axes, levels: pd.DataFrame) -> None:
    """A curve and a band for each method."""
    for number, (method, lines) in enumerate(levels.groupby("method", sort=False)):
        ordered = lines.sort_values("level")
        panel.plot(ordered["level"], ordered["iou"], label=method, **line_look(number))
        band = {"color": PALETTE[number], "alpha": 0.13, "linewidth": 0}
        panel.fill_between(ordered["level"], ordered["iou_low"], ordered["iou_high"], **band)


def _level_ticks(panel: Axes, levels: pd.DataFrame, name: str, start: str) -> None:
    ticks = sorted(levels["level"].unique())
    labels = [start if tick == CLEAN_LEVEL[name] else f"{tick:g}" for tick in ticks]
    panel.set_xticks(ticks, labels)


def _finish(figure: Figure, table: pd.DataFrame) -> None:
    """One scale for all panels, and one legend."""
    figure.axes[0].set_ylim(0, min(1, 1.05 * table["iou_high"].fillna(table["iou"]).max()))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = len(labels) if len(labels) < 5 else 3
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
