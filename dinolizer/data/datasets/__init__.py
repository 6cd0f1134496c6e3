"""The public datasets: one adapter each, from its folder to a manifest.

What each expects on disk, and what is not confirmed, stands in data/README.md.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dinolizer.data.datasets.folders import autosplice, bfree, brgen, tgif
from dinolizer.data.datasets.parquet import magicbrush, opensdi
from dinolizer.data.datasets.rows import Report, Row, assemble
from dinolizer.data.datasets.tables import btb, cocoglide, imdl, own_csv, sagid
from dinolizer.data.datasets.tree import open_tree
from dinolizer.data.manifest import write_manifest
from dinolizer.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be turned into a manifest.

    Attributes
    ----------
    rows
        Takes the dataset's `dinolizer.data.datasets.tree.Tree`, a report and choices by name.
    needs
        What the dataset's folder must hold, as in `open_tree`; None for a list, which is one file:
        ``rows`` then takes its path.
    title, licence, citation
        For those who use it.
    """

    rows: Callable[..., Iterator[Row]]
    needs: tuple[str, ...] | None
    title: str
    licence: str
    citation: str


DATASETS: dict[str, Dataset] = {
    "bfree": Dataset(
        bfree,
        ("COCO_real_512", "SD2.1_*", "mask", "bbox", "train_list.csv", "valid_list.csv"),
        *("B-Free training set", "nonprofit use only", "arXiv:2412.17671"),
    ),
    "tgif": Dataset(
        tgif,
        ("orig|original", "masks*", "*-sp*|*-fr*"),
        *("TGIF and TGIF2", "CC BY-SA 4.0", "arXiv:2407.11566, arXiv:2603.28613"),
    ),
    "cocoglide": Dataset(
        cocoglide,
        ("real", "fake", "mask"),
        *("CocoGlide", "nonprofit use only", "arXiv:2212.10957"),
    ),
    "sagid": Dataset(sagid, ("sagid.csv",), *("SAGI-D", "not confirmed", "arXiv:2502.06593")),
    "btb": Dataset(
        btb,
        ("flickr30k|floreview|vision", "btb-*.csv"),
        *("Beyond the Brush", "CC BY-SA 4.0", "https://lesc.dinfo.unifi.it/papers/btb-framework/"),
    ),
    "brgen": Dataset(brgen, ("Au", "Tp", "Gt"), "BR-Gen", "academic use only", "arXiv:2504.11922"),
    "opensdi": Dataset(opensdi, (), "OpenSDI", "CC BY-SA 4.0", "arXiv:2503.19653"),
    "autosplice": Dataset(
        autosplice,
        ("Authentic", "Forged_JPEG*", "Mask"),
        *("AutoSplice", "academic use only", "CVPR Workshops 2023, pp. 893-903"),
    ),
    "magicbrush": Dataset(magicbrush, (), "MagicBrush", "CC BY 4.0", "arXiv:2306.10012"),
    "imdl": Dataset(
        imdl, None, "a list in IMDL-BenCo's JSON", "that of the images", "arXiv:2406.10580"
    ),
    "csv": Dataset(own_csv, None, "a CSV file of one's own", "that of the images", ""),
}


def read_dataset(
    name: str,
    root: str | Path,
    *,
    images: Path | None = None,
    incomplete: bool = False,
    choices: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Pair, measure and check the files of a dataset.

    Parameters
    ----------
    name
        One of `DATASETS`.
    root
        The dataset's folder, or the file of ``imdl`` and ``csv``.
    images
        Folder to which images that come inside parquet files are extracted.
    incomplete
        Leave out, and count, images that are unreadable or whose mask is missing, unreadable or
        all black on a forged image; otherwise the first of them is refused.
    choices
        Further arguments of the dataset's ``rows``, by name.

    Returns
    -------
    The manifest, with a `Report` in ``attrs["report"]``.

    Raises
    ------
    InputError
        If the name or a choice is unknown, the files are not as expected or the masks look
        inverted.
    """
    if name not in DATASETS:
        raise InputError(f"The dataset is {name!r}, but it must be one of {', '.join(DATASETS)}.")
    dataset, root, given = DATASETS[name], Path(root).absolute(), dict(choices or {})
    known = list(inspect.signature(dataset.rows).parameters)[2:]
    if "images" in known:
        known.remove("images")
        given["images"] = images
    if unknown := [choice for choice in given if choice not in (*known, "images")]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"{name} has no choice {unknown[0]!r}; {has}.")
    report = Report(name, incomplete)
    if dataset.needs is None:
        return assemble(dataset.rows(root, report, **given), report)
    tree = open_tree(root, dataset.title, dataset.needs)
    if tree.unreadable:
        report.fault(
            "files or folders that cannot be read", f"{tree.unreadable[0]} cannot be read."
        )
    return assemble(dataset.rows(tree, report, **given), report)


def make_manifest(
    name: str,
    root: str | Path,
    out: str | Path,
    choices: Mapping[str, object] | None = None,
    *,
    incomplete: bool = False,
) -> Report:
    """Write a dataset's manifest to a CSV file; arguments as in `read_dataset`.

    Images that come inside parquet files are extracted to the folder beside ``out`` that has its
    name and ``-images``.

    Raises
    ------
    InputError
        As `read_dataset`, or if the file cannot be written; then there is no manifest.
    """
    out = Path(out)
    if out.suffix.lower() != ".csv":
        raise InputError(f"The manifest was to be written as {out}, but its name must end in .csv.")
    images = out.absolute().with_name(f"{out.stem}-images")
    try:
        frame = read_dataset(name, root, images=images, incomplete=incomplete, choices=choices)
        write_manifest(frame, out)
    except OSError as error:
        raise InputError(
            f"The manifest {out} cannot be made ({error}); see that the dataset can be read, and "
            "that there is space and leave to write."
        ) from error
    report: Report = frame.attrs["report"]
    return report
