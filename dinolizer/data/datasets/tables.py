"""Datasets whose tables say what belongs together, and lists of one's own images."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dinolizer.data.datasets.rows import Report, Row, real_row
from dinolizer.data.datasets.tree import SPLITS, Tree
from dinolizer.data.files import read_table
from dinolizer.data.manifest import AUTHENTIC_KINDS, COLUMNS
from dinolizer.errors import InputError

SAGID_COLUMNS = ["img_path", "mask_path", "src_path", "split", "type", "inpainting_model"]
NOT_THERE = "images that are listed but not there"
NO_MASK = ("", "negative", "none")
"""What a list writes for the mask of an authentic image, in any case."""
BACKGROUNDS = {"sp": "real", "fr": "reencoded"}


def sagid(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of SAGI-D. Several models in a row become one generator, joined by ``+``."""
    path, seen = tree.path("sagid.csv"), set()
    table = read_table(path, SAGID_COLUMNS)[SAGID_COLUMNS]
    for number, (image, mask, source, split, kind, model) in enumerate(table.values.tolist(), 1):
        kind, split = kind.casefold(), split.casefold()
        if kind not in BACKGROUNDS or split not in SPLITS:
            raise InputError(
                f"Row {number} of {path} has the type {kind!r} and the split {split!r}, but they "
                "must be sp or fr, and train, val or test."
            )
        group = (source or image).replace("\\", "/").casefold().removeprefix("sagid/")
        authentic, forged = tree.find(source, "sagid"), tree.find(image, "sagid")
        if not forged:
            report.left_out[NOT_THERE] += 1
            continue
        if authentic and authentic not in seen:
            seen.add(authentic)
            yield real_row(authentic, SPLITS[split], group)
        marked = tree.find(mask, "sagid") or (mask and tree.path(mask.replace("\\", "/")))
        generator = "+".join(part.strip() for part in model.split(","))
        about = generator, kind, BACKGROUNDS[kind], SPLITS[split], group, authentic
        yield Row(forged, marked, *about)


def btb(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of Beyond the Brush; that its edits are spliced is our reading. Its columns'
    names are not published: those are taken whose paths exist. Without a column of masks, the mask
    is the file of ``masks`` with the image's name."""

    def column_of(table: pd.DataFrame, source: str, part: str) -> list[str]:
        """Paths in the column of which most lie in a folder ``part``, empty where they do not."""
        columns = (
            [tree.find(value, f"{source}/{part}", source) for value in table[name]]
            for name in table
        )
        inside = (
            [path if Path(path).parent.name.casefold() == part else "" for path in paths]
            for paths in columns
        )
        return max(inside, key=lambda paths: sum(map(bool, paths)))

    for listed, named in tree.match(r"btb-(\w+)-(\w+)\.csv"):
        source, split = named[1].casefold(), SPLITS.get(named[2].casefold())
        if split is None:
            continue
        by_stem, table = tree.stems(f"{source}/masks"), read_table(listed, [])
        images, masks = (column_of(table, source, part) for part in ("images", "masks"))
        if not any(images):
            raise InputError(
                f"No column of {listed} lists files of {source}/images; it has "
                f"{', '.join(map(repr, table.columns))}, and one must hold their paths."
            )
        for image, mask in zip(images, masks, strict=True):
            if not image:
                report.left_out[NOT_THERE] += 1
                continue
            stem = Path(image).stem
            mask = mask or by_stem.get(stem.casefold(), "")
            mask = mask or tree.path(source, "masks", f"{stem}.png")
            yield Row(image, mask, "fooocus", "sp", "real", split, stem)


def inpaintings(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of real outputs of published models, with columns of the table: ``outside``
    says how the untouched part compares, ``base`` whether the source is a photograph."""
    further = ("base", "outside", "repository", "licence")
    names = ["id", "file", "generator", "kind", "scene", *further]
    for record in read_table(tree.path("table.csv"), names).to_dict("records"):
        image, mask = tree.path(record["file"]), tree.path(f"{record['id']}_mask.png")
        kind, background = record["kind"], BACKGROUNDS.get(record["kind"], "reencoded")
        row = Row(image, mask, record["generator"], kind, background, "test", record["scene"])
        yield row._replace(further={name: record[name] for name in further})


def imdl(path: Path, report: Report, split: str = "test") -> Iterator[Row]:
    """Give the rows of a JSON file ``[[image, mask or "Negative"], ...]``, paths relative to the
    file or absolute. Edits count as spliced; each image is its own group."""
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a JSON file of pairs of image and mask.")
    try:
        pairs = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(pairs, list):
            raise ValueError("it is no list")
        for pair in pairs:
            if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
                raise ValueError(f"{pair!r} is no pair of paths")
            if pair[0] in ("ManiDataset", "JsonDataset"):
                raise ValueError("it is a protocol that names datasets; give a list that it names")
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be used ({str(error).rstrip('.')}); it must be a JSON list of pairs "
            '[image, mask], or [image, "Negative"] for an authentic one.'
        ) from error
    for image, mask in pairs:
        yield _listed_row({"image": image, "mask": mask}, path.parent, split)


def own_csv(path: Path, report: Report, dataset: str = "", split: str = "test") -> Iterator[Row]:
    """Give the rows of a CSV file with the columns ``image`` and ``mask``, paths relative to it or
    absolute; an authentic image's mask is empty, ``Negative`` or ``none``.

    Columns ``generator, kind, background, split, group`` are used if the file has them; else edits
    count as spliced into real backgrounds, and each image is its own group. Further ones are kept;
    where one called ``source`` names a file, that is the authentic image that it was made of.
    """
    report.dataset = dataset or path.stem
    for cells in read_table(path, ["image", "mask"]).to_dict("records"):
        further = {str(name): value for name, value in cells.items() if name not in COLUMNS}
        source = _listed_path(cells.get("source") or ".", path.parent)
        row = _listed_row(cells, path.parent, split)._replace(further=further)
        yield row._replace(source=source if os.path.isfile(source) else "")  # noqa: PTH113


def _listed_row(cells: Mapping[Any, str], folder: Path, split: str) -> Row:
    given = {column: value for column, value in cells.items() if value}
    image, mask = _listed_path(given.get("image", ""), folder), given.get("mask", "")
    mask = "" if mask.casefold() in NO_MASK else _listed_path(mask, folder)
    kind = given.get("kind", "sp" if mask else "real")
    background = given.get("background", "reencoded" if kind in ("fr", "reencoded") else "real")
    generator = given.get("generator", "none" if kind in AUTHENTIC_KINDS else "unknown")
    group = given.get("group", image)
    return Row(image, mask, generator, kind, background, given.get("split", split), group)


def _listed_path(listed: str, folder: Path) -> str:
    """Path relative to a folder, with the separators of this system if need be."""
    path = folder / listed
    return os.path.normpath(path if path.exists() else folder / listed.replace("\\", "/"))
