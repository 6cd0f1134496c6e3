"""Datasets whose images lie inside parquet files: extracted, as a manifest lists paths."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from dinolizer.data.assembly import Report, Row, assemble, real_row
from dinolizer.data.images import FORMATS, read_image, write_image
from dinolizer.data.tree import SPLITS, Tree, open_tree
from dinolizer.errors import InputError
from dinolizer.paths import atomic

BATCH = 16
"""Rows of a parquet file that are in memory at a time."""


def opensdi(root: Path, *, images: Path, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of OpenSDI from its parquet files, in or below the folder.

    Expects the columns ``key``, ``image``, ``mask``, ``label`` (1 = fake) and files named
    ``<generator>-<number>...parquet``, below a folder whose name has ``train`` or ``test`` in it. A
    fake without a mask is generated as a whole: its mask is all white. The kind ``fr`` of all fakes
    is our reading. Each image is its own group.

    Parameters
    ----------
    images
        Folder for the images, as the files hold them, and the masks, as 1-channel PNG.
    """
    tree = open_tree(root, "OpenSDI", ())
    report = Report("opensdi")
    rows: list[Row] = []
    for file, number, record in _records(tree, ["key", "image", "mask", "label"]):
        generator = Path(file).name.partition("-")[0]
        folders = [part.casefold() for part in Path(file).relative_to(root.parent).parts[::-1]]
        split = next((s for part in folders for s in ("train", "test") if s in part), "test")
        name = str(Path(file).relative_to(root).with_suffix("") / str(number))
        path = _save(record["image"], images / name, f"{file}, row {number}")
        group = f"{split}/{record['key']}"
        if not int(record["label"]):
            rows.append(real_row(path, split, group))
            continue
        if record["mask"] is None or not record["mask"]["bytes"]:
            height, width = read_image(path).shape[:2]
            mask = np.full((height, width), 255, np.uint8)
        else:
            rgb = _open(record["mask"]["bytes"], f"{file}, row {number}").convert("RGB")
            mask = np.uint8(255) * (np.asarray(rgb).mean(axis=2) > 127.5).astype(np.uint8)
        where_mask = images / f"{name}-mask.png"
        write_image(where_mask, mask)
        rows.append(Row(path, str(where_mask), generator, "fr", "reencoded", split, group))
    return assemble(rows, report, incomplete=incomplete)


def magicbrush(root: Path, *, images: Path, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of MagicBrush, of the first turn of each session.

    Expects parquet files with the columns ``img_id``, ``turn_index``, ``source_img``, ``mask_img``
    and ``target_img``, or folders, one a session, with ``<id>-input.png``, ``<id>-mask1.png`` and
    ``<id>-output1.png``. A mask's alpha is 0 where the image was to be edited; without alpha, white
    is. Whether the editor kept the rest is not known: the kind ``fr`` is our reading.

    Parameters
    ----------
    images
        Folder for the masks, as 1-channel PNG, and the images that come in parquet files.
    """
    tree = open_tree(root, "MagicBrush", ())
    report = Report("magicbrush")
    sessions: list[tuple[str, str, str, str, NDArray[np.uint8]]] = []
    columns = ["img_id", "turn_index", "source_img", "mask_img", "target_img"]
    parquet = any(key.endswith(".parquet") for key in tree.files)
    for file, number, record in _records(tree, columns) if parquet else ():
        if int(record["turn_index"]) != 1:
            report.left_out["later turns"] += 1
            continue
        group, split, place = str(record["img_id"]), _split(file), f"{file}, row {number}"
        name = images / split / group
        source = _save(record["source_img"], name.with_name(f"{group}-input"), place)
        target = _save(record["target_img"], name.with_name(f"{group}-output1"), place)
        mask = _transparent(_open(record["mask_img"]["bytes"], place))
        sessions.append((split, group, source, target, mask))
    for key, path in {} if parquet else tree.files.items():
        named = re.fullmatch(r"(.*/)?(.+)-output(\d+)\.png", key)
        if named is None:
            continue
        if named[3] != "1":
            report.left_out["later turns"] += 1
            continue
        folder, group = named[1] or "", named[2]
        place = tree.path(f"{folder}{group}-mask1.png")
        if not Path(place).is_file():
            raise InputError(f"{path} has no mask: there is no file {place}; complete the dataset.")
        mask = _transparent(_open(Path(place).read_bytes(), place))
        sessions.append((_split(key), group, tree.get(f"{folder}{group}-input.png"), path, mask))
    if not sessions:
        raise InputError(
            f"{root} holds no session of MagicBrush; it must hold parquet files, or folders with "
            "<id>-input.png, <id>-mask1.png and <id>-output1.png."
        )
    rows: list[Row] = []
    for split, group, source, target, mask in sessions:
        where = images / split / f"{group}-mask1.png"
        write_image(where, mask)
        if source:
            rows.append(real_row(source, split, group))
        rows.append(Row(target, str(where), "dall-e-2", "fr", "reencoded", split, group, source))
    return assemble(rows, report, incomplete=incomplete)


def _records(tree: Tree, columns: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The rows of all parquet files: the file, the row's number in it, and its columns."""
    files = [path for key, path in tree.files.items() if key.endswith(".parquet")]
    if not files:
        raise InputError(f"There is no parquet file in or below {tree.root}; give their folder.")
    for path in files:
        try:
            file = pq.ParquetFile(path)
            absent = [column for column in columns if column not in file.schema_arrow.names]
            if absent:
                raise InputError(
                    f"{path} lacks the column {absent[0]!r}; it has "
                    f"{', '.join(map(repr, file.schema_arrow.names))}."
                )
            number = 0
            for batch in file.iter_batches(BATCH, columns=columns):
                for record in batch.to_pylist():
                    yield path, number, record
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{path} cannot be read as parquet ({str(error).splitlines()[0]}); get a whole "
                "copy."
            ) from error


def _save(cell: dict[str, Any], path: Path, place: str) -> str:
    """Write an image's own bytes, with the suffix of its format, and return where."""
    suffix = (_open(cell["bytes"], place).format or "png").lower()
    path = path.with_name(f"{path.name}.{'jpg' if suffix == 'jpeg' else suffix}")
    with atomic(path) as draft:
        draft.write_bytes(cell["bytes"])
    return str(path)


def _open(data: bytes, place: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception as error:  # decoders meet damage with almost any exception
        raise InputError(f"{place} holds no image that can be read; get a whole copy.") from error
    return image


def _transparent(image: Image.Image) -> NDArray[np.uint8]:
    """255 where a mask is transparent; of a mask without transparency, where it is white."""
    if "A" in image.getbands():
        alpha = np.asarray(image.getchannel("A"))
        return np.uint8(255) * (alpha <= 127).astype(np.uint8)
    return np.uint8(255) * (np.asarray(image.convert("L")) > 127).astype(np.uint8)


def _split(path: str) -> str:
    """The split whose name is nearest to the file's, as a folder or in front of its name."""
    words = re.split(r"[/\\]|-(?=\d)", path.casefold())
    return next((SPLITS[word] for word in words[::-1] if word in SPLITS), "test")
