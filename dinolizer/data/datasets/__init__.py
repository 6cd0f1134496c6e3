"""The public datasets: one adapter each, from its folder to a manifest."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dinolizer.data.assembly import Report
from dinolizer.data.datasets.bfree import bfree
from dinolizer.data.datasets.lists import imdl, own_csv
from dinolizer.data.datasets.named import autosplice, brgen
from dinolizer.data.datasets.parquet import magicbrush, opensdi
from dinolizer.data.datasets.tables import btb, cocoglide, sagid
from dinolizer.data.datasets.tgif import tgif
from dinolizer.data.manifest import write_manifest
from dinolizer.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be turned into a manifest.

    Attributes
    ----------
    adapt
        Takes the dataset's folder (or file) and choices by name; gives the manifest, with a
        `dinolizer.data.assembly.Report` in ``attrs["report"]``.
    title, licence, citation
        For those who use it.
    """

    adapt: Callable[..., pd.DataFrame]
    title: str
    licence: str
    citation: str


ADAPTERS: dict[str, Dataset] = {
    "bfree": Dataset(bfree, "B-Free training set", "nonprofit use only", "arXiv:2412.17671"),
    "tgif": Dataset(tgif, "TGIF and TGIF2", "CC BY-SA 4.0", "arXiv:2407.11566, arXiv:2603.28613"),
    "cocoglide": Dataset(cocoglide, "CocoGlide", "nonprofit use only", "arXiv:2212.10957"),
    "sagid": Dataset(sagid, "SAGI-D", "not confirmed", "arXiv:2502.06593"),
    "btb": Dataset(
        btb, "Beyond the Brush", "CC BY-SA 4.0", "https://lesc.dinfo.unifi.it/papers/btb-framework/"
    ),
    "brgen": Dataset(brgen, "BR-Gen", "academic use only", "arXiv:2504.11922"),
    "opensdi": Dataset(opensdi, "OpenSDI", "CC BY-SA 4.0", "arXiv:2503.19653"),
    "autosplice": Dataset(
        autosplice, "AutoSplice", "academic use only", "CVPR Workshops 2023, pp. 893-903"
    ),
    "magicbrush": Dataset(magicbrush, "MagicBrush", "CC BY 4.0", "arXiv:2306.10012"),
    "imdl": Dataset(imdl, "a list in IMDL-BenCo's JSON", "that of the images", "arXiv:2406.10580"),
    "csv": Dataset(own_csv, "a CSV file of one's own", "that of the images", ""),
}


def make_manifest(
    name: str, root: str | Path, out: str | Path, choices: Mapping[str, object] | None = None
) -> Report:
    """Write a dataset's manifest.

    Parameters
    ----------
    name
        One of `ADAPTERS`.
    root
        The dataset's folder, or the file of ``imdl`` and ``csv``.
    out
        The manifest's file. Images that come inside parquet files are extracted to the folder
        beside it that has its name and ``-images``.
    choices
        Further arguments of the adapter.

    Raises
    ------
    InputError
        If the name or a choice is unknown, and as the adapter; then no manifest is written.
    """
    if name not in ADAPTERS:
        raise InputError(f"The dataset is {name!r}, but it must be one of {', '.join(ADAPTERS)}.")
    adapt, out = ADAPTERS[name].adapt, Path(out)
    if out.suffix.lower() != ".csv":
        raise InputError(f"The manifest was to be written as {out}, but its name must end in .csv.")
    given = dict(choices or {})
    known = [parameter for parameter in inspect.signature(adapt).parameters if parameter != "root"]
    if "images" in known:
        given.setdefault("images", out.absolute().with_name(f"{out.stem}-images"))
    if unknown := [choice for choice in given if choice not in known]:
        raise InputError(f"{name} has no choice {unknown[0]!r}; it has {', '.join(known)}.")
    try:
        frame = adapt(Path(root).absolute(), **given)
        write_manifest(frame, out)
    except OSError as error:
        raise InputError(
            f"The manifest {out} cannot be made ({error}); see that the dataset can be read, and "
            "that there is space and leave to write."
        ) from error
    report: Report = frame.attrs["report"]
    return report
