"""Masks: one rule for which pixels a file marks as edited, and where they lie on the image."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dinolizer.data.images import read_samples, turn
from dinolizer.errors import InputError

TINT = 1 / 32  # share of the range by which a grey mask's channels may differ: JPEG leaves a tint
UNKNOWN = "what marks the edit is not known; save it in black and white, white where edited"


def read_mask(path: str | Path, orientation: int = 1) -> NDArray[np.bool_]:
    """Read which pixels a mask file marks: bool ``(H, W)``, True (edited). If it has two values,
    one of them 0 (black), the other marks, be it 1, 255 or a colour. Otherwise, if it is black and
    white with soft edges, the upper half of the range marks: over 127 of 255. A mask without an
    EXIF orientation of its own is turned by its image's ``orientation``: it lies on the pixels as
    stored. Raises `InputError` as `read_image`, and for marks that cannot be told: in the alpha
    channel, in other colours, or in values that are neither."""
    samples, turned = read_samples(path)
    grey = _grey(samples, path)
    mask = grey > _threshold(grey, path)
    return mask if turned > 1 else turn(mask, orientation)


def check_shape(
    mask: tuple[int, ...], path: str | Path, image: tuple[int, ...], image_path: str | Path
) -> None:
    """Refuse a mask, of (width, height), that is not its image in another resolution."""
    (width, height), (wide, high) = mask, image
    # Sides are rounded to whole pixels, and those of a mask of some pixels would then be any.
    if abs(width * high - height * wide) > min(wide + high, width * high / 10):
        has = f"{width}x{height} pixels, but its image {image_path} has {wide}x{high}"
        advice = "which is another shape: give that of all pixels as they are stored"
        raise InputError(f"The mask {path} has {has}, {advice}.")


def _grey(samples: NDArray[Any], path: str | Path) -> NDArray[Any]:
    """The one channel in which a mask's marks are."""
    if samples.ndim == 2:
        return samples
    if samples.shape[2] in (2, 4):
        alpha, samples = samples[..., -1], samples[..., :-1]
        if alpha.min() != alpha.max():
            raise InputError(f"The mask {path} is transparent in places, and {UNKNOWN}.")
    if np.ptp(samples, axis=2).max() <= TINT * np.iinfo(samples.dtype).max:
        return samples[..., 0]
    rows = np.pad(samples, ((0, 0), (0, 0), (0, 1))).view(f"u{4 * samples.itemsize}")
    _, first, counts = np.unique(rows, return_index=True, return_counts=True)
    colours = samples.reshape(-1, samples.shape[2])[first[np.argsort(-counts)]]
    if len(colours) == 2 and not colours.any(axis=1).all():
        return np.asarray(samples.any(axis=2), np.uint8)
    named = ", ".join(str(tuple(colour.tolist())) for colour in colours[:3])
    raise InputError(f"The mask {path} has {len(colours)} colours, such as {named}, and {UNKNOWN}.")


def _threshold(grey: NDArray[Any], path: str | Path) -> int:
    """The value above which pixels are marked."""
    top = int(np.iinfo(grey.dtype).max)
    counts = cv2.calcHist([grey], [0], None, [top + 1], [0, top + 1]).ravel()
    values = np.flatnonzero(counts)
    low, high = int(values[0]), int(values[-1])
    if len(values) <= 2 and low == 0:
        return 0
    margin, half = top // 8, top // 2
    between = counts[margin + 1 : top - margin]  # that of a class of its own is no soft edge
    soft = between.sum() <= counts.sum() / 2 and between.max() <= counts.sum() / 20
    if ((len(values) == 2 or soft) and low <= half < high) or low == top:
        return half
    values_are = f"{len(values)} grey values from {low} to {high} of {top}"
    raise InputError(f"The mask {path} has {values_are}, not black and white, and {UNKNOWN}.")
