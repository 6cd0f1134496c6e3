"""Datasets whose file names say which image, mask and authentic photograph belong together."""

import re
from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report, Row, assemble, real_row
from dinolizer.data.tree import open_tree
from dinolizer.errors import InputError

BRGEN_NAME = re.compile(r"(?P<method>.+?)_(?:stuff|background)_(?P<photo>.+)", re.IGNORECASE)
QUALITIES = ("75", "90", "100")


def brgen(root: Path, *, split: str = "test", incomplete: bool = False) -> pd.DataFrame:
    """Make the manifest of BR-Gen's validation tree; its raw tree is not documented.

    Expects ``Tp/<method>_Stuff_<source>_<id>.png``, ``Gt/<the same>_mask.png`` and ``Au``. An
    image of ``Au`` is a forged one's partner if its name is ``<source>_<id>``. That the whole image
    went through the generator is our reading, the weaker claim of the two.
    """
    tree = open_tree(root, "BR-Gen", ("Au", "Tp", "Gt"))
    report = Report("brgen")
    authentic = {Path(name).stem: path for name, path in tree.under("Au")}
    rows = [real_row(path, split, Path(path).stem) for path in authentic.values()]
    for _, path in tree.under("Tp"):
        stem = Path(path).stem
        found = BRGEN_NAME.fullmatch(stem)
        method, photo = (found["method"], found["photo"]) if found else ("unknown", stem)
        mask = tree.path("Gt", f"{stem}_mask.png")
        source = authentic.get(photo.casefold(), "")
        rows.append(Row(path, mask, method, "fr", "reencoded", split, photo, source))
    return assemble(rows, report, incomplete=incomplete)


def autosplice(
    root: Path, *, quality: str = "75", split: str = "test", incomplete: bool = False
) -> pd.DataFrame:
    """Make the manifest of AutoSplice.

    Expects ``Authentic/<name>.jpg``, ``Forged_JPEG<quality>/<name>_<number>.jpg`` and
    ``Mask/<name>_mask.png``, where ``name`` has no ``_``.

    Parameters
    ----------
    quality
        Of the forged JPEG files. 75 is that of the authentic ones; with 90 or 100 the format alone
        tells which are forged.
    """
    if str(quality) not in QUALITIES:
        raise InputError(f"quality is {quality!r}, but it must be one of {', '.join(QUALITIES)}.")
    folder = f"Forged_JPEG{quality}"
    tree = open_tree(root, "AutoSplice", ("Authentic", folder, "Mask"))
    report = Report("autosplice")
    authentic = {Path(name).stem: path for name, path in tree.under("Authentic")}
    rows = [real_row(path, split, _photo(path)) for path in authentic.values()]
    for _, path in tree.under(folder):
        photo = _photo(path)
        mask = tree.path("Mask", f"{photo}_mask.png")
        source = authentic.get(photo.casefold(), "")
        rows.append(Row(path, mask, "dall-e-2", "sp", "real", split, photo, source))
    for other in QUALITIES:
        if other != str(quality):
            left_out = sum(1 for _ in tree.under(f"Forged_JPEG{other}"))
            report.left_out[f"forged images of JPEG quality {other}"] += left_out
    return assemble(rows, report, incomplete=incomplete)


def _photo(path: str) -> str:
    return Path(path).stem.partition("_")[0]
