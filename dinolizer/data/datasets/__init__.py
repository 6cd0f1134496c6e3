"""The public datasets: one adapter each, from its folder to a manifest; see data/README.md."""

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dinolizer.data.datasets.folders import (
    BFREE_LISTS,
    BFREE_REAL,
    autosplice,
    bfree,
    brgen,
    cocoglide,
    tgif,
)
from dinolizer.data.datasets.parquet import magicbrush, opensdi
from dinolizer.data.datasets.rows import Report, Row, assemble
from dinolizer.data.datasets.tables import btb, imdl, inpaintings, own_csv, sagid
from dinolizer.data.datasets.tree import Tree, open_tree
from dinolizer.data.fetch import download, extract
from dinolizer.data.files import HIDDEN, UNREADABLE
from dinolizer.data.images import read_header, turn, write_image
from dinolizer.data.manifest import write_manifest
from dinolizer.data.masks import read_mask
from dinolizer.errors import InputError, check_choice
from dinolizer.paths import check_outputs, file_name


class Dataset(NamedTuple):
    """A dataset that can be turned into a manifest: what gives its rows, of its `Tree` or, of a
    list, its path, of a report and of choices by name; its name in sentences; and what its folder
    must hold, as in `open_tree` (None for a list, which is one file)."""

    rows: Callable[..., Iterator[Row]]
    title: str
    needs: tuple[str, ...] | None


DATASETS = {
    "bfree": Dataset(
        bfree, "the B-Free training set", (BFREE_REAL, "SD2.1_*", "mask", "bbox", *BFREE_LISTS)
    ),
    "tgif": Dataset(tgif, "TGIF", ("orig|original", "masks*", "*-sp*|*-fr*")),
    "cocoglide": Dataset(cocoglide, "CocoGlide", ("real", "fake", "mask")),
    "sagid": Dataset(sagid, "SAGI-D", ("sagid.csv",)),
    "btb": Dataset(btb, "Beyond the Brush", ("flickr30k|floreview|vision", "btb-*.csv")),
    "brgen": Dataset(brgen, "BR-Gen", ("Au", "Tp", "Gt")),
    "opensdi": Dataset(opensdi, "OpenSDI", ()),
    "autosplice": Dataset(autosplice, "AutoSplice", ("Authentic", "Forged_JPEG*", "Mask")),
    "magicbrush": Dataset(magicbrush, "MagicBrush", ()),
    "inpaintings": Dataset(inpaintings, "the real inpaintings", ("table.csv",)),
    "imdl": Dataset(imdl, "a list in IMDL-BenCo's JSON", None),
    "csv": Dataset(own_csv, "a CSV file of one's own", None),
}
"""What each is, and its terms, stand in data/README.md."""


def read_dataset(
    name: str,
    root: str | Path,
    choices: Mapping[str, object] | None = None,
    *,
    images: Path = Path("images"),
    incomplete: bool = False,
    invert: bool = False,
) -> pd.DataFrame:
    """Check a dataset's files and make its manifest, with a `Report` in ``attrs["report"]``.

    Parameters
    ----------
    root : its folder, or the file of ``imdl`` and ``csv``.
    choices : further arguments of the dataset's ``rows``, by name.
    images : folder for images that come inside parquet files and for inverted masks.
    incomplete : leave out, and count, images that are unreadable or whose mask is missing,
        unreadable or all black on a forged image; otherwise the first of them is refused.
    invert : black marks the edit in the dataset's masks; inverted copies are listed.

    Raises
    ------
    InputError : if the files are not as expected or the masks look inverted.
    """
    check_choice("dataset", name, DATASETS)
    dataset, root, given = DATASETS[name], Path(root).absolute(), dict(choices or {})
    known = set(inspect.signature(dataset.rows).parameters) - {"tree", "path", "report", "images"}
    for unknown in given.keys() - known:
        has = ", ".join(sorted(known)) or "none"
        raise InputError(f"{name} has no choice {unknown!r}; it has {has}.")
    if dataset.needs == ():  # parquet files, at any depth
        given["images"] = images
    report = Report(name, incomplete)
    source: Path | Tree = root
    if dataset.needs is not None:
        source = open_tree(root, dataset.title, dataset.needs)
        report.left_out[HIDDEN] += len(source.left_out.get(HIDDEN, ()))
        for path in source.left_out.get(UNREADABLE, ()):
            report.fault(UNREADABLE, f"{path} cannot be read.")
    rows = dataset.rows(source, report, **given)
    return assemble(_inverted(rows, images) if invert else rows, report)


def _inverted(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """Rows with inverted copies of their masks, which lie as theirs on the pixels as stored."""
    for row in rows:
        with suppress(InputError):  # which is told of the row where it is measured
            if row.mask:
                turned = read_header(row.image).orientation
                mask = turn(~read_mask(row.mask, turned), {6: 8, 8: 6}.get(turned, turned))
                digest = hashlib.sha256(os.fsencode(row.mask + row.image)).hexdigest()[:16]
                copy = folder / file_name(Path(row.mask).stem, f"-{digest}.png")
                write_image(copy, mask)
                row = row._replace(mask=str(copy))
        yield row


COCOGLIDE = "https://www.grip.unina.it/download/prog/TruFor/CocoGlide.zip"
COCOGLIDE_SIZE = 123_161_479


def make_manifest(
    name: str,
    root: str | Path,
    out: str | Path,
    choices: Mapping[str, object] | None = None,
    *,
    incomplete: bool = False,
    invert: bool = False,
) -> Report:
    """Write a dataset's manifest to a CSV file; arguments and errors as in `read_dataset`. Its
    ``images`` go beside ``out``, to the folder of its name and ``-images``."""
    out = Path(out).absolute()
    if out.suffix.lower() != ".csv":
        raise InputError(f"The manifest was to be written as {out}, but its name must end in .csv.")
    images = out.with_name(f"{out.stem}-images")
    try:
        frame = read_dataset(
            name, root, choices, images=images, incomplete=incomplete, invert=invert
        )
        write_manifest(frame, out)
    except OSError as error:
        raise InputError(
            f"The manifest {out} cannot be made ({error}); see that the dataset can be read, and "
            "that there is space and leave to write."
        ) from error
    report: Report = frame.attrs["report"]
    return report


def fetch_cocoglide(folder: Path, *, overwrite: bool = False) -> Report:
    """Download CocoGlide (512 pairs) to ``CocoGlide`` in a folder, and write its manifest beside;
    with no hash published, size and files are checked. Raises `InputError` if it cannot be
    downloaded, another file comes, or a manifest is there."""
    manifest, archive = folder / "cocoglide.csv", folder / "CocoGlide.zip"
    check_outputs([manifest], overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    download(COCOGLIDE, archive, size=COCOGLIDE_SIZE)
    extract(archive, folder, 2 * COCOGLIDE_SIZE)
    report = make_manifest("cocoglide", folder / "CocoGlide", manifest)
    archive.unlink()
    return report
