"""Real outputs of published inpainting models: where each is, and how it is got and checked."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dinolizer.data.datasets import make_manifest
from dinolizer.data.datasets.rows import Report
from dinolizer.data.fetch import download
from dinolizer.data.files import read_table, write_csv
from dinolizer.data.images import read_image, write_image
from dinolizer.errors import InputError
from dinolizer.paths import ASSETS, check_outputs, write_file

LIST = ASSETS / "inpaintings.csv"
"""A row per picture, with generator, repository, licence, addresses and hashes. ``paths`` and
``mask_paths`` are files of the repository, each after a commit (``HEAD`` where that is not known),
apart by blanks: the one of the right hash is taken. None: it must be put by hand."""
MASKS = ASSETS / "inpaintings-masks.npz"
"""Packed masks of pictures without one: where the result differs from its source, and boxes."""
KEPT = ["generator", "kind", "base", "outside", "repository", "licence"]
"""Columns that the manifest has too: ``outside``, how the rest compares, ``base``, of what."""
Row = Mapping[Any, str]
RAW = "https://raw.githubusercontent.com/{}/{}"


def fetch_inpaintings(folder: Path, kept: Path | None = None, *, overwrite: bool = False) -> Report:
    """Download the pictures and masks of `LIST` to ``inpaintings`` in a folder, write the manifest
    beside, and report which could not be got; ``kept`` is a folder that has some of them already.
    What is there and has its hash is kept. Raises as `download` and `make_manifest`."""
    manifest, pictures = folder / "inpaintings.csv", folder / "inpaintings"
    check_outputs([manifest], overwrite=overwrite)
    table = read_table(LIST, ["id", "file", "scene", *KEPT])
    names = {"image": table["file"], "mask": table["id"] + "_mask.png", "group": table["scene"]}
    write_csv(table[KEPT].assign(**names), pictures / "inpaintings.csv")
    missing, packed = [], np.load(MASKS)
    for row in table.to_dict("records"):
        picture, mask = pictures / row["file"], pictures / f"{row['id']}_mask.png"
        if row["id"] in packed:
            height, width = int(row["height"]), int(row["width"])
            marks = np.unpackbits(packed[row["id"]], count=height * width)
            write_image(mask, marks.reshape(height, width) > 0)
        for path, addresses in ((picture, row["paths"]), (mask, row["mask_paths"])):
            files = _candidates(path, kept, row["repository"], addresses.split())
            if not any(_take(file, path, row) for file in files):
                missing.append(f"{path.name} ({row['repository']})")
    report = make_manifest("csv", pictures / "inpaintings.csv", manifest, incomplete=bool(missing))
    if missing:
        line = f"not there as listed: {', '.join(missing)}; put them into a folder by hand"
        report.notes.append(f"{line}, and name it (from folder)")
    return report


def _candidates(path: Path, kept: Path | None, repo: str, addresses: list[str]) -> Iterator[Path]:
    """Files that may be the right one: what is there, then each download."""
    yield from (path, (kept or path.parent) / path.name)
    for address in addresses:
        draft = path.with_name(f".{path.name}")
        try:
            download(RAW.format(repo, address), draft)
            yield draft
        except InputError as error:
            if "HTTP status 404" not in str(error):
                raise
        finally:
            draft.unlink(missing_ok=True)


def _take(file: Path, path: Path, row: Row) -> bool:
    """Write a picture or mask to its path if it is right. The hash of a picture is of the bytes of
    a JPEG, else, as some were stored anew since, of the pixels; that of a mask, which may be the
    other way round, of the packed bits in the picture's size."""
    with suppress(FileNotFoundError, InputError):
        if path.stem.endswith("_mask"):
            size = int(row["width"]), int(row["height"])
            grey = read_image(file)[..., 0]
            white = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST_EXACT)) > 127
            for marks in (white, ~white):
                if hashlib.sha256(np.packbits(marks).tobytes()).hexdigest() == row["mask_sha256"]:
                    write_image(path, marks)
                    return True
            return False
        content = file.read_bytes() if path.suffix == ".jpg" else read_image(file).tobytes()
        if hashlib.sha256(content).hexdigest() == row["sha256"]:
            write_file(path, file.read_bytes())
            return True
    return False
