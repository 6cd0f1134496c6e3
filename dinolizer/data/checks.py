"""A manifest against its files: sizes, masks, and whether the masks mark the edit or all but it."""

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.images import Header, read_header, read_image
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_pair
from dinolizer.data.masks import check_shape, read_mask
from dinolizer.errors import InputError

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

AREA_TOLERANCE = 1e-3
"""How far a manifest's area may be from its mask's."""
PAIRS = 4
"""Pairs of each generator and kind of which the polarity is checked."""
EDGE = 8
"""Pixels around a mask in which a splice may differ too: soft masks are cut at half."""
OUTSIDE = 0.05
"""Share of a splice's changed pixels that may lie further out."""
LOSSY = (".jpg", ".jpeg", ".webp", ".avif")


class Marks(NamedTuple):
    """Size of a mask in pixels, and the share of them that it marks."""

    width: int
    height: int
    area: float


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


def measure(
    function: Callable[[Key], Result], keys: Iterable[Key]
) -> dict[Key, Result | InputError]:
    """Apply a function to every key once, in threads; an `InputError` is kept as the result."""

    def measured(key: Key) -> Result | InputError:
        try:
            return function(key)
        except InputError as error:
            return error

    unique = list(dict.fromkeys(keys))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(measured, unique), strict=True))


def inspect_rows(frame: pd.DataFrame) -> list[Facts | Fault]:
    """Read the headers of the images and the masks of a table of ``image, mask, kind``."""
    headers = measure(read_header, frame["image"])
    keys = []
    for image, mask in frame[["image", "mask"]].itertuples(index=False):
        header = headers[image]
        keys.append((mask, header.orientation if isinstance(header, Header) else 1))
    marks = measure(_read_marks, (key for key in keys if key[0]))
    edited = ~frame["kind"].isin(AUTHENTIC_KINDS)
    return [
        _facts(image, mask, is_edited, headers[image], marks.get((mask, orientation)))
        for image, (mask, orientation), is_edited in zip(frame["image"], keys, edited, strict=True)
    ]


def reading_notes(facts: Iterable[Facts]) -> list[str]:
    """Say how many masks are not read as they are."""
    facts = list(facts)
    resized = sum(fact.is_resized for fact in facts)
    turned = sum(fact.is_turned for fact in facts)
    notes = []
    if resized:
        notes.append(f"{resized} masks have another size than their image: read resized")
    if turned:
        notes.append(
            f"{turned} images are turned by their EXIF orientation: their masks are taken to lie "
            "on the pixels as stored, and turned too"
        )
    return notes


def check_files(frame: pd.DataFrame) -> list[str]:
    """Check a manifest against its files; `validate` has checked the table itself.

    Every image and mask is there, the sizes and areas are as the table says, no edited image has a
    mask that is all black, and none of the masks compared is inverted. Pixels of images are not
    decoded but for the pairs compared, those of masks are.

    Returns
    -------
    What is worth knowing, in sentences.

    Raises
    ------
    InputError
        Naming the first row that is wrong.
    """
    facts = inspect_rows(frame)
    for number, (fact, row) in enumerate(zip(facts, frame.to_dict("records"), strict=True)):
        at = f"Row {number} of the manifest"
        image, width, height, area = (row[key] for key in ("image", "width", "height", "area"))
        if isinstance(fact, Fault):
            raise InputError(f"{at}: {fact.sentence}")
        if (fact.width, fact.height) != (width, height):
            raise InputError(
                f"{at} says {width}x{height} pixels, but {image} has {fact.width}x{fact.height}; "
                "make the manifest again."
            )
        if not row["authentic"] and abs(fact.area - area) > AREA_TOLERANCE:
            raise InputError(
                f"{at} says that {area:.4f} of {image} is edited, but its mask says "
                f"{fact.area:.4f}; make the manifest again."
            )
    return [
        *reading_notes(fact for fact in facts if isinstance(fact, Facts)),
        check_polarity(frame),
    ]


def check_polarity(frame: pd.DataFrame) -> str:
    """Compare a few images with the authentic ones that they were made of.

    Where the background is real and no file is lossy, the pixels that differ must lie inside the
    mask. Elsewhere all pixels differ, and the mean change inside must exceed that outside in at
    least half of the pairs of a generator: a single one may be an accident.

    Parameters
    ----------
    frame
        A manifest. A further column ``source`` may name the authentic image, or be empty; then it
        is the one real image of the group.

    Returns
    -------
    What was found, in words.

    Raises
    ------
    InputError
        If the masks of a generator look inverted.
    """
    real = frame[frame["kind"] == "real"].drop_duplicates("group", keep=False)
    by_group = dict(zip(real["group"], real["image"], strict=True))
    source = pd.Series([by_group.get(group, "") for group in frame["group"]], frame.index)
    if "source" in frame:
        source = frame["source"].where(frame["source"] != "", source)
    partners = frame.assign(source=source)[(source != "") & (frame["mask"] != "")]
    compared = 0
    for _, rows in partners.groupby(["generator", "kind"], sort=False):
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


def _read_marks(key: tuple[str, int]) -> Marks:
    mask = read_mask(*key)
    return Marks(mask.shape[1], mask.shape[0], float(mask.mean()))


def _facts(
    image: str,
    mask: str,
    is_edited: bool,
    header: Header | InputError,
    marks: Marks | InputError | None,
) -> Facts | Fault:
    if isinstance(header, InputError):
        return Fault("unreadable images", str(header))
    size = header[:2]
    is_turned = bool(mask) and header.orientation > 1
    if marks is None:
        if is_edited:
            sentence = f"{image} is edited, but no mask is listed; give the file of its mask."
            return Fault("images without their mask", sentence)
        return Facts(*size, 0.0, False, is_turned)
    if isinstance(marks, InputError):
        if Path(mask).exists():
            return Fault("unreadable masks", str(marks))
        sentence = f"{image} has no mask: there is no file {mask}; complete the dataset."
        return Fault("images without their mask", sentence)
    if is_edited and marks.area == 0:
        sentence = f"The mask {mask} is all black, but white must mark what is new in {image}."
        return Fault("masks that are all black", sentence)
    try:
        check_shape(marks[:2], mask, size, image)
    except InputError as error:
        return Fault("masks of another shape", str(error))
    return Facts(*size, marks.area, marks[:2] != size, is_turned)


def _complaint(row: dict[Any, Any]) -> tuple[str, bool] | None:
    """What is wrong with a pair, or nothing, and whether for certain; None if it cannot tell."""
    image, mask = read_pair(row)
    source = read_image(row["source"])
    if source.shape != image.shape or mask.all() or not mask.any():
        return None
    change = np.abs(image.astype(np.int16) - source).max(axis=2)
    if not change.any():
        return None
    names = f"{row['image']} differs from the authentic {row['source']}"
    advice = "white must mark the edit; invert the masks, or see whose they are"
    lossy = any(str(row[key]).lower().endswith(LOSSY) for key in ("image", "source"))
    if row["background"] == "real" and not lossy:
        share = _share_outside(change > 0, mask)
        sentence = (
            f"The mask {row['mask']} looks inverted: {share:.0%} of the pixels in which "
            f"{names} lie outside of it, but {advice}."
        )
        return (sentence if share > OUTSIDE else ""), True
    inside, outside = change[mask].mean(), change[~mask].mean()
    sentence = (
        f"The mask {row['mask']} looks inverted: {names} by {outside:.1f} outside of it and by "
        f"{inside:.1f} inside, but {advice}."
    )
    return (sentence if outside >= inside else ""), False


def _share_outside(changed: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Share of the changed pixels that lie outside of the mask and its surroundings."""
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    return float(changed[~near].sum() / changed.sum())
