"""From the rows that an adapter pairs to a manifest: measured, checked, and with a report."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from dinolizer.data.checks import check_polarity, inspect_rows, reading_notes
from dinolizer.data.manifest import AUTHENTIC_KINDS, COLUMNS, validate
from dinolizer.errors import InputError

BACKGROUNDS = {"sp": "real", "fr": "reencoded", "reencoded": "reencoded"}  # of kinds, mostly


class Row(NamedTuple):
    """What an adapter knows of an image before any file is opened. ``source`` is the path of the
    authentic image that it was made of, if that is at hand; ``further`` are columns and values."""

    image: str
    mask: str
    generator: str
    kind: str
    background: str
    split: str
    group: str
    source: str = ""
    further: Mapping[str, str] = MappingProxyType({})


def real_row(image: str, split: str, group: str) -> Row:
    """Return the row of an authentic image."""
    return Row(image, "", "none", "real", "real", split, group)


@dataclass
class Report:
    """What an adapter found (images, mask files, pairs of both) and left out: with ``incomplete``
    also images that cannot be used, the first of which is refused otherwise."""

    dataset: str
    incomplete: bool = False
    images: int = 0
    masks: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def fault(self, reason: str, sentence: str) -> None:
        """Count an image that cannot be used, or refuse it."""
        if not self.incomplete:
            raise InputError(f"{sentence[:-1]} (or choose to leave incomplete images out).")
        self.left_out[reason] += 1

    def __str__(self) -> str:
        counts = f"{self.images} images, {self.masks} masks, {self.pairs} pairs of image and mask"
        out = [f"{number} left out: {reason}" for reason, number in self.left_out.items() if number]
        return "\n  ".join([f"{self.dataset}: {counts}", *out, *self.notes])


def assemble(rows: Iterable[Row], report: Report) -> pd.DataFrame:
    """Measure the files of the rows, make the manifest, in the order of the image paths, and
    complete the report. Raises `InputError` if there are no rows, a file is refused or listed
    twice, the masks look inverted or a group is in two splits."""
    frame = pd.DataFrame(rows, columns=pd.Index(Row._fields))
    frame = frame.sort_values("image", kind="stable", ignore_index=True)
    for twice in frame.loc[frame["image"].duplicated(), "image"]:
        raise InputError(f"{report.dataset} lists {twice} twice; list each image once.")
    facts = inspect_rows(frame)
    for reason, sentence in facts.loc[facts["fault"] != "", ["fault", "sentence"]].values:
        report.fault(reason, sentence)
    frame = frame.join(facts)[facts["fault"] == ""].reset_index(drop=True)
    if frame.empty:
        reasons = [f"{number} {reason}" for reason, number in report.left_out.items() if number]
        why = ", ".join(reasons) or "there are none"
        raise InputError(f"No image of {report.dataset} can be used ({why}); complete the dataset.")
    frame["authentic"], frame["dataset"] = frame["kind"].isin(AUTHENTIC_KINDS), report.dataset
    report.notes += [*reading_notes(frame)]
    frame.loc[frame["authentic"], "area"] = 0.0  # where a mask says what was re-encoded
    validate(frame)
    report.images, report.pairs = len(frame), int((frame["mask"] != "").sum())
    report.masks = len(set(frame["mask"]) - {""})
    report.notes.append(check_polarity(frame))
    return frame[[*COLUMNS]].join(pd.DataFrame(map(dict, frame["further"])))
