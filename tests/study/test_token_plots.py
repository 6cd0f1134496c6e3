"""Figures of tokens show the numbers of their tables."""

import numpy as np
import pandas as pd
from figures import overlapping

from dinolizer.study import token_plots


def with_ends(score: str, values: list[float]) -> dict[str, list[float]]:
    ends = {
        f"{score}_{end}": [value + by for value in values]
        for end, by in (("low", -0.1), ("high", 0.1))
    }
    return {score: values} | ends


def test_similarity_has_a_panel_for_each_pair_and_is_the_same_both_ways() -> None:
    cells = [("v2", 1, "v2", 1, 1.0), ("v2", 1, "v2", 2, 0.9), ("v2", 2, "v2", 2, 1.0)]
    cells += [("v2", 1, "v3", 1, 0.3), ("v2", 2, "v3", 1, 0.4), ("v3", 1, "v3", 1, 1.0)]
    table = pd.DataFrame(cells, columns=["first", "first_layer", "second", "second_layer", "cka"])
    figure = token_plots.similarity_maps(table, "a note")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:3]]
    assert shown[0].tolist() == [[1.0, 0.9], [0.9, 1.0]]
    assert shown[1].tolist() == [[1.0]]
    assert shown[2].tolist() == [[0.3], [0.4]]
    assert [text.get_text() for text in figure.axes[2].texts] == ["0.30", "0.40"]
    assert figure.get_supxlabel() == "a note"
    assert overlapping(figure) == []


def test_curves_of_tokens_are_those_of_the_tables() -> None:
    correlation = pd.DataFrame(
        {"backbone": "v2", "distance": [14, 28]} | with_ends("correlation", [0.7, 0.5])
    )
    accuracy = pd.DataFrame(
        {"backbone": ["v2", "v2", "v3", "v3"], "layer": [1, 2, 1, 2], "generators": "seen"}
        | with_ends("accuracy", [0.5, 0.6, 0.4, 0.45])
    )
    changes = pd.DataFrame(
        {"backbone": "v2", "degradation": ["jpeg", "jpeg", "noise"], "level": [90, 50, 3]}
        | with_ends("change", [0.1, 0.3, 0.2])
    )
    figure = token_plots.token_curves(correlation, accuracy, changes, "a note")
    lines = [[list(line.get_ydata()) for line in axes.lines] for axes in figure.axes]
    assert lines[0][0] == [0.7, 0.5]
    assert lines[1][:2] == [[0.5, 0.6], [0.4, 0.45]]
    assert lines[2] == [[0.1, 0.3]]
    assert lines[3] == [[0.2]]
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["v2, seen", "v3, seen", "chance"]


def test_pictures_have_a_row_for_what_is_shown_and_a_column_for_each_crop() -> None:
    image, truth, picture = np.zeros((28, 28, 3), np.uint8), np.eye(2), np.full((2, 2, 3), 0.5)
    figure = token_plots.token_pictures(
        [image] * 3, [truth] * 3, {"v2": [picture] * 3, "v3": [picture / 2] * 3}, list("abc"), ""
    )
    rows = np.array(figure.axes).reshape(4, 3)
    assert [panel.get_title() for panel in rows[0]] == list("abc")
    assert [panel.get_ylabel() for panel in rows[:, 0]] == ["image", "edited", "v2", "v3"]
    assert np.asarray(rows[1, 2].images[0].get_array()).tolist() == truth.tolist()
    assert np.asarray(rows[3, 0].images[0].get_array()).tolist() == (picture / 2).tolist()
