"""Do the masks of a dataset mark the edit, or all but the edit? A few pairs tell."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.images import read_image
from dinolizer.data.manifest import read_pair
from dinolizer.errors import InputError

PAIRS = 4
"""Pairs tried of each generator and kind."""
EDGE = 8
"""Pixels around a mask in which a splice may differ too: soft masks are cut at half."""
OUTSIDE = 0.05
"""Share of a splice's changed pixels that may lie further out."""
LOSSY = (".jpg", ".jpeg", ".webp", ".avif")


def check_polarity(frame: pd.DataFrame) -> str:
    """Compare a few images with their authentic partners.

    Where the background is real and no file is lossy, the pixels that differ must lie inside the
    mask. Elsewhere all pixels differ, and the mean change inside must exceed that outside in at
    least half of the pairs of a generator: a single one may be an accident.

    Parameters
    ----------
    frame
        A manifest with the further column ``source``: path of the partner, or empty.

    Returns
    -------
    What was found, in words.

    Raises
    ------
    InputError
        If the masks of a generator look inverted.
    """
    partners = frame[(frame["source"] != "") & (frame["mask"] != "")]
    checked = 0
    for _, rows in partners.groupby(["generator", "kind"], sort=False):
        places = np.unique(np.linspace(0, len(rows) - 1, PAIRS).round().astype(int))
        found = [_outside(row) for row in rows.iloc[places].to_dict("records")]
        complaints = [complaint for complaint, _ in found if complaint]
        strict = [complaint for complaint, certain in found if complaint and certain]
        decided = [complaint for complaint in found if complaint[0] is not None]
        checked += len(decided)
        if strict or 2 * len(complaints) > len(decided):
            raise InputError((strict or complaints)[0])
    if not checked:
        return "polarity not checked: no authentic image to compare a forged one with"
    return f"polarity as expected in the {checked} pairs compared"


def _outside(row: dict[Any, Any]) -> tuple[str | None, bool]:
    """What is wrong with a pair (empty: nothing, None: it cannot tell), and whether for certain."""
    image, mask = read_pair(row)
    source = read_image(row["source"])
    if source.shape != image.shape or mask.all() or not mask.any():
        return None, False
    change = np.abs(image.astype(np.int16) - source).max(axis=2)
    if not change.any():
        return None, False
    names = f"{row['image']} differs from the authentic {row['source']}"
    advice = "white must mark the edit; invert the masks, or see whose they are"
    lossy = any(str(row[key]).lower().endswith(LOSSY) for key in ("image", "source"))
    if row["background"] == "real" and not lossy:
        share = _share_outside(change > 0, mask)
        if share > OUTSIDE:
            return (
                f"The mask {row['mask']} looks inverted: {share:.0%} of the pixels in which "
                f"{names} lie outside of it, but {advice}."
            ), True
        return "", True
    inside, outside = change[mask].mean(), change[~mask].mean()
    if outside >= inside:
        return (
            f"The mask {row['mask']} looks inverted: {names} by {outside:.1f} outside of it and by "
            f"{inside:.1f} inside, but {advice}."
        ), False
    return "", False


def _share_outside(changed: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Share of the changed pixels that lie outside of the mask and its surroundings."""
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    return float(changed[~near].sum() / changed.sum())
