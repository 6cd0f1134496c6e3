"""Datasets whose tables say which image, mask and authentic photograph belong together."""

import re
from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report, Row, assemble, real_row
from dinolizer.data.tree import SPLITS, Tree, open_tree, read_table
from dinolizer.errors import InputError

COCO_ID = re.compile(r"(\d+)(?=(?:_up|_mask)?\.png$)")
BTB_SOURCES = ("flickr30k", "floreview", "vision")


def cocoglide(root: Path, *, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of CocoGlide, which is for testing only.

    Expects ``real/<class>_<id>.png``, ``fake/glide_inpainting_val2017_<id>_up.png``,
    ``mask/<class>_<id>_mask.png`` and, if there is one, ``table.csv`` with the columns ``real``,
    ``fake`` and ``mask``, which pairs them; without it the COCO id does.
    """
    tree = open_tree(root, "CocoGlide", ("real", "fake", "mask"))
    report = Report("cocoglide")
    parts = ("real", "fake", "mask")
    if listed := tree.get("table.csv"):
        table = read_table(listed, parts)
        triples = [[tree.find(value, part) for value in table[part]] for part in parts]
        real, fake, mask = triples
    else:
        by_id = [
            {found[1]: path for name, path in tree.under(part) if (found := COCO_ID.search(name))}
            for part in parts
        ]
        report.notes.append("there is no table.csv: paired by the COCO id")
        real, fake, mask = ([found.get(key, "") for key in by_id[1]] for found in by_id)
    rows: dict[str, Row] = {}
    for authentic, forged, where in zip(real, fake, mask, strict=True):
        if not forged or not authentic:
            report.left_out["pairs of which an image is not there"] += 1
            continue
        match = COCO_ID.search(forged.lower())
        group = match[1] if match else Path(forged).stem
        missing = str(root / "mask" / f"{Path(authentic).stem}_mask.png")
        rows[authentic] = real_row(authentic, "test", group)
        rows[forged] = Row(
            forged, where or missing, "glide", "sp", "real", "test", group, authentic
        )
    return assemble(list(rows.values()), report, incomplete=incomplete)


def sagid(root: Path, *, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of SAGI-D.

    Expects ``sagid.csv`` with ``img_path``, ``mask_path``, ``src_path``, ``split``, ``type`` and
    ``inpainting_model``, and the files it lists; the paths may be Windows ones, with ``sagid`` in
    front or without. Images that are listed but not there are left out. Several models in a row
    become one generator, joined by ``+``.
    """
    tree = open_tree(root, "SAGI-D", ("sagid.csv",))
    report = Report("sagid")
    columns = ["img_path", "mask_path", "src_path", "split", "type", "inpainting_model"]
    table = read_table(tree.path("sagid.csv"), columns)
    rows: dict[str, Row] = {}
    for number, (image, mask, source, split, kind, model) in enumerate(
        table[columns].itertuples(index=False), start=2
    ):
        kind, split = kind.casefold(), split.casefold()
        if kind not in ("sp", "fr") or split not in SPLITS:
            raise InputError(
                f"Line {number} of {tree.path('sagid.csv')} has the type {kind!r} and the split "
                f"{split!r}, but they must be sp or fr, and train, val or test."
            )
        group = source.replace("\\", "/").casefold().removeprefix("sagid/")
        authentic, forged = tree.find(source, "sagid"), tree.find(image, "sagid")
        if not forged:
            report.left_out["images that are listed but not there"] += 1
            continue
        if authentic:
            rows[authentic] = real_row(authentic, SPLITS[split], group)
        rows[forged] = Row(
            forged,
            tree.find(mask, "sagid") or str(root / mask.replace("\\", "/")),
            "+".join(part.strip() for part in model.split(",")),
            kind,
            "real" if kind == "sp" else "reencoded",
            SPLITS[split],
            group,
            authentic,
        )
    return assemble(list(rows.values()), report, incomplete=incomplete)


def btb(root: Path, *, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of Beyond the Brush.

    Expects ``{flickr30k,floreview,vision}/{images,masks}`` and ``btb-<source>-<split>.csv``. What
    the tables' columns are called is not published: those are taken whose paths exist. Without a
    column of masks, the mask is the file of ``masks`` with the image's name. There are no authentic
    images, so the masks' polarity cannot be checked; that the edit is spliced is our reading.
    """
    tree = open_tree(root, "Beyond the Brush", ("|".join(BTB_SOURCES), "btb-*.csv"))
    report = Report("btb")
    rows: list[Row] = []
    for key, listed in tree.files.items():
        named = re.fullmatch(r"btb-(\w+)-(\w+)\.csv", key)
        if named is None or named[2] not in SPLITS:
            continue
        source, split = named[1], SPLITS[named[2]]
        masks = {Path(name).stem: path for name, path in tree.under(f"{source}/masks")}
        table = read_table(listed, [])
        found = {part: _column_of(table, tree, source, part) for part in ("images", "masks")}
        if not found["images"]:
            raise InputError(
                f"No column of {listed} lists files of {source}/images; it has "
                f"{', '.join(map(repr, table.columns))}, and one must hold their paths."
            )
        for number, image in enumerate(found["images"]):
            if not image:
                report.left_out["images that are listed but not there"] += 1
                continue
            stem = Path(image).stem
            mask = found["masks"][number] if found["masks"] else masks.get(stem.casefold())
            missing = str(root / source / "masks" / f"{stem}.png")
            rows.append(Row(image, mask or missing, "fooocus", "sp", "real", split, stem))
    return assemble(rows, report, incomplete=incomplete)


def _column_of(table: pd.DataFrame, tree: Tree, source: str, part: str) -> list[str]:
    """Paths in the column of which most lie in a folder ``part``, empty where they do not."""
    best: list[str] = []
    for column in table:
        paths = [tree.find(value, f"{source}/{part}", source) for value in table[column]]
        inside = [path if Path(path).parent.name.casefold() == part else "" for path in paths]
        if sum(map(bool, inside)) > sum(map(bool, best)):
            best = inside
    return best
