"""Real outputs of published inpainting models: where each is, and how it is got and checked."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dinolizer.data.datasets import make_manifest
from dinolizer.data.datasets.rows import Report
from dinolizer.data.fetch import download
from dinolizer.data.files import read_table
from dinolizer.data.images import read_image, write_image
from dinolizer.errors import InputError, unwritable
from dinolizer.paths import ASSETS, atomic, check_outputs

LIST = ASSETS / "inpaintings.csv"
"""A row per picture, with generator, repository, licence, addresses and hashes. ``paths`` and
``mask_paths`` are files of the repository, each after a commit (``HEAD`` where that is not known),
apart by blanks: the one of the right hash is taken. None: it must be put by hand."""
MASKS = ASSETS / "inpaintings-masks.npz"
"""Packed masks of pictures without a mask of their own: where the result differs from its source,
and rectangles."""
Row = Mapping[Any, str]
RAW = "https://raw.githubusercontent.com/{}/{}"


def fetch_inpaintings(
    folder: Path, given: Path | None = None, *, overwrite: bool = False
) -> tuple[Report, list[str]]:
    """Download the pictures and masks of `LIST` to ``inpaintings`` in a folder, write the manifest
    beside, and say which could not be got; ``given`` is a folder that has some of them already.

    Each is held to its hash; what is there and right is kept. Raises `InputError` if the network
    fails, nothing can be used or written, or a manifest is there.
    """
    manifest, own = folder / "inpaintings.csv", folder / "inpaintings"
    check_outputs([manifest], overwrite=overwrite)
    missing = []
    try:
        own.mkdir(parents=True, exist_ok=True)
        with atomic(own / "table.csv") as draft:
            shutil.copyfile(LIST, draft)
        ours = np.load(MASKS)
        for row in read_table(LIST, ["id", "file", "repository"]).to_dict("records"):
            mask = f"{row['id']}_mask.png"
            if row["id"] in ours:
                height, width = int(row["height"]), int(row["width"])
                marks = np.unpackbits(ours[row["id"]], count=height * width)
                write_image(own / mask, 255 * marks.reshape(height, width))
            for file, take in ((row["file"], _take_image), (mask, _take_mask)):
                if not _get(own / file, given, row, take):
                    missing.append(f"{file} ({row['repository']})")
        report = make_manifest("inpaintings", own, manifest, incomplete=bool(missing))
    except OSError as error:
        raise unwritable(folder, error) from None
    return report, missing


def _get(path: Path, given: Path | None, row: Row, take: Callable[[Path, Path, Row], bool]) -> bool:
    """Whether the right file is at its path in the end."""
    if any(take(there, path, row) for there in (path, (given or path.parent) / path.name)):
        return True
    draft = path.with_name(f".{path.name}")
    for file in row["mask_paths" if take is _take_mask else "paths"].split():
        try:
            download(RAW.format(row["repository"], file), draft)
        except InputError as error:
            if "HTTP status 404" not in str(error):
                raise
        taken = take(draft, path, row)
        draft.unlink(missing_ok=True)
        if taken:
            return True
    return False


def _take_image(file: Path, path: Path, row: Row) -> bool:
    """Copy a picture if it is right: by the bytes of a JPEG, else, as some were stored anew since,
    by the pixels."""
    try:
        lossy = path.suffix == ".jpg"
        content = file.read_bytes() if lossy else read_image(file).tobytes()
    except (FileNotFoundError, InputError):
        return False
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return False
    if file != path:
        with atomic(path) as draft:
            shutil.copyfile(file, draft)
    return True


def _take_mask(file: Path, path: Path, row: Row) -> bool:
    """Write a mask in black and white if it is right, itself or the other way round, in the size of
    its picture: by the packed bits."""
    try:
        grey = read_image(file)[..., 0]
    except InputError:
        return False
    size = int(row["width"]), int(row["height"])
    white = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST_EXACT)) > 127
    for marks in (white, ~white):
        if hashlib.sha256(np.packbits(marks).tobytes()).hexdigest() == row["mask_sha256"]:
            write_image(path, 255 * marks.astype(np.uint8))
            return True
    return False
