"""Figures show the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dinolizer.study import curves


def table(scores: list[str], lines: int = 3, **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(columns, index=range(lines))
    for number, score in enumerate(scores):
        frame[score] = np.linspace(0.2, 0.6, lines) + number / 10
        frame[f"{score}_low"], frame[f"{score}_high"] = frame[score] - 0.1, frame[score] + 0.1
    return frame


def drawn(figure: Figure, panel: int, line: int) -> list[float]:
    figure.canvas.draw()
    return [float(value) for value in np.ravel(figure.axes[panel].lines[line].get_ydata())]


def test_size_curves_draw_every_score_and_leave_out_what_is_empty() -> None:
    sizes = table(["iou", "recall", "missed"], share=[0.01, 0.1, 0.5])
    tables = {"window": sizes, "image": sizes.iloc[:0]}
    figure = curves.size_curves(tables, (0.05, 0.02, 0.1), (0.12, 0.2), "a note")
    assert drawn(figure, 0, 0) == sizes["iou"].tolist()
    assert drawn(figure, 2, 0) == sizes["missed"].tolist()
    assert len(figure.axes[0].lines) == 1
    assert figure.get_supxlabel() == "a note"
    nothing = curves.size_curves(tables, (np.nan,) * 3, (0.12, 0.2), "")
    assert len(nothing.axes[2].lines) == 1


def test_dots_lie_where_the_table_says() -> None:
    first = table(["iou", "change"], label=list("abc")).assign(marked=0.1)
    second = table(["iou", "change"], lines=2, label=list("de")).assign(marked=0.2)
    figure = curves.comparison_dots(
        [("one", first), ("two", second)],
        {"iou": "IoU", "change": "change", "marked": "marked"},
        "a note",
    )
    figure.canvas.draw()
    assert list(figure.axes[0].lines[0].get_xdata()) == first["iou"].tolist()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == list("abcde")
    assert [panel.get_xlabel() for panel in figure.axes] == ["IoU", "change", "marked"]


@pytest.mark.parametrize("layers", [[1, 2, 3], [3, 6, 12]])
def test_layers_are_a_curve_for_each_backbone(layers: list[int]) -> None:
    both = [table(["iou"], layer=layers, backbone=name) for name in ("a", "b")]
    figure = curves.layer_curves(pd.concat(both), "a note")
    assert drawn(figure, 0, 1) == both[1]["iou"].tolist()
    assert figure.axes[0].get_xticks().tolist() == layers
