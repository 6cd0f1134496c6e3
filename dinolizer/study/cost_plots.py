"""Figures of what a map costs; their looks are those of `dinolizer.study.plots`."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dinolizer.study.plots import PALETTE, canvas, empty_figure, line_look

GREY = "0.4"
BESIDE = 1.06


def time_panels(
    points: pd.DataFrame, fitted: pd.DataFrame, stages: pd.DataFrame, note: str
) -> Figure:
    """Draw time against pixels with its line, and beside it the time of each stage.

    Parameters
    ----------
    points : of `dinolizer.study.experiments.cost.seconds_by_pixels`; every round is a point.
    fitted : of `dinolizer.study.experiments.cost.line_fit`.
    stages : of `dinolizer.study.experiments.cost.stage_seconds`; the axis is logarithmic.
    note : the footer.
    """
    figure = empty_figure(2.9, note)
    left, right = figure.subplots(1, 2)
    line = fitted.iloc[0]
    ends = np.array([0, 1.05 * points["megapixels"].max()])
    left.plot(points["megapixels"], points["seconds"], **line_look(0) | {"linestyle": ""})
    left.plot(
        ends,
        line["seconds_at_zero"] + ends * line["seconds_per_megapixel"],
        color=GREY,
        label=f"{line['seconds_per_megapixel']:.2f} s a megapixel\n"
        f"({line['low']:.2f} to {line['high']:.2f})",
    )
    left.set(xlabel="size of the image [megapixels]", ylabel="time [s]", xlim=(0, ends[1]))
    left.set_ylim(0, None)
    left.legend(loc="upper left")
    places = np.arange(len(stages))
    milliseconds = 1e3 * stages["seconds"]
    right.plot(milliseconds, places, **line_look(1) | {"linestyle": ""})
    for place, at, share in zip(places, milliseconds, stages["share"], strict=True):
        right.annotate(
            f"{share:.1%}", (at, place), (6, 0), textcoords="offset points", va="center", fontsize=7
        )
    right.set_yticks(places, list(stages["stage"]))
    right.set(xscale="log", xlabel="time of a stage [ms, log scale]")
    right.set_xlim(milliseconds.min() / 2, milliseconds.max() * 6)  # room for the last share
    right.grid(True, axis="x")
    right.invert_yaxis()
    return figure


def roofline(limits: pd.DataFrame, note: str) -> Figure:
    """Draw the backbone under the roof that arithmetic and memory put over it.

    Parameters
    ----------
    limits : of `dinolizer.study.experiments.cost.limits`.
    note : the footer.
    """
    arithmetic, least, most, measured = (line for _, line in limits.iterrows())
    intensities = np.array([arithmetic["amount"] / line["amount"] for line in (most, least)])
    reached = arithmetic["amount"] / (measured["milliseconds"] / 1e3)
    figure, axes = canvas(2.9, note)
    across = np.geomspace(0.3, 3 * intensities.max(), 200)
    roof = np.minimum(arithmetic["rate"], across * least["rate"])
    axes.plot(across, roof, color=GREY, label="roof, measured: copies, then matrix products")
    axes.plot(intensities, [reached] * 2, label="backbone alone, measured", **line_look(0))
    words_of = ("each operation\nby itself", "weights and\npixels only")
    for at, words in zip(intensities, words_of, strict=True):
        axes.annotate(
            words,
            (at, reached),
            (0, -8),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
            color=PALETTE[0],
        )
    axes.set(xscale="log", yscale="log", ylabel="10⁹ operations a second (log scale)")
    axes.set_xlabel("operations for each byte moved (log scale)")
    axes.set(xlim=(across[0], across[-1]))
    axes.set_ylim(min(roof.min(), reached / 5), 2.5 * arithmetic["rate"])
    for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        first, last = np.ceil(np.log10(ends[0])), np.floor(np.log10(ends[1]))
        powers = 10.0 ** np.arange(first, last + 1)
        axis.set_ticks(powers, [f"{power:g}" for power in powers])
    axes.minorticks_off()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def mode_panels(table: pd.DataFrame, lost: float, note: str) -> Figure:
    """Draw what every mode finds, and its change against the exact one, by what it costs.

    Modes of one cost are drawn side by side, each `BESIDE` times as far to the right.

    Parameters
    ----------
    table : of `dinolizer.study.experiments.cost.mode_table`.
    lost : IoU that a fast mode may lose; a dotted line.
    note : the footer.
    """
    figure = empty_figure(3.2, note)
    left, right = figure.subplots(1, 2, sharex=True)
    places = table["tokens"] * BESIDE ** table.groupby("tokens").cumcount()
    for number, (line, at) in enumerate(zip(table.to_dict("records"), places, strict=True)):
        look = line_look(number) | {"linestyle": ""}
        for panel, score in ((left, "iou"), (right, "iou_change")):
            ends = [line[f"{score}_low"], line[f"{score}_high"]]
            panel.plot([at] * 2, ends, color=look["color"], linewidth=1.2)
            panel.plot(at, line[score], label=line["mode"], **look)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.axhline(-lost, color=GREY, linewidth=0.8, linestyle=":")
    left.set(ylabel="IoU, mean over families", ylim=(0, None), xscale="log")
    right.set(ylabel="change of IoU against exact")
    tokens = sorted(set(table["tokens"]))
    left.set_xticks(tokens, [f"{count:.0f}" for count in tokens])
    for panel in (left, right):
        panel.minorticks_off()
        panel.set_xlabel("patch tokens of an image, mean (log scale)")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 5))
    return figure
