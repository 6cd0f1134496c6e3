"""The public datasets: one adapter each, from its folder to a manifest; see data/README.md."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dinolizer.data.datasets import folders, parquet, tables
from dinolizer.data.datasets.rows import Report, Row, Tree, assemble, open_tree
from dinolizer.data.fetch import fetch_zip
from dinolizer.data.files import HIDDEN, UNREADABLE
from dinolizer.data.images import read_header, turn, write_image
from dinolizer.data.manifest import write_manifest
from dinolizer.data.masks import read_mask
from dinolizer.errors import InputError, check_choice
from dinolizer.paths import check_outputs, file_name

Dataset = tuple[Callable[..., Iterator[Row]], str, tuple[str, ...] | None]
"""What gives its rows, of its `Tree` or, of a list, its path, and of a report; its name in
sentences; what its folder must hold, as in `open_tree` (None for a list's file)."""
OF_BFREE = (folders.BFREE_REAL, "SD2.1_*", "mask", "bbox", *folders.BFREE_LISTS)
DATASETS: dict[str, Dataset] = {
    "bfree": (folders.bfree, "the B-Free training set", OF_BFREE),
    "tgif": (folders.tgif, "TGIF", ("orig|original", "masks*", "*-sp*|*-fr*")),
    "cocoglide": (folders.cocoglide, "CocoGlide", ("real", "fake", "mask")),
    "sagid": (tables.sagid, "SAGI-D", ("sagid.csv",)),
    "btb": (tables.btb, "Beyond the Brush", ("flickr30k|floreview|vision", "btb-*.csv")),
    "brgen": (folders.brgen, "BR-Gen", ("Au", "Tp", "Gt")),
    "opensdi": (parquet.opensdi, "OpenSDI", ()),
    "autosplice": (folders.autosplice, "AutoSplice", ("Authentic", "Forged_JPEG*", "Mask")),
    "magicbrush": (parquet.magicbrush, "MagicBrush", ()),
    "folder": (folders.paired_folders, "pictures of one's own", ("images", "masks")),
    "imdl": (tables.imdl, "a list in IMDL-BenCo's JSON", None),
    "csv": (tables.listed_csv, "a CSV file of one's own", None),
}
"""What each is, and its terms, stand in data/README.md."""
COCOGLIDE = "https://www.grip.unina.it/download/prog/TruFor/CocoGlide.zip"
COCOGLIDE_SIZE = 123_161_479


def make_manifest(
    name: str, root: str | Path, out: str | Path, *, incomplete: bool = False, invert: bool = False
) -> Report:
    """Check the files of a dataset, in its folder or, of ``imdl`` and ``csv``, listed by a file,
    and write its manifest to a CSV file. Images that come inside parquet files, and inverted masks,
    go beside it, to the folder of its name and ``-images``. ``incomplete`` leaves out, and counts,
    images that are unreadable or whose mask is missing, unreadable or all black on a forged image;
    else the first is refused. With ``invert`` black marks the edit; inverted copies are listed.
    Raises `InputError` for other files, masks that look inverted, and where it cannot write."""
    root, out = Path(root).absolute(), Path(out).absolute()
    if out.suffix.lower() != ".csv":
        raise InputError(f"The manifest was to be written as {out}, but its name must end in .csv.")
    check_choice("dataset", name, DATASETS)
    rows_of, title, needs = DATASETS[name]
    report = Report(name, out.with_name(f"{out.stem}-images"), incomplete)
    try:
        source: Path | Tree = root
        if needs is not None:
            source = open_tree(root, title, needs)
            report.left_out[HIDDEN] += len(source.left_out.get(HIDDEN, ()))
            for path in source.left_out.get(UNREADABLE, ()):
                report.fault(UNREADABLE, f"{path} cannot be read.")
        rows = rows_of(source, report)
        rows = _inverted(rows, report.folder) if invert else rows
        write_manifest(assemble(rows, report), out)
    except OSError as error:
        advice = "see that the dataset can be read, and that there is space and leave to write"
        raise InputError(f"The manifest {out} cannot be made ({error}); {advice}.") from error
    return report


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


def fetch_cocoglide(folder: Path, *, overwrite: bool = False) -> Report:
    """Download CocoGlide (512 pairs) to ``CocoGlide`` in a folder, and write its manifest beside;
    with no hash published, size and files are checked. Raises as `download` and `make_manifest`."""
    manifest = folder / "cocoglide.csv"
    check_outputs([manifest], overwrite=overwrite)
    fetch_zip(COCOGLIDE, folder, 2 * COCOGLIDE_SIZE, size=COCOGLIDE_SIZE)
    return make_manifest("cocoglide", folder / "CocoGlide", manifest)
