"""Figures of what tokens hold; looks as in `plots`."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dinolizer.data.degradations import DEGRADATIONS
from dinolizer.study.curves import with_band
from dinolizer.study.plots import empty_figure


def similarity_maps(table: pd.DataFrame, note: str) -> Figure:
    """Draw the linear CKA of every two layers, a panel for each pair of backbones.

    Parameters
    ----------
    table : of `dinolizer.study.experiments.representations.cka_table`.
    note : the footer.
    """
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    pairs = [(name, name) for name in names] + list(combinations(names, 2))
    figure = empty_figure(2.9, note)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, (first, second) in zip(panels, pairs, strict=True):
        lines = table[(table["first"] == first) & (table["second"] == second)]
        cells = lines.pivot(index="first_layer", columns="second_layer", values="cka")
        values = (cells.fillna(cells.T) if first == second else cells).to_numpy(float)
        drawn = panel.imshow(values, cmap="cividis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            look = {"ha": "center", "va": "center", "fontsize": 7}
            panel.text(
                column, row, f"{value:.2f}", color="white" if value < 0.5 else "black", **look
            )
        panel.set_xticks(range(cells.shape[1]), [str(layer) for layer in cells.columns])
        panel.set_yticks(range(cells.shape[0]), [str(layer) for layer in cells.index])
        panel.set(xlabel=f"layer of {second}", ylabel=f"layer of {first}")
        panel.grid(False)
    bar = figure.colorbar(drawn, ax=panels, fraction=0.03, pad=0.01)
    bar.set_label("linear CKA")
    return figure


def token_curves(
    correlation: pd.DataFrame, accuracy: pd.DataFrame, changes: pd.DataFrame, note: str
) -> Figure:
    """Draw how far tokens agree, what layers tell apart, and what degradations move.

    Parameters
    ----------
    correlation : ``backbone, distance, correlation`` and its interval.
    accuracy : ``backbone, layer, generators, accuracy`` and its interval.
    changes : ``backbone, degradation, level, change`` and its interval, of the last layer.
    note : the footer.
    """
    figure = empty_figure(5.2, note)
    panels = figure.subplots(2, 2)
    _curves(panels[0, 0], correlation, correlation["backbone"], "distance", "correlation")
    panels[0, 0].axhline(0, color="0.4", linewidth=0.8)
    panels[0, 0].set(xlabel="distance between tokens [pixels]", ylabel="correlation of tokens")
    names = accuracy["backbone"] + ", " + accuracy["generators"]
    _curves(panels[0, 1], accuracy, names, "layer", "accuracy")
    panels[0, 1].axhline(1 / 3, color="0.4", linewidth=0.8, linestyle=":", label="chance")
    panels[0, 1].set_xticks(sorted(set(accuracy["layer"])))
    panels[0, 1].set(xlabel="layer of the tokens", ylabel="balanced accuracy,\nthree classes")
    panels[0, 1].set_ylim(0, None)
    for panel, name in zip(panels[1], ("jpeg", "noise"), strict=True):
        own = changes[changes["degradation"] == name]
        _curves(panel, own, own["backbone"], "level", "change")
        panel.set_xticks(sorted(set(own["level"])))
        label = "change of tokens\n(1: as far as any other)"
        panel.set(xlabel=DEGRADATIONS[name].label, ylabel=label, ylim=(0, None))
    panels[1, 0].invert_xaxis()
    panels[0, 0].set_ylim(None, 1)
    for panel in panels[0]:
        panel.legend(loc="lower left")
    return figure


def token_pictures(
    images: Sequence[NDArray[np.generic]],
    truths: Sequence[NDArray[np.generic]],
    pictures: Mapping[str, Sequence[NDArray[np.generic]]],
    titles: Sequence[str],
    note: str,
) -> Figure:
    """Show crops, a column each: the image, its labels, and the tokens of every backbone.

    Parameters
    ----------
    images : uint8 (H, W, 3), RGB.
    truths : float (h, w), the share of each patch that is edited.
    pictures : from a backbone to float (h, w, 3) of each crop, see
        `dinolizer.study.experiments.representations.pca_pictures`.
    titles : one per crop, above it.
    note : the footer.
    """
    rows = {"image": images, "edited": truths, **pictures}
    figure = empty_figure(0.4 + 7.0 * len(rows) / len(images), note)
    grid = figure.subplots(len(rows), len(images), squeeze=False)
    for panels, (name, shown) in zip(grid, rows.items(), strict=True):
        for panel, picture in zip(panels, shown, strict=True):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
        panels[0].set_ylabel(name.replace("-", "-\n"), fontsize=8)
    for panel, title in zip(grid[0], titles, strict=True):
        panel.set_title(title, fontsize=7)
    return figure


def _curves(
    axes: Axes, table: pd.DataFrame, labels: "pd.Series[str]", across: str, score: str
) -> None:
    """Draw a curve with its band for each label."""
    for number, (label, own) in enumerate(table.groupby(labels, sort=False)):
        with_band(axes, own, across, score, str(label), number)
