"""Pixels of small pictures, whose colours are worked out by hand."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dinolizer.study import overlays

GREY = np.full((2, 2, 3), 100, np.uint8)


def test_what_is_found_false_and_missed_has_a_colour_each() -> None:
    """65 % of the colour over 35 % of a picture of grey level 100, and the rest as it was."""
    mask, truth = np.array([[1, 1], [0, 0]], bool), np.array([[1, 0], [1, 0]], bool)
    shown = overlays.outcome(GREY, mask, truth)
    found, false = shown[0].tolist()
    missed, rest = shown[1].tolist()
    assert found == [91, 152, 186]  # .65 * (86, 180, 233) + 35
    assert false == [173, 96, 35]
    assert missed == [168, 114, 144]
    assert rest == [100, 100, 100]


def test_over_the_threshold_a_map_is_laid_on_the_picture_and_outlined() -> None:
    """Grey level 100, and a square of 11 pixels of probability 1, the last colour of cividis."""
    image, probability = np.full((31, 31, 3), 100, np.uint8), np.zeros((31, 31), np.float32)
    probability[10:21, 10:21] = 1
    shown = overlays.drawn_over(image, probability, 0.5, 0.25)
    assert shown[15, 15].tolist() == [138, 133, 89]  # .75 * 100 + .25 * (253.9, 231.9, 55.5)
    assert shown[10, 15].tolist() == [0, 0, 0]
    assert shown[9, 15].tolist() == shown[11, 15].tolist() == [255, 255, 255]
    assert (shown[:8] == 100).all() and (image == 100).all()
    assert (overlays.drawn_over(image, probability, 1, 1) == image).all()


def test_a_map_is_dark_where_it_is_low() -> None:
    shown = overlays.heat(GREY, np.array([[0, 0.25], [0.5, 1]]))
    brightness = shown.astype(int).sum(axis=2).ravel().tolist()
    assert brightness == sorted(brightness)
    assert brightness[0] < 300 < brightness[-1]


def test_the_key_names_the_colours() -> None:
    figure = Figure(layout="constrained")
    figure.subplots()
    overlays.add_key(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(overlays.OUTCOMES)
    drawn = [to_rgb(patch.get_facecolor()) for patch in legend.get_patches()]
    np.testing.assert_allclose(drawn, np.array([*overlays.OUTCOMES.values()]) / 255)
    assert figure.axes[-1].get_ylabel() == "probability"
