"""Random masks of edits: blobs, ellipses and boxes of a wanted area."""

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPES = ("blob", "ellipse", "box")
AREA_RANGE = (0.01, 0.60)
"""Share of the image that is edited: log-uniform between these bounds."""


def log_uniform_area(rng: np.random.Generator, bounds: tuple[float, float] = AREA_RANGE) -> float:
    """Draw the share of the image that is edited."""
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))


def random_mask(
    height: int, width: int, area: float, rng: np.random.Generator, shape: str | None = None
) -> NDArray[np.bool_]:
    """Draw a mask that covers a wanted share of the image.

    Parameters
    ----------
    height, width
        Size in pixels.
    area
        Share of the pixels inside the mask, in (0, 1). It is met exactly, up to ties, by ranking
        the pixels of a smooth field and keeping the highest.
    rng
        Source of randomness.
    shape
        One of `SHAPES`; drawn if absent.

    Returns
    -------
    ndarray
        ``(height, width)`` bool, True inside.
    """
    shape = shape or str(rng.choice(SHAPES))
    field = _field(shape, height, width, area, rng)
    count = max(1, round(area * height * width))
    threshold = np.partition(field, -count, axis=None)[-count]
    return field >= threshold


def _field(
    shape: str, height: int, width: int, area: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a field whose upper level sets are the wanted shape, inside the image."""
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    half = np.sqrt(area / np.pi if shape == "ellipse" else area / 4)
    # Half sides as shares of the image; the centre keeps the shape inside where that is possible.
    half_y = min(half * aspect, 0.5)
    half_x = min(half / aspect, 0.5)
    y = (np.arange(height)[:, None] + 0.5) / height - rng.uniform(half_y, 1 - half_y)
    x = (np.arange(width)[None, :] + 0.5) / width - rng.uniform(half_x, 1 - half_x)
    # A hair of the other axis breaks ties between the rows or columns of a box.
    if shape == "box":
        return -np.maximum(np.abs(y) / half_y, np.abs(x) / half_x) - 1e-6 * (np.abs(y) + np.abs(x))
    distance = -np.hypot(y / half_y, x / half_x)
    if shape == "ellipse":
        return distance
    noise = rng.standard_normal((height, width))
    sigma = max(2.0, 0.35 * half * min(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return distance + 0.6 * smooth / smooth.std()
