"""Maps by other methods, one for each test image, and their ``peer.yaml``: data/README.md."""

import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat

from dinolizer.data.degradations import Step
from dinolizer.data.files import walk
from dinolizer.data.images import SUFFIXES, read_header, read_samples, turn, write_image
from dinolizer.data.manifest import read_pair, write_manifest
from dinolizer.errors import InputError, refuse
from dinolizer.paths import ROOT, file_hash
from dinolizer.study.evaluation import Method, Row, degraded
from dinolizer.study.parameters import checked, read_yaml

DECLARATION = "peer.yaml"
MAPS = (".png", ".npy", ".npz")
PUBLISHED_RULE = (
    "Measured by their authors on other images than those of this study; not comparable with any "
    "number that was measured here"
)


def export_images(
    manifest: pd.DataFrame, folder: Path, steps: Sequence[Step] = (), seed: int = 0
) -> Path:
    """Copy the images of a manifest to ``images`` in a new folder, and their masks to ``masks``, so
    that another method can draw maps of them; return their manifest, whose split is ``test``. A map
    called as its image fits the original's name too. With ``steps`` images are degraded as by
    `dinolizer.study.evaluation.evaluate`, and written as PNG, with their masks."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"The folder {folder} holds something; give a new one.")
    images, rows = [os.path.normpath(path) for path in manifest["image"]], []
    above = os.path.commonpath([os.path.dirname(path) for path in images])  # noqa: PTH120
    for number, path, row in zip(manifest.index, images, manifest.to_dict("records"), strict=True):
        name = Path(os.path.relpath(path, above))
        end = ".png" if steps else Path(row["mask"]).suffix
        image, mask = folder / "images" / name, folder / "masks" / name.with_suffix(end)
        image = image.with_suffix(".png") if steps else image
        twice = image.exists() or (row["mask"] and mask.exists())
        refuse({f"Two images, or their masks, would be called {name}; rename one.": twice})
        if steps:
            pixels, truth = degraded(*read_pair(row), steps, seed, number)
            write_image(image, pixels)
            row |= {"height": len(truth), "width": truth.shape[1]}
            if row["mask"]:
                write_image(mask, truth)
                row["area"] = 0.0 if row["authentic"] else float(truth.mean())
        else:
            for source, copy in ((row["image"], image), (row["mask"], mask)):
                if source:
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, copy)
        row |= {"image": str(image.absolute()), "split": "test"}
        rows.append(row | {"mask": str(mask.absolute())} if row["mask"] else row)
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")
    return folder / "manifest.csv"


def read_peers(
    folders: Sequence[str], manifest: pd.DataFrame, taken: Iterable[str] = ()
) -> list[Method]:
    """Methods that read the maps of folders, absolute or relative to the checkout, as [0, 1], high
    = edited. Raises InputError for a wrong declaration, a row of the manifest without exactly one
    map, a map of several rows, and a peer called as another or as one of the methods ``taken``;
    later, for a map that cannot be read, or is not of its image's size and the declared range."""
    peers = [_read_peer(ROOT / folder, list(manifest["image"])) for folder in folders]
    for name, count in Counter([*taken, *(peer.name for peer in peers)]).items():
        if count > 1:
            raise InputError(f"{count} methods are called {name!r}: give each a name of its own.")
    return peers


class Declaration(BaseModel, extra="forbid", strict=True):
    """The lines of a ``peer.yaml``."""

    name: Annotated[str, Field(pattern=r"^\w[\w .,:+()/&-]{0,99}$")]  # it stands in tables
    polarity: Literal["high = edited", "low = edited"]
    range: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
    threshold: FiniteFloat | None = None
    array: str = ""


def _read_peer(folder: Path, images: Sequence[str]) -> Method:
    path = folder / DECLARATION
    declared = checked(Declaration, read_yaml(path), str(path))
    (low, high), inverted = declared.range, declared.polarity == "low = edited"
    middle = (low + high) / 2 if declared.threshold is None else declared.threshold
    threshold = (middle - low) / (high - low) if low < high else math.nan
    if not 0 <= threshold <= 1:
        given = f"{low:g} to {high:g} with the threshold {middle:g}"
        raise InputError(f"{path} says {given}: give a lower, a higher and one in between.")
    plain = folder / "none"
    maps = {"none": _paired(plain if plain.is_dir() else folder, images)}
    for of_case in sorted(folder.glob("*=*/")):
        maps[of_case.name] = _paired(of_case, images, every=False)

    def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
        case = row.get("case", "none")
        if (path := maps[case].get(row["image"])) is None:
            lacks = f"{folder / case} has no map of the image {row['image']}"
            raise InputError(f"{lacks}: draw all that are tested, or take the folder away.")
        stored = row["image"] if case == "none" else ""  # degraded images are written upright
        values = _read_map(path, declared.array, image.shape[:2], stored)
        least, most, size = values.min(), values.max(), image.shape[:2]
        if values.shape != size or not (low <= least and most <= high):  # nor nan
            has = f"has the shape {values.shape} and values from {least:g} to {most:g}"
            due = f"its image {row['image']} is {size} (H, W), and {DECLARATION} declares the range"
            raise InputError(f"The map {path} {has}, but {due} {low:g} to {high:g}: mend either.")
        share = ((values - low) / (high - low)).astype(np.float32)
        return 1 - share if inverted else share

    hashes = [(of, *pair) for of, paths in maps.items() for pair in paths.items()]
    key = f"{declared} {[(case, image, file_hash(path)) for case, image, path in hashes]}"
    return Method(declared.name, predict, 1 - threshold if inverted else threshold, key, set(maps))


def _paired(folder: Path, images: Sequence[str], every: bool = True) -> dict[str, Path]:
    by_parts: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in map(Path, walk(folder, {})):
        if path.suffix.lower() in MAPS:
            by_parts[_parts(path.relative_to(folder))].append(path)
    owners: dict[Path, str] = {}
    for image in images:
        whole = _parts(PurePath(image))
        fitting = [path for first in range(len(whole)) for path in by_parts.get(whole[first:], ())]
        if not (fitting or every):
            continue
        if len(fitting) != 1:
            several = f"the maps {fitting[0].name} and {fitting[-1].name}" if fitting else "no map"
            due = f"exactly one of the same name is expected, ending in {', '.join(MAPS)}"
            raise InputError(f"The image {image} has {several} in {folder}, but {due}.")
        if (owner := owners.setdefault(fitting[0], image)) != image:
            both = f"{owner} and {image}: put it into a folder called as its image's"
            raise InputError(f"The map {fitting[0]} fits the images {both}.")
    return {image: path for path, image in owners.items()}


def _parts(path: PurePath) -> tuple[str, ...]:
    """Folders and stem; a map may be called after the whole name of its image: ``17.png.npz``."""
    stem = path.with_suffix("")
    return (stem.with_suffix("") if stem.suffix.lower() in SUFFIXES else stem).parts


def _read_map(path: Path, array: str, shape: tuple[int, ...], image: str) -> NDArray[np.float64]:
    """The values of a map, unless it needs far more memory than one of the shape (H, W)."""
    values: NDArray[Any] | None = None
    turned = 1
    most = 16 * math.prod(shape) + 2**16  # bytes, with the header of a file
    try:
        if path.suffix.lower() == ".png":
            width, height, _ = read_header(path)
            if width * height <= most:
                values, turned = read_samples(path)
        elif path.stat().st_size <= most:
            loaded = np.load(path, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                (name,) = [array] if array else loaded
                whole = loaded.zip.getinfo(f"{name}.npy").file_size <= most
                loaded = loaded[name] if whole else None
            values = loaded
    except Exception:  # numpy and zipfile meet damage with almost any exception
        pass  # told below
    if values is None or values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        due = "one grey picture or one array of numbers (H, W), of its image's size, is expected"
        several = "of several arrays in an NPZ file, the one that is declared"
        raise InputError(f"The map {path} cannot be used: {due}; {several}.")
    upright = values if turned > 1 or not image else turn(values, read_header(image).orientation)
    with np.errstate(invalid="ignore"):  # what is no number is refused for its range
        return upright.astype(np.float64)
