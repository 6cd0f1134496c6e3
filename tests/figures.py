"""What tests of figures share: lines of a table to draw, and which texts cover each other."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox


def with_interval(value: float, name: str = "iou") -> dict[str, float]:
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.05}


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, once the figure is laid out."""
    figure.draw_without_rendering()
    placed: list[tuple[str, Bbox]] = []
    for axes in figure.axes:
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        labels += [axes.xaxis.label, axes.yaxis.label, axes.title]
        # A turned label's box is larger than its letters.
        placed += [
            (label.get_text(), label.get_window_extent())
            for label in labels
            if label.get_text() and label.get_visible() and label.get_rotation() in (0, 90)
        ]
    for legend in figure.legends:
        placed += [(text.get_text(), text.get_window_extent()) for text in legend.get_texts()]
    return [
        (first, second)
        for (first, box), (second, other) in combinations(placed, 2)
        if Bbox.intersection(box.padded(-1), other.padded(-1)) is not None
    ]
