"""The one table: a row per image of any dataset; data/README.md describes its columns."""

import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.files import FORMULA, read_csv, write_csv
from dinolizer.data.images import read_header, read_image
from dinolizer.data.masks import check_shape, read_mask
from dinolizer.errors import InputError, check_choice, refuse

NUMBERS = ("width", "height", "area")
TEXTS = ("image", "mask", "dataset", "generator", "kind", "background", "split", "group")
COLUMNS = (*TEXTS[:2], "authentic", *TEXTS[2:], *NUMBERS)
KINDS = ("real", "sp", "fr", "reencoded")
AUTHENTIC_KINDS = BACKGROUNDS = ("real", "reencoded")
POLICIES = {"pristine": (1, 0), "fake": (1, 1), "three-class": (2, 1)}
"""Labels of what was edited, and of what an auto-encoder rewrote without an edit: as if real (the
paper's labels), as if edited, or a class of its own."""
FAMILIES = {
    **{"sdxl": "sdxl|fooocus", "sd1": "sd1", "sd2": "sd2", "sd3": "sd3", "flux": "flux"},
    "photoshop": r"ps(sp|fr)?$|photoshop|adobe|firefly",
}
"""What the names of one family of generators begin with, in the spelling of `generator_family`."""


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """Check that a table is a manifest, and return it unchanged; an `InputError` names the first
    rule that is broken and the first row (or group) that breaks it."""
    lacks = f"The manifest lacks the column {{!r}}; it must have {', '.join(COLUMNS)}."
    refuse({lacks.format(name): name not in frame for name in COLUMNS})
    refuse({"The manifest has no rows; it must describe at least one image.": frame.empty})
    only, dtypes = "The manifest's column {!r} must hold only {}.", pd.api.types
    are_bools = dtypes.is_bool_dtype(frame["authentic"])
    refuse({only.format("authentic", "True and False"): not are_bools})
    refuse({only.format(n, "numbers"): not dtypes.is_numeric_dtype(frame[n]) for n in NUMBERS})
    authentic, kind, background = frame["authentic"], frame["kind"], frame["background"]
    rules = {
        "no value may be missing (write empty text)": frame[[*COLUMNS]].isna().any(axis=1),
        "image must be a path": frame["image"] == "",
        f"kind must be one of {', '.join(KINDS)}": ~kind.isin(KINDS),
        f"background must be one of {', '.join(BACKGROUNDS)}": ~background.isin(BACKGROUNDS),
        "authentic must be true for the kinds real and reencoded and false for sp and fr": (
            authentic != kind.isin(AUTHENTIC_KINDS)
        ),
        "the background of a real image must be real": (kind == "real") & (background != "real"),
        "an authentic image has an empty mask path, unless it is re-encoded over a real "
        "background, and an edited one has a mask": (
            (authentic & (kind == background)) != (frame["mask"] == "")
        ),
        "width and height must be at least one pixel": frame[["width", "height"]].lt(1).any(axis=1),
        "area must be a share from 0 to 1, and 0 for authentic images only": (
            ~frame["area"].between(0, 1) | (authentic != (frame["area"] == 0))
        ),
    }
    for rule, broken in rules.items():
        if broken.any():
            row = int(np.flatnonzero(broken)[0])
            raise InputError(f"Row {row} of the manifest ({frame['image'].iloc[row]}): {rule}.")
    splits = frame.groupby("group")["split"].unique()
    for group, names in splits[splits.str.len() > 1].items():
        both = " and ".join(sorted(names))
        raise InputError(f"The photo {group!r} is in the splits {both}; put its images into one.")
    return frame


def generator_family(generator: str) -> str:
    """What a generator is built on: a key of `FAMILIES`, or else its name. Datasets call one
    generator ``SD2.1_inpainted_samecat``, ``sd2`` or ``stable-diffusion-2``."""
    name = re.sub(r"[^a-z0-9]", "", generator.casefold())
    name = re.sub(r"^(stablediffusion|sd)v?", "sd", name)
    return next((key for key, start in FAMILIES.items() if re.match(start, name)), name)


def coco_group(name: str) -> str:
    """Group of a photograph of COCO, the same in all datasets: of ``123`` and
    ``COCO_val2014_000000000123``; what is no such name stays as it is."""
    named = re.fullmatch(r"(?:coco_(?:.*_)?)?(\d+)", name, re.IGNORECASE)
    return f"coco-{named[1]:0>12}" if named else name


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a manifest from CSV and validate it; its paths become absolute."""
    path = Path(path)
    frame = read_csv(path, COLUMNS, dtype=dict.fromkeys(TEXTS, str))
    frame = frame.replace(f"^'{FORMULA}", "", regex=True)
    folder = str(path.parent.absolute())
    for column in ("image", "mask"):
        # os.path: pathlib takes ten times as long, which counts with a hundred thousand rows.
        frame[column] = [name and os.path.join(folder, name) for name in frame[column]]  # noqa: PTH118
    return validate(frame)


def write_manifest(frame: pd.DataFrame, path: str | Path) -> None:
    """Validate a manifest and write it as CSV, replacing the file in one step. Absolute paths below
    the file's folder are written relative to it, so that the folder can be moved; relative ones are
    taken to be so already. `read_manifest` takes away the apostrophes of `write_csv`."""
    path, frame = Path(path), validate(frame).copy()
    for column in ("image", "mask"):
        frame[column] = frame[column].str.removeprefix(f"{path.parent.absolute()}{os.sep}")
    write_csv(frame, path)


def read_pair(row: Mapping[Hashable, Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the image of a manifest's row, uint8 (H, W, 3), and its mask, bool (H, W): empty if
    there is none, and resized by nearest neighbour if it is the image in another resolution. Raises
    `InputError` as `read_image` and `read_mask` do, and for a mask of another shape."""
    image = read_image(row["image"])
    if not row["mask"]:
        return image, np.zeros(image.shape[:2], dtype=bool)
    mask = read_mask(row["mask"], read_header(row["image"]).orientation)
    size = image.shape[1::-1]
    check_shape(mask.shape[::-1], row["mask"], size, row["image"])
    if mask.shape[::-1] != size:
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return image, mask


def target(mask: NDArray[np.bool_], kind: str, background: str, policy: str) -> NDArray[np.uint8]:
    """Turn an image's mask into the labels a head is trained for, uint8 (H, W), by one of
    `POLICIES`. The mask, bool (H, W), is True where the inpainter put new content; of the kind
    ``reencoded`` over a real background, where the image was re-encoded. An unknown name, and marks
    on an image that is all real or all re-encoded, are an `InputError`."""
    check_choice("kind", kind, KINDS)
    check_choice("background", background, BACKGROUNDS)
    check_choice("policy", policy, POLICIES)
    if kind in AUTHENTIC_KINDS and kind == background and mask.any():
        raise InputError(f"An image of kind {kind!r} came with a mask that is not empty; empty it.")
    edited, reencoded = POLICIES[policy]
    inside = reencoded if kind == "reencoded" else edited
    outside = reencoded if background == "reencoded" else 0
    return np.where(mask, inside, outside).astype(np.uint8)
