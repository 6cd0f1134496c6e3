"""A dataset's folder, whose files an adapter finds by name, whatever their case, and pairs to rows;
and from these to a manifest: measured, checked, and with a report."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as fits
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from dinolizer.data.checks import check_polarity, inspect_rows, reading_notes
from dinolizer.data.files import LeftOut, walk
from dinolizer.data.images import SUFFIXES
from dinolizer.data.manifest import AUTHENTIC_KINDS, COLUMNS, validate
from dinolizer.errors import InputError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names that datasets give to their splits, to the names that manifests use."""
BACKGROUNDS = {"real": "real", "sp": "real", "fr": "reencoded", "reencoded": "reencoded"}
"""Of kinds, where an adapter does not say otherwise."""


class Row(NamedTuple):
    """What an adapter knows of an image, which is authentic unless it says more, before any file is
    opened. The background is by default that of `BACKGROUNDS`; ``source`` is the path of the
    authentic image that it was made of, if that is at hand; ``further`` are columns and values."""

    image: str
    split: str
    group: str
    mask: str = ""
    generator: str = "none"
    kind: str = "real"
    source: str = ""
    background: str = ""
    further: Mapping[str, str] = MappingProxyType({})


@dataclass
class Report:
    """What an adapter found (images, mask files, pairs of both) and left out, with ``incomplete``
    also images that cannot be used. What is extracted or made goes to ``folder``."""

    dataset: str
    folder: Path
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
    twice, the masks look inverted or a group is in two splits; photographs of COCO stay in one."""
    frame = pd.DataFrame(rows, columns=pd.Index(Row._fields))
    frame = frame.sort_values("image", kind="stable", ignore_index=True)
    for twice in frame.loc[frame["image"].duplicated(), "image"]:
        raise InputError(f"{report.dataset} lists {twice} twice; list each image once.")
    usual = frame["kind"].map(BACKGROUNDS).fillna("real")  # of a kind there is none, see `validate`
    frame["background"] = frame["background"].where(frame["background"] != "", usual)
    rank = frame["split"].map({"test": 0, "valid": 1}).fillna(2)
    last = rank.groupby(frame["group"]).transform("min")
    twice = frame["group"].str.startswith("coco-") & (rank > last)
    report.left_out["images whose photograph is tested or validated on"] += int(twice.sum())
    frame = frame[~twice].reset_index(drop=True)
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


@dataclass(frozen=True)
class Tree:
    """The images, tables and parquet files in and below a folder, and what `walk` leaves out.
    ``files`` leads from a path relative to ``root``, with ``/`` and in lower case, to the path."""

    root: Path
    files: dict[str, str]
    left_out: LeftOut

    def get(self, *names: str) -> str:
        """Path of a file, by its folders and name in any case; empty if it is absent."""
        return self.files.get("/".join(names).casefold(), "")

    def path(self, *names: str) -> str:
        """Path of a file, or the path it ought to have."""
        return self.get(*names) or os.path.join(self.root, *names)  # noqa: PTH118 (speed)

    def first(self, folders: Iterable[str], *names: str) -> str:
        """Path of a file in the first of some folders that has it; empty if none has."""
        return next(filter(None, (self.get(folder, *names) for folder in folders)), "")

    def find(self, listed: str, *folders: str) -> str:
        """Path of a file that a table lists, empty if it is absent; it may be written in the
        Windows way, from up to two folders above the root, or from one of ``folders`` below it."""
        parts = [part for part in listed.replace("\\", "/").split("/") if part not in ("", ".")]
        above = (self.get(*parts[start:]) for start in range(min(3, len(parts))))
        return next(filter(None, above), "") or self.first(folders, *parts)

    def stems(self, folder: str) -> dict[str, str]:
        """Path of each file below a folder by its name without suffix, in lower case."""
        prefix = f"{folder}/".casefold()
        return {Path(key).stem: path for key, path in self.files.items() if key.startswith(prefix)}

    def match(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """The files whose path relative to the root, with ``/``, is a pattern's, in any case."""
        for path in self.files.values():
            relative = path[len(str(self.root)) + 1 :].replace(os.sep, "/")
            if named := re.fullmatch(pattern, relative, re.IGNORECASE):
                yield path, named


def open_tree(root: Path, dataset: str, needed: Sequence[str]) -> Tree:
    """List the files of a dataset, which is called ``dataset`` in sentences. ``root`` must hold
    what is ``needed``: patterns of names, in any case; ``"orig|original"`` are two names of one
    thing. Raises `InputError` if it does not, naming its parent or a folder in it that would do,
    and if two names differ only in case."""
    wanted = ", ".join(name.replace("|", " or ") for name in needed) or "its files"
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give that of {dataset}, with {wanted}.")

    def missing(folder: Path) -> list[str]:
        names = [path.name.casefold() for path in folder.iterdir()]
        return [n for n in needed if not any(fits(names, p.casefold()) for p in n.split("|"))]

    if lacks := missing(root):
        inside = sorted(path for path in root.iterdir() if path.is_dir())
        for other, level in ((root.parent, "low"), *((path, "high") for path in inside)):
            if not missing(other):
                wrong = f"{root} is one level too {level} to be the folder of {dataset}"
                raise InputError(f"{wrong}; give {other}.")
        names = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        lack = f"must hold {wanted} ({lacks[0].replace('|', ' or ')} is missing)"
        raise InputError(f"{root} holds {names}, but the folder of {dataset} {lack}; give that.")
    tree = Tree(root, {}, {})
    for path in walk(root, tree.left_out):
        key = path[len(str(root)) + 1 :].replace(os.sep, "/").casefold()
        if not key.endswith((*SUFFIXES, ".csv", ".parquet")):
            continue
        if tree.files.setdefault(key, path) != path:
            raise InputError(f"{tree.files[key]} and {path} differ only in case; rename one.")
    return tree
