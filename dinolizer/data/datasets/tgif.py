"""TGIF and TGIF2: a tree of splits and categories; the file names say what belongs together."""

import re
from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report, Row, assemble, real_row
from dinolizer.data.tree import SPLITS, Tree, open_tree

FAKE = re.compile(
    r"(?P<id>\d+)_mask_(?P<type>bbox|segm|random)\.png"
    r"_(?:(?P<spliced>ps)_mask\.png_[^_]+|ps|.+-(?P<size>512|1024))_\d+\.png"
)
"""The three forms of names: spliced, by Photoshop, and of a crop of a size."""
AUTHENTIC = re.compile(r"(?P<id>\d+)_orig(?:_(?:512|1024))?\.png")
LAYOUT = re.compile(r"(?P<top>[^/]+)/(?P<split>[^/]+)/(?P<category>[^/]+)/(?P<name>[^/]+)")
KINDS = {"sp": ("sp", "real"), "fr": ("fr", "reencoded")}


def tgif(root: Path, *, incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of TGIF, of TGIF2, or of as much of them as there is.

    Expects ``<what>/{training,validation,testing}/<category>/<file>.png``, where ``what`` is
    ``orig`` or ``original``, ``masks``, ``original-flux``, ``masks-flux`` and one or more
    ``<model>-sp`` and ``<model>-fr``. A generator is the part before ``-sp`` or ``-fr``. The group
    is the category with the id: the dataset holds some photographs in several categories.
    """
    tree = open_tree(root, "TGIF", ("orig|original", "masks*", "*-sp*|*-fr*"))
    report = Report("tgif")
    rows: list[Row] = []
    splits_of_id: dict[str, set[str]] = {}
    for key, path in tree.files.items():
        place = LAYOUT.fullmatch(key)
        if place is None or place["split"] not in SPLITS:
            report.left_out["files that are not in <what>/<split>/<category>"] += 1
            continue
        top, category = place["top"], place["category"]
        kind = next((kind for kind in KINDS if kind in top.split("-")), None)
        name = (FAKE if kind else AUTHENTIC).fullmatch(place["name"])
        if top.startswith("masks"):
            continue
        if name is None:
            report.left_out["images of another name, such as crop windows"] += 1
            continue
        split, group = SPLITS[place["split"]], f"{category}/{name['id']}"
        splits_of_id.setdefault(name["id"], set()).add(split)
        if kind is None:
            rows.append(real_row(path, split, group))
            continue
        size = f"_{name['size']}" if name["size"] else "_ps"
        mask_name = f"{name['id']}_mask_{name['type']}" + (
            f".png{size}_mask.png" if size == "_ps" else f"{size}.png"
        )
        source = f"{name['id']}_orig{'' if size == '_ps' else size}.png"
        where = (place["split"], category)
        mask = _beside(tree, top, ("masks",), (*where, mask_name))
        original = _beside(tree, top, ("orig", "original"), (*where, source))
        rows.append(
            Row(
                path,
                mask or tree.path("masks", *where, mask_name),
                top.partition(f"-{kind}")[0],
                *KINDS[kind],
                split,
                group,
                original,
            )
        )
    shared = sum(len(splits) > 1 for splits in splits_of_id.values())
    if shared:
        report.notes.append(f"{shared} photographs are in several splits, in other categories")
    return assemble(rows, report, incomplete=incomplete)


def _beside(tree: Tree, top: str, folders: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Path in the folder made for FLUX or for random masks, if it has one, or in the common one."""
    suffixes = [f"-{word}" for word in ("flux", "random") if word in top]
    candidates = [folder + suffix for suffix in suffixes for folder in (*folders, "original")]
    return next(
        (path for folder in (*candidates, *folders) if (path := tree.get(folder, *names))), ""
    )
