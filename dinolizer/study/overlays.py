"""What a map or a mask says of a picture, drawn over it: for `figures.pictures` and the viewer."""

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Map = NDArray[np.floating]

OUTCOMES = {"found": (86, 180, 233), "false alarm": (213, 94, 0), "missed": (204, 121, 167)}
"""Edited and predicted, predicted only, edited only; in Okabe and Ito's colours, for all eyes."""
OPACITY, SCALE = 0.65, "cividis"


def heat(image: Picture, probability: Map) -> Picture:
    """A map, float ``(H, W)`` in [0, 1], over its picture, uint8 ``(H, W, 3)``, in grey."""
    return _over(image, 255 * colormaps[SCALE](probability)[..., :3])


def drawn_over(image: Picture, probability: Map, threshold: float, opacity: float) -> Picture:
    """The colours of `heat` where a map, float ``(H, W)``, is over a threshold, outlined in black
    and white, and elsewhere the picture; of an opacity in [0, 1], 0 leaves but the outline."""
    mask = (probability > threshold).astype(np.uint8)
    colours = colormaps[SCALE](probability, bytes=True)[..., :3]
    shown = cv2.copyTo(cv2.addWeighted(image, 1 - opacity, colours, opacity, 0), mask, image.copy())
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for level, width in ((255, 3), (0, 1)):
        cv2.drawContours(shown, contours, -1, (level, level, level), width)
    return np.asarray(shown, np.uint8)


def outcome(image: Picture, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Picture:
    """A mask, bool ``(H, W)`` as the truth, over its picture in grey, in colours of `OUTCOMES`."""
    colours = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    sorts = (mask & truth, mask & ~truth, truth & ~mask)
    for pixels, colour in zip(sorts, OUTCOMES.values(), strict=True):
        colours[pixels] = colour
    return _over(image, colours)


def add_key(figure: Figure, *, outcomes: bool = True) -> Figure:
    """Say beside a figure what the colours of `heat` are, and above it those of `outcome`."""
    if outcomes:
        colours = {name: np.divide(rgb, 255).tolist() for name, rgb in OUTCOMES.items()}
        patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=patches, loc="outside upper right", ncols=len(patches))
    scale = ScalarMappable(Normalize(0, 1), cmap=SCALE)
    figure.colorbar(scale, ax=figure.axes, fraction=0.02, pad=0.01, label="probability")
    return figure


def _over(image: Picture, colours: NDArray[np.floating]) -> Picture:
    grey = image.mean(axis=2, keepdims=True)
    return np.rint((1 - OPACITY) * grey + OPACITY * colours).astype(np.uint8)
