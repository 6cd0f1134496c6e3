"""Lists of one's own images: a CSV file, or IMDL-BenCo's JSON."""

import json
from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report, Row, assemble
from dinolizer.data.manifest import AUTHENTIC_KINDS, TEXT_COLUMNS
from dinolizer.data.tree import read_table
from dinolizer.errors import InputError

NO_MASK = ("", "negative", "none")
"""What a list writes for the mask of an authentic image, in any case."""


def imdl(root: Path, *, split: str = "test", incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of a JSON file ``[[image, mask or "Negative"], ...]``.

    Paths are relative to the file, or absolute. Generators are not known, and edits are taken to be
    spliced. Each image is its own group.
    """
    if not root.is_file():
        raise InputError(f"There is no file {root}; give a JSON file of pairs of image and mask.")
    try:
        pairs = json.loads(root.read_text("utf-8-sig"))
        if not isinstance(pairs, list):
            raise ValueError("it is no list")
        for pair in pairs:
            if not (
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
            ):
                raise ValueError(f"{pair!r} is no pair of paths")
    except ValueError as error:
        raise InputError(
            f"{root} cannot be used ({str(error).rstrip('.')}); it must be a JSON list of pairs "
            '[image, mask], or [image, "Negative"] for an authentic one.'
        ) from error
    rows = [_row({"image": image, "mask": mask}, root.parent, split) for image, mask in pairs]
    return assemble(rows, Report("imdl"), incomplete=incomplete)


def own_csv(
    root: Path, *, dataset: str = "", split: str = "test", incomplete: bool = False
) -> pd.DataFrame:
    """Make the manifest of a CSV file with the columns ``image`` and ``mask``.

    Paths are relative to the file, or absolute; an authentic image's mask is empty, ``Negative`` or
    ``none``. Of the manifest's columns ``generator, kind, background, split, group`` those that
    the file has are used, and the others filled: edits are taken to be spliced into real
    backgrounds, each image is its own group, and ``split`` is the argument. Sizes and areas are
    measured. Further columns are kept.
    """
    table = read_table(root, ["image", "mask"])
    table["image"] = [_path(name, root.parent) for name in table["image"]]
    if table["image"].duplicated().any():
        twice = table.loc[table["image"].duplicated(), "image"].iloc[0]
        raise InputError(f"{root} lists {twice} twice; list each image once.")
    rows = [_row(record, root.parent, split) for record in table.to_dict("records")]
    frame = assemble(rows, Report(dataset or root.stem), incomplete=incomplete)
    measured = (*TEXT_COLUMNS, "authentic", "width", "height", "area")
    further = [column for column in table if column not in measured]
    listed = table.set_index("image").loc[frame["image"], further]
    return frame.assign(**{str(column): listed[column].to_numpy() for column in further})


def _row(record: dict[object, str] | dict[str, str], folder: Path, split: str) -> Row:
    given = {str(key): value for key, value in record.items() if value}
    image = _path(given.get("image", ""), folder)
    mask = given.get("mask", "")
    mask = "" if mask.casefold() in NO_MASK else _path(mask, folder)
    kind = given.get("kind", "sp" if mask else "real")
    background = given.get("background", "reencoded" if kind in ("fr", "reencoded") else "real")
    generator = given.get("generator", "none" if kind in AUTHENTIC_KINDS else "unknown")
    group = given.get("group", image)
    return Row(image, mask, generator, kind, background, given.get("split", split), group)


def _path(listed: str, folder: Path) -> str:
    """Path relative to a folder, with the separators of this system if need be."""
    path = folder / listed
    return str(path if path.exists() else folder / listed.replace("\\", "/"))
