"""From the rows that an adapter pairs to a manifest: measured, checked, and with a report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dinolizer.data.inspection import image_size, mask_area, measure
from dinolizer.data.manifest import AUTHENTIC_KINDS, COLUMNS, validate
from dinolizer.data.polarity import check_polarity
from dinolizer.errors import InputError


class Row(NamedTuple):
    """What an adapter knows of an image before any file is opened."""

    image: str
    mask: str
    generator: str
    kind: str
    background: str
    split: str
    group: str
    source: str = ""
    """Path of the authentic image that it was made of, if that is at hand."""


def real_row(image: str, split: str, group: str) -> Row:
    """Return the row of an authentic image."""
    return Row(image, "", "none", "real", "real", split, group)


@dataclass
class Report:
    """What an adapter found.

    Attributes
    ----------
    dataset
        Name of the dataset.
    images, masks, pairs
        Images in the manifest; mask files; images with a mask.
    left_out
        Reason to number of files that are not in the manifest.
    notes
        What else is worth knowing.
    """

    dataset: str
    images: int = 0
    masks: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{self.images} images, {self.masks} masks, {self.pairs} pairs of image and mask"
        out = [f"{number} left out: {reason}" for reason, number in self.left_out.items() if number]
        return "\n".join([f"{self.dataset}: {found}", *(f"  {line}" for line in out + self.notes)])


def assemble(rows: Sequence[Row], report: Report, *, incomplete: bool = False) -> pd.DataFrame:
    """Measure the files of the rows and make the manifest.

    Parameters
    ----------
    rows
        In any order; the manifest's is that of the image paths.
    report
        The adapter's, with what it has left out; completed here, and kept as
        ``frame.attrs["report"]``.
    incomplete
        Leave out, and count, images that are unreadable or whose mask is missing, unreadable or
        all black on a forged image; otherwise the first of them is refused.

    Raises
    ------
    InputError
        If there are no rows, if a file is refused, if the masks look inverted or if a group is in
        two splits.
    """
    frame = pd.DataFrame(rows, columns=pd.Index(Row._fields)).sort_values("image", kind="stable")
    sizes = measure(image_size, frame["image"])
    masks = measure(mask_area, frame.loc[frame["mask"] != "", "mask"])
    keep, measured, resized = [], [], 0
    for image, mask, kind in frame[["image", "mask", "kind"]].itertuples(index=False):
        size, found = sizes[image], masks[mask] if mask else (0, 0, 0.0)
        reason, sentence = _fault(image, mask, size, found)
        if reason and not incomplete:
            raise InputError(
                f"{sentence[:-1]} (--incomplete leaves such images out and counts them)."
            )
        keep.append(not reason)
        if reason:
            report.left_out[reason] += 1
        elif isinstance(size, tuple) and isinstance(found, tuple):
            resized += bool(mask) and found[:2] != size
            measured.append((*size, 0.0 if kind in AUTHENTIC_KINDS else found[2]))
    if not measured:
        why = ", ".join(
            f"{number} {reason}" for reason, number in report.left_out.items() if number
        )
        raise InputError(
            f"No image of {report.dataset} can be used ({why or 'there are none'}); complete the "
            "dataset."
        )
    frame = frame[keep].reset_index(drop=True)
    frame[["width", "height", "area"]] = pd.DataFrame(measured, columns=["width", "height", "area"])
    frame["authentic"] = frame["kind"].isin(AUTHENTIC_KINDS)
    frame["dataset"] = report.dataset
    validate(frame)
    report.images, report.pairs = frame["image"].nunique(), int((frame["mask"] != "").sum())
    report.masks = frame["mask"].nunique() - ("" in set(frame["mask"]))
    if resized:
        report.notes.append(f"{resized} masks have another size than their image: read resized")
    report.notes.append(check_polarity(frame))
    frame = frame[list(COLUMNS)]
    frame.attrs["report"] = report
    return frame


def _fault(
    image: str,
    mask: str,
    size: tuple[int, int] | InputError,
    found: tuple[int, int, float] | InputError,
) -> tuple[str, str]:
    """Why an image cannot be used, for the report and as a sentence; empty if it can."""
    if isinstance(size, InputError):
        return "unreadable images", str(size)
    if isinstance(found, InputError):
        if Path(mask).exists():
            return "unreadable masks", str(found)
        sentence = f"{image} has no mask: there is no file {mask}; complete the dataset."
        return "images without their mask", sentence
    if mask and found[2] == 0:
        sentence = f"The mask {mask} is all black, but white must mark what is new in {image}."
        return "masks that are all black", sentence
    return "", ""
