"""The B-Free training set: real photographs and six versions of each, by folders."""

from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report, Row, assemble, real_row
from dinolizer.data.tree import open_tree, read_table
from dinolizer.errors import InputError

REAL = "COCO_real_512"
FOLDERS = {
    "SD2.1_selfconditioned": ("", "reencoded", "reencoded"),
    "SD2.1_selfconditioned_origBG": ("mask", "reencoded", "real"),
    "SD2.1_inpainted_samecat": ("mask", "fr", "reencoded"),
    "SD2.1_inpainted_samecat_origBG": ("mask", "sp", "real"),
    "SD2.1_inpainted_diffcat": ("bbox", "fr", "reencoded"),
    "SD2.1_inpainted_diffcat_origBG": ("bbox", "sp", "real"),
}
"""Folder to its masks' folder, its kind and its background. The generator is the folder's name."""
LISTS = {"train": "train_list.csv", "valid": "valid_list.csv"}


def bfree(root: Path, *, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of the B-Free training set.

    Expects ``COCO_real_512``, ``mask``, ``bbox``, one or more folders of `FOLDERS`, each with
    ``<id>.png``, and ``train_list.csv`` and ``valid_list.csv`` with the column ``id``. Folders that
    are absent are noted; what no list names is left out. Masks are taken to be white where the
    image was changed: the polarity check decides.
    """
    tree = open_tree(
        root, "the B-Free training set", (REAL, "SD2.1_*", "mask", "bbox", *LISTS.values())
    )
    report = Report("bfree")
    # The lists may name '9', '000000000009' or '000000000009.png': compare without these.
    split_of: dict[str, str] = {}
    for split, name in LISTS.items():
        for listed in read_table(tree.path(name), ["id"])["id"]:
            key = _key(listed)
            if split_of.setdefault(key, split) != split:
                raise InputError(
                    f"The id {listed} is in both {LISTS['train']} and {LISTS['valid']} of {root}; "
                    "each photograph must be in one."
                )
    rows: list[Row] = []
    for name, path in tree.under(REAL):
        if _key(name) in split_of:
            rows.append(real_row(path, split_of[_key(name)], _key(name)))
        else:
            report.left_out["images in none of the lists"] += 1
    for folder, (masks, kind, background) in FOLDERS.items():
        files = dict(tree.under(folder))
        if not files:
            report.notes.append(f"the folder {folder} is absent or empty")
        for name, path in files.items():
            if _key(name) not in split_of:
                report.left_out["images in none of the lists"] += 1
                continue
            mask = tree.path(masks, name) if masks else ""
            source = tree.get(REAL, name)
            where = (split_of[_key(name)], _key(name), source)
            rows.append(Row(path, mask, folder, kind, background, *where))
    present = {row.group for row in rows}
    report.left_out["ids that are listed but not there"] += len(split_of.keys() - present)
    return assemble(rows, report, incomplete=incomplete)


def _key(listed: str) -> str:
    return listed.rpartition("/")[2].removesuffix(".png").lstrip("0") or "0"
