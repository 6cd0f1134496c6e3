"""A manifest against its files: sizes, masks, and whether the masks mark the edit or all but it."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from dinolizer.data.images import read_header, read_image
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_pair
from dinolizer.data.masks import check_shape, read_mask
from dinolizer.errors import InputError, refuse

AREA_TOLERANCE = 1e-3  # how far a manifest's area may be from its mask's
PAIRS = 4  # pairs of each generator and kind of which the polarity is checked
CANDIDATES = 8  # real images of a group of which the most like an edited one is sought
EDGE = 8  # pixels around a mask in which a splice may differ too: soft masks are cut at half
OUTSIDE = 0.05  # share of a splice's changed pixels that may lie further out
LOSSY = (".jpg", ".jpeg", ".webp", ".avif")


class Facts(NamedTuple):
    """What the files of a row say: the image's size, the edited share, how the mask is read; or why
    they cannot be used, as a heading to count under and as a sentence."""

    width: int = 0
    height: int = 0
    area: float = 0.0
    is_resized: bool = False
    is_turned: bool = False
    fault: str = ""
    sentence: str = ""


def inspect_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The `Facts` of a table of ``image, mask, kind``, from images' headers and masks."""

    @functools.cache  # images may share a mask
    def read_marks(mask: str, orientation: int) -> tuple[tuple[int, ...], float]:
        pixels = read_mask(mask, orientation)
        return pixels.shape[::-1], float(pixels.mean())

    def inspect_row(image: str, mask: str, kind: str) -> Facts:
        is_edited = kind not in AUTHENTIC_KINDS
        no_mask = f"{image} is edited, but no mask is listed; give the file of its mask."
        no_file = f"{image} has no mask: there is no file {mask}; complete the dataset."
        black = f"The mask {mask} is all black, but white must mark what is new in {image}."
        try:
            fault = "unreadable images"
            width, height, orientation = read_header(image)
            if not mask and not is_edited:
                return Facts(width, height)
            fault = "images without their mask"
            refuse({no_mask: not mask, no_file: not Path(mask).exists()})
            fault = "masks that cannot be used"
            size, area = read_marks(mask, orientation)
            check_shape(size, mask, (width, height), image)
            fault = "masks that are all black"
            refuse({black: is_edited and area == 0})
        except InputError as error:
            return Facts(fault=fault, sentence=str(error))
        return Facts(width, height, area, size != (width, height), orientation > 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = pool.map(inspect_row, frame["image"], frame["mask"], frame["kind"])
        return pd.DataFrame(facts, frame.index, Facts._fields)


def reading_notes(facts: pd.DataFrame) -> list[str]:
    """Say how many masks are not read as they are, or look as if they marked all but the edit."""
    notes = {
        "masks mark over half of their image: see that white marks the edit": facts["area"] > 0.5,
        "masks have another size than their image: read resized": facts["is_resized"],
        "images are turned by their EXIF orientation: their masks are taken to lie on the pixels "
        "as stored, and turned too": facts["is_turned"],
    }
    return [f"{rows.sum()} {note}" for note, rows in notes.items() if rows.any()]


def check_files(frame: pd.DataFrame) -> list[str]:
    """Check a manifest against its files, and say what is worth knowing, in sentences. Every image
    and mask must be there, of the size and area listed; no edited image may have an all-black mask,
    and no mask compared may be inverted: the first row that is wrong is refused."""
    facts = inspect_rows(frame)
    pairs: Any = zip(facts.itertuples(index=False), frame.itertuples(index=False), strict=True)
    for number, (fact, row) in enumerate(pairs):
        at = f"Row {number} of the manifest"
        size, listed = f"{fact.width}x{fact.height}", f"{row.width}x{row.height}"
        sizes = f"says {listed} pixels, but {row.image} has {size}"
        areas = f"says that {row.area:.4f} of {row.image} is edited, but its mask says"
        is_far = not row.authentic and abs(fact.area - row.area) > AREA_TOLERANCE
        refuse({f"{at}: {fact.sentence}": fact.fault})
        refuse({f"{at} {sizes}; make the manifest again.": size != listed})
        refuse({f"{at} {areas} {fact.area:.4f}; make the manifest again.": is_far})
    # Whose column ``source`` names what, is not known: of the groups it is.
    return [*reading_notes(facts), check_polarity(frame.drop(columns="source", errors="ignore"))]


def check_polarity(frame: pd.DataFrame) -> str:
    """Compare a few images with the authentic ones that they were made of, and say what was found.
    Where the background is real and no file is lossy, the pixels that differ must lie inside the
    mask. Elsewhere all pixels differ, and the mean change inside must exceed that outside in at
    least half of the pairs of a generator: a single one may be an accident. Otherwise the masks
    look inverted and are refused. The authentic image is named by a column ``source``; where that
    is absent or empty, it is the real image of the group that is the most like the edited one."""
    real = frame[frame["kind"] == "real"].groupby("group")["image"].agg(list)
    sources = frame["group"].map(lambda group: real.get(group, [])[:CANDIDATES])
    if "source" in frame:
        sources = sources.where(frame["source"] == "", frame["source"].map(lambda path: [path]))
    pairs = frame.assign(sources=sources)[sources.map(bool) & (frame["mask"] != "")]
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
    changes = [
        (np.abs(image.astype(np.int16) - pixels).max(axis=2), source)
        for source in row["sources"]
        for pixels in [read_image(source)]
        if pixels.shape == image.shape
    ]
    change, source = min(changes, key=lambda pair: float(pair[0].mean()), default=(mask[:0], ""))
    if not change.any() or mask.all() or not mask.any():
        return None
    lossy = any(path.lower().endswith(LOSSY) for path in (row["image"], source))
    is_certain = row["background"] == "real" and not lossy
    if is_certain:
        near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8))
        share = np.count_nonzero(change[near == 0]) / np.count_nonzero(change)
        is_wrong, what = share > OUTSIDE, f"{share:.0%} of what differs lies outside of it"
    else:
        inside, outside = change[mask].mean(), change[~mask].mean()
        is_wrong = outside >= inside
        what = f"pixels differ by {outside:.1f} outside of it and by {inside:.1f} inside"
    sentence = (
        f"The mask {row['mask']} looks inverted: between {row['image']} and the authentic {source} "
        f"{what}, but white must mark the edit; have the masks inverted (invert)."
    )
    return (sentence if is_wrong else ""), is_certain
