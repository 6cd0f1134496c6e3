"""Datasets whose tables say what belongs together, and lists of one's own images."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dinolizer.data.datasets.rows import SPLITS, Report, Row, Tree
from dinolizer.data.files import read_table
from dinolizer.data.manifest import AUTHENTIC_KINDS, COLUMNS, coco_group
from dinolizer.errors import InputError

SAGID_COLUMNS = ["img_path", "mask_path", "src_path", "split", "type", "inpainting_model"]
NOT_THERE = "images that are listed but not there"
NO_MASK = ("", "negative", "none")  # what a list writes for an authentic image, in any case


def sagid(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of SAGI-D; several models of one become a generator, joined by ``+``."""
    path, seen = tree.path("sagid.csv"), set()
    table = read_table(path, SAGID_COLUMNS)[SAGID_COLUMNS]
    for number, (image, mask, source, split, kind, model) in enumerate(table.values.tolist(), 1):
        kind, split = kind.casefold(), SPLITS.get(split.casefold())
        if kind not in ("sp", "fr") or split is None:
            allowed = "sp or fr, and train, val or test"
            raise InputError(f"Row {number} of {path}: type and split must be {allowed}.")
        group = (source or image).replace("\\", "/").casefold().removeprefix("sagid/")
        if "/coco/" in f"/{group}":
            group = coco_group(Path(group).stem)
        authentic, forged = tree.find(source, "sagid"), tree.find(image, "sagid")
        if not forged:
            report.left_out[NOT_THERE] += 1
            continue
        if authentic and authentic not in seen:
            seen.add(authentic)
            yield Row(authentic, split, group)
        mask_path = tree.find(mask, "sagid") or (mask and tree.path(mask.replace("\\", "/")))
        generator = "+".join(part.strip() for part in model.split(","))
        yield Row(forged, split, group, mask_path, generator, kind, authentic)


def btb(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of Beyond the Brush, by the cells of its tables that name files."""
    for listed, named in tree.match(r"btb-(\w+)-(\w+)\.csv"):
        source, split = named[1].casefold(), SPLITS.get(named[2].casefold())
        if split is None:
            continue
        table, by_stem, images = read_table(listed, []), tree.stems(f"{source}/masks"), 0
        for cells in table.values.tolist():
            image, mask = (
                next((path for cell in cells if (path := _inside(tree, source, part, cell))), "")
                for part in ("images", "masks")
            )
            if not image:
                report.left_out[NOT_THERE] += 1
                continue
            images, stem = images + 1, Path(image).stem
            beside = by_stem.get(stem.casefold()) or tree.path(source, "masks", f"{stem}.png")
            yield Row(image, split, f"{source}/{stem}", mask or beside, "fooocus", "sp")
        if not images:
            names = ", ".join(map(repr, table.columns))
            raise InputError(f"No column of {listed} has paths of {source}/images; it has {names}.")


def _inside(tree: Tree, source: str, part: str, listed: str) -> str:
    """Path of a listed file in a folder ``part``, empty if there is none."""
    path = tree.find(listed, f"{source}/{part}", source)
    return path if Path(path).parent.name.casefold() == part else ""


def imdl(path: Path, report: Report) -> Iterator[Row]:
    """Give the rows of a JSON file ``[[image, mask or "Negative"], ...]``, paths relative to the
    file or absolute. Edits count as spliced; each image is its own group."""
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a JSON file of pairs of image and mask.")
    try:
        pairs = json.loads(path.read_text("utf-8-sig"))
        for pair in [pairs] if not isinstance(pairs, list) else pairs:
            if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
                raise ValueError(f"{str(pair)[:80]} is no pair of paths")
            if pair[0] in ("ManiDataset", "JsonDataset"):
                raise ValueError("it is a protocol that names datasets; give a list that it names")
            "".join(pair).encode()  # half of a character, which JSON may name, is in no file's name
    except (ValueError, RecursionError) as error:
        pairs = 'a JSON list of pairs [image, mask], or [image, "Negative"] for an authentic one'
        raise InputError(f"{path} cannot be used ({error}); it must be {pairs}.") from error
    for image, mask in pairs:
        yield _listed_row({"image": image, "mask": mask}, path.parent)


def listed_csv(path: Path, report: Report) -> Iterator[Row]:
    """Give the rows of a CSV file with the columns ``image`` and ``mask``, and perhaps more."""
    report.dataset = path.stem
    for cells in read_table(path, ["image", "mask"]).to_dict("records"):
        further = {str(name): value for name, value in cells.items() if name not in COLUMNS}
        source = _listed_path(cells.get("source") or ".", path.parent)
        row = _listed_row(cells, path.parent)._replace(further=further)
        yield row._replace(source=source if Path(source).is_file() else "")


def _listed_row(cells: Mapping[Any, str], folder: Path) -> Row:
    given = {column: value for column, value in cells.items() if value}
    image, mask = _listed_path(given.get("image", ""), folder), given.get("mask", "")
    mask = "" if mask.casefold() in NO_MASK else _listed_path(mask, folder)
    kind = given.get("kind", "sp" if mask else "real")
    generator = given.get("generator", "none" if kind in AUTHENTIC_KINDS else "unknown")
    split, group = given.get("split", "test"), given.get("group", image)
    background = given.get("background", "")
    return Row(image, split, group, mask, generator, kind, background=background)


def _listed_path(listed: str, folder: Path) -> str:
    """Path relative to a folder, with the separators of this system if need be."""
    path = folder / listed
    return os.path.normpath(path if path.exists() else folder / listed.replace("\\", "/"))
