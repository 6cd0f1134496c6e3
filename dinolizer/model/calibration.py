"""What a score is worth: those of photographs that nobody edited, kept in the card of a head."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dinolizer.errors import InputError
from dinolizer.model.head import HeadCard
from dinolizer.model.localization import noise_level
from dinolizer.model.localizer import Localizer

BINS = 10_000
"""Of a probability, in which pixels are counted: a threshold is a whole number of them."""


def calibrated(
    localizer: Localizer, photographs: Iterable[Path], about: str, most: float | None = None
) -> HeadCard:
    """The card of a localizer's head with scores, sizes and noise of photographs nobody edited.
    With ``most`` also with the lowest threshold at which the false-positive rate of all their
    pixels is at most that, and no lower one than before. ``about`` says what the photographs are.
    Raises `InputError` for none, and for one that cannot be read."""
    scores, sizes, noises, pixels = [], [], [], np.zeros(BINS, np.int64)
    for path in photographs:
        result = localizer(path)
        scores.append(result.score)
        sizes.append(result.mask.size / 1e6)
        noises.append(noise_level(result.image))
        # A pixel is marked over the threshold: one on the edge of two bins is in the lower one.
        bins = np.ceil(result.probability.ravel() * BINS).astype(int) - 1
        pixels += np.bincount(np.maximum(bins, 0), minlength=BINS)
    if not scores:
        raise InputError("There is no photograph to calibrate on; give a folder of some.")
    card = localizer.card
    if most is not None:
        over = pixels.sum() - np.cumsum(pixels)  # marked at the threshold of a bin's upper edge
        lowest = (int(np.argmax(over <= most * pixels.sum())) + 1) / BINS
        card = replace(card, threshold=max(card.threshold, lowest))
    about = f"{card.about}; scores calibrated on {len(scores)} photographs: {about}".lstrip("; ")
    spans: Any = {"megapixels": (min(sizes), max(sizes)), "noise": (min(noises), max(noises))}
    return replace(card, untouched=tuple(sorted(scores)), about=about, **spans)
