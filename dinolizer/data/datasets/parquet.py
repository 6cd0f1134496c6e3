"""Datasets whose images lie inside parquet files: extracted, as a manifest lists paths."""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dinolizer.data.datasets.rows import SPLITS, Report, Row, Tree
from dinolizer.data.images import FORMATS, read_header, read_samples, write_image
from dinolizer.data.manifest import coco_group
from dinolizer.errors import InputError, refuse
from dinolizer.paths import write_file

BATCH = 16  # rows of a parquet file that are in memory at a time
UNREADABLE = "rows whose cells cannot be read"
SESSION = r"(?:.*/)?([^/]+)-output(\d+)\.png"


def opensdi(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of OpenSDI; images, as the files hold them, and masks are extracted."""
    for file, number, record in _records(tree, ["key", "image", "mask", "label"]):
        relative = file.relative_to(tree.root)
        split = _split(f"{tree.root.name}/{relative}")
        name, group = f"{relative.with_suffix('')}/{number}", f"{split}/{record['key']}"
        at, mask = f"{file}, row {number}", report.folder / f"{name}-mask.png"
        try:
            if record["label"] not in (0, 1, "0", "1"):
                label = record["label"]
                raise InputError(f"{at} has the label {label!r}, but 0 or 1 is due; get a copy.")
            path = _save(_bytes(record["image"]), report.folder / name, at)
            if not int(record["label"]):
                yield Row(path, split, group)
                continue
            if data := _bytes(record["mask"]):
                edited = np.asarray(_open(data, at).convert("RGB")).mean(axis=2) > 127.5
            else:
                edited = np.ones(read_header(path)[1::-1], bool)
        except InputError as error:
            report.fault(UNREADABLE, str(error))
            continue
        write_image(mask, edited)
        yield Row(path, split, group, str(mask), file.name.partition("-")[0], "fr")


def magicbrush(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of the first turns of MagicBrush, from parquet files or from folders."""
    is_parquet = any(key.endswith(".parquet") for key in tree.files)
    turn, masks = None, set()
    for at, split, group, turn, *cells in (_in_parquet if is_parquet else _in_folders)(tree):
        if turn != 1:
            report.left_out["later turns"] += 1
            continue
        folder = report.folder / split
        mask = folder / f"{group}-mask1.png"
        try:
            due = "which must be a name, and of one session; correct it"
            wrong = f"{at} has the id {group!r}, {due}."
            refuse({wrong: not re.fullmatch(r"[\w. -]{1,100}", group) or mask in masks})
            masks.add(mask)
            shown = _open(cells[0], at)
            edited = np.asarray(shown.convert("L")) > 127
            if "A" in shown.getbands():
                edited = np.asarray(shown.getchannel("A")) <= 127
            source, target = (
                _save(cell, folder / f"{group}-{name}", at) if isinstance(cell, bytes) else cell
                for name, cell in zip(("input", "output1"), cells[1:], strict=True)
            )
        except InputError as error:
            report.fault(UNREADABLE, str(error))
            continue
        write_image(mask, edited)
        photo = coco_group(group)  # the id of a session is that of its photograph in COCO
        if source:
            yield Row(source, split, photo)
        yield Row(target, split, photo, str(mask), "dall-e-2", "fr", source)
    if turn is None:
        files = "parquet files, or <id>-input.png, <id>-mask1.png and <id>-output1.png in folders"
        raise InputError(f"{tree.root} holds no session of MagicBrush; it must hold {files}.")


def _in_parquet(tree: Tree) -> Iterator[tuple[Any, ...]]:
    """Name, split, group and turn of each session; the bytes of mask, source and target."""
    cells = ["mask_img", "source_img", "target_img"]
    for file, number, record in _records(tree, ["img_id", "turn_index", *cells]):
        keys = _split(str(file)), str(record["img_id"]), record["turn_index"]
        yield f"{file}, row {number}", *keys, *(_bytes(record[name]) for name in cells)


def _in_folders(tree: Tree) -> Iterator[tuple[Any, ...]]:
    """As `_in_parquet`, with the paths of source and target."""
    for key, path in tree.files.items():
        if named := re.fullmatch(SESSION, key):
            stem, keys = key.rpartition("-")[0], (_split(key), named[1], int(named[2]))
            mask = Path(tree.path(f"{stem}-mask1.png"))
            data = mask.read_bytes() if mask.is_file() else b""
            yield mask, *keys, data, tree.get(f"{stem}-input.png"), path


def _records(tree: Tree, columns: list[str]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """The rows of all parquet files: the file, the row's number in it, and its columns."""
    files = [Path(path) for key, path in tree.files.items() if key.endswith(".parquet")]
    refuse({f"There is no parquet file in or below {tree.root}; give their folder.": not files})
    for path in files:
        try:
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            if absent := [column for column in columns if column not in names]:
                has = ", ".join(map(repr, names))
                raise InputError(f"{path} lacks the column {absent[0]!r}; it has {has}.")
            batches = (batch.to_pylist() for batch in file.iter_batches(BATCH, columns=columns))
            for number, record in enumerate(itertools.chain.from_iterable(batches)):
                yield path, number, record
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = f"({str(error).splitlines()[0]}); get a whole copy"
            raise InputError(f"{path} cannot be read as parquet {reason}.") from error


def _bytes(cell: Any) -> bytes:
    """An image's bytes, which lie in the cell or in its field ``bytes``; none if it is empty."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else b""


def _save(data: bytes, path: Path, at: str) -> str:
    """Write an image's own bytes, with the suffix of its format, and return where."""
    suffix = (_open(data, at).format or "png").lower().replace("jpeg", "jpg")
    path = path.with_name(f"{path.name}.{suffix}")
    write_file(path, data)
    return str(path)


def _open(data: bytes, at: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        read_samples(image)  # which knows its bounds
    except Exception as error:  # decoders meet damage with almost any exception
        raise InputError(f"{at} holds no image that can be read; get a whole copy.") from error
    return image


def _split(path: str) -> str:
    """The split whose name is nearest to the file's, as a folder or in front of its name."""
    words = re.split(r"[/\\_]|-(?=\d)", path.casefold())
    return next((SPLITS[word] for word in words[::-1] if word in SPLITS), "test")
