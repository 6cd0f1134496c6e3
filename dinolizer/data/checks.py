"""A manifest against its files: sizes, masks, and whether the masks mark the edit or all but it."""

import functools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from dinolizer.data.images import read_header, read_image
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_pair
from dinolizer.data.masks import check_shape, read_mask
from dinolizer.errors import InputError

AREA_TOLERANCE = 1e-3
"""How far a manifest's area may be from its mask's."""
PAIRS = 4
"""Pairs of each generator and kind of which the polarity is checked."""
CANDIDATES = 8
"""Real images of a group of which the most like an edited one is sought."""
EDGE = 8
"""Pixels around a mask in which a splice may differ too: soft masks are cut at half."""
OUTSIDE = 0.05
"""Share of a splice's changed pixels that may lie further out."""
LOSSY = (".jpg", ".jpeg", ".webp", ".avif")


class Facts(NamedTuple):
    """What the files of a row say: the image's size, the marked share, how the mask is read."""

    width: int
    height: int
    area: float
    is_resized: bool
    is_turned: bool


class Fault(NamedTuple):
    """Why the files of a row cannot be used: as a heading to count under, and as a sentence."""

    reason: str
    sentence: str


def inspect_rows(frame: pd.DataFrame) -> list[Facts | Fault]:
    """Read the headers of the images and the masks of a table of ``image, mask, kind``."""

    @functools.cache  # images may share a mask
    def read_marks(mask: str, orientation: int) -> tuple[tuple[int, int], float]:
        pixels = read_mask(mask, orientation)
        return (pixels.shape[1], pixels.shape[0]), float(pixels.mean())

    def inspect_row(image: str, mask: str, kind: str) -> Facts | Fault:
        is_edited = kind not in AUTHENTIC_KINDS
        try:
            width, height, orientation = read_header(image)
        except InputError as error:
            return Fault("unreadable images", str(error))
        if not mask:
            sentence = f"{image} is edited, but no mask is listed; give the file of its mask."
            missing = Fault("images without their mask", sentence)
            return missing if is_edited else Facts(width, height, 0.0, False, False)
        if not Path(mask).exists():
            sentence = f"{image} has no mask: there is no file {mask}; complete the dataset."
            return Fault("images without their mask", sentence)
        try:
            size, area = read_marks(mask, orientation)
            check_shape(size, mask, (width, height), image)
        except InputError as error:
            return Fault("masks that cannot be used", str(error))
        if is_edited and area == 0:
            sentence = f"The mask {mask} is all black, but white must mark what is new in {image}."
            return Fault("masks that are all black", sentence)
        return Facts(width, height, area, size != (width, height), orientation > 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(inspect_row, frame["image"], frame["mask"], frame["kind"]))


def reading_notes(facts: Iterable[Facts]) -> list[str]:
    """Say how many masks are not read as they are, or look as if they marked all but the edit."""
    facts = list(facts)
    resized = sum(fact.is_resized for fact in facts)
    turned = sum(fact.is_turned for fact in facts)
    large = sum(fact.area > 0.5 for fact in facts)
    notes = {
        f"{large} masks mark over half of their image: see that white marks the edit": large,
        f"{resized} masks have another size than their image: read resized": resized,
        f"{turned} images are turned by their EXIF orientation: their masks are taken to lie on "
        "the pixels as stored, and turned too": turned,
    }
    return [note for note, number in notes.items() if number]


def check_files(frame: pd.DataFrame) -> list[str]:
    """Check a manifest against its files, and say what is worth knowing, in sentences.

    Every image and mask must be there, of the size and area listed; no edited image may have an
    all-black mask, and no mask compared may be inverted: the first row that is wrong is refused.
    Only masks and the pairs compared are decoded.
    """
    facts = []
    for number, (fact, row) in enumerate(
        zip(inspect_rows(frame), frame.to_dict("records"), strict=True)
    ):
        at = f"Row {number} of the manifest"
        image, width, height, area = (row[key] for key in ("image", "width", "height", "area"))
        if isinstance(fact, Fault):
            raise InputError(f"{at}: {fact.sentence}")
        if fact[:2] != (width, height):
            raise InputError(
                f"{at} says {width}x{height} pixels, but {image} has {fact.width}x{fact.height}; "
                "make the manifest again."
            )
        if not row["authentic"] and abs(fact.area - area) > AREA_TOLERANCE:
            raise InputError(
                f"{at} says that {area:.4f} of {image} is edited, but its mask says "
                f"{fact.area:.4f}; make the manifest again."
            )
        facts.append(fact)
    # Whose column ``source`` names what, is not known: of the groups it is.
    return [*reading_notes(facts), check_polarity(frame.drop(columns="source", errors="ignore"))]


def check_polarity(frame: pd.DataFrame) -> str:
    """Compare a few images with the authentic ones that they were made of, and say what was found.

    Where the background is real and no file is lossy, the pixels that differ must lie inside the
    mask. Elsewhere all pixels differ, and the mean change inside must exceed that outside in at
    least half of the pairs of a generator: a single one may be an accident. Otherwise the masks
    look inverted and are refused. The authentic image is named by a column ``source``; where that
    is absent or empty, it is the real image of the group that is the most like the edited one.
    """
    real = frame[frame["kind"] == "real"]
    by_group = {group: list(rows["image"]) for group, rows in real.groupby("group")}
    named = frame["source"] if "source" in frame else [""] * len(frame)
    sources = [
        [source] if source else by_group.get(group, [])
        for source, group in zip(named, frame["group"], strict=True)
    ]
    pairs = frame.assign(sources=pd.Series(sources, frame.index, object))
    pairs = pairs[pairs["sources"].map(bool) & (pairs["mask"] != "")]
    compared = 0
    for _, rows in pairs.groupby(["generator", "kind"], sort=False):
        spread = np.unique(np.linspace(0, len(rows) - 1, PAIRS).round().astype(int))
        answers = [_complaint(row) for row in rows.iloc[spread].to_dict("records")]
        decided = [answer for answer in answers if answer is not None]
        complaints = [sentence for sentence, _ in decided if sentence]
        certain = [sentence for sentence, is_certain in decided if sentence and is_certain]
        compared += len(decided)
        if certain or 2 * len(complaints) > len(decided):
            raise InputError((certain or complaints)[0])
    if not compared:
        return "polarity not checked: no authentic image to compare a forged one with"
    return f"polarity as expected in the {compared} pairs compared"


def _complaint(row: dict[Any, Any]) -> tuple[str, bool] | None:
    """What is wrong with a pair, or nothing, and whether for certain; None if it cannot tell."""
    image, mask = read_pair(row)
    changes = {
        source: np.abs(image.astype(np.int16) - pixels).max(axis=2)
        for source in row["sources"][:CANDIDATES]
        for pixels in [read_image(source)]
        if pixels.shape == image.shape
    }
    if not changes or mask.all() or not mask.any():
        return None
    source, change = min(changes.items(), key=lambda pair: float(pair[1].mean()))
    if not change.any():
        return None
    is_lossy = any(str(path).lower().endswith(LOSSY) for path in (row["image"], source))
    is_certain = row["background"] == "real" and not is_lossy
    names = f"{row['image']} differs from the authentic {source}"
    if is_certain:
        near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8))
        share = np.count_nonzero(change[near == 0]) / np.count_nonzero(change)
        is_wrong = share > OUTSIDE
        what = f"{share:.0%} of the pixels in which {names} lie outside of it"
    else:
        inside, outside = change[mask].mean(), change[~mask].mean()
        is_wrong = outside >= inside
        what = f"{names} by {outside:.1f} outside of it and by {inside:.1f} inside"
    sentence = (
        f"The mask {row['mask']} looks inverted: {what}, but white must mark the edit; have the "
        "masks inverted (invert), or see whose they are."
    )
    return (sentence if is_wrong else ""), is_certain
