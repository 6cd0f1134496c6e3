"""Any model, head or folder of maps on a manifest: the benchmark's tables and figure, as files."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import dinolizer
from dinolizer.data.files import write_csv
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_manifest
from dinolizer.errors import InputError, say
from dinolizer.model.files import say_which
from dinolizer.model.localizer import Localizer
from dinolizer.paths import atomic, file_hash, write_file
from dinolizer.study import figures
from dinolizer.study.evaluation import authentic_table, benchmark_table, rows_of
from dinolizer.study.methods import localized
from dinolizer.study.metrics import METRIC_RULE, detection_table
from dinolizer.study.peers import read_peers
from dinolizer.study.results import DPI
from dinolizer.study.statistics import ALL_FAMILIES, LEAST

FILES = [f"{name}scores.csv" for name in ("", "authentic-", "detection-", "image-")]
FILES += ["scores.png", "scores.json"]
SHOWN = ["method", "n_images", "n_photos", "iou", "iou_low", "iou_high", "f1", "ap", "best_iou"]


def score(
    path: Path,
    out: Path,
    localizer: Localizer | None = None,
    maps: Sequence[Path] = (),
    *,
    name: str = "",
    split: str = "test",
) -> pd.DataFrame:
    """Score a localizer, called ``name``, and folders of ``maps`` (see `read_peers`) on a split of
    a manifest. Write `FILES` to a folder: tables over all edits and by family and kind, of images
    without an edit, of the image level and of every image; the figure; and what was scored, how.
    Return the lines over all families. What is interrupted goes on. Raises `InputError` for a
    manifest without an edited image of the split, and as `read_peers`."""
    manifest = read_manifest(path)
    images = manifest[manifest["split"] == split].reset_index(drop=True)
    if images["authentic"].all():
        known = ", ".join(sorted(set(manifest.loc[~manifest["authentic"], "split"]))) or "none"
        splits = f"of the split {split!r}; its splits with edited images: {known}"
        raise InputError(f"{path} has no edited image {splits}. Name one that was not trained on.")
    methods = read_peers([str(folder.absolute()) for folder in maps], images, taken=[name])
    if localizer is not None:
        say_which(localizer)
        methods.insert(0, localized(name, localizer))
    # Which generators a head was trained on, is not known here: no column of that is written.
    rows = rows_of(methods, images).assign(seen=True)
    table = benchmark_table(rows)
    overall = table[table["family"] == ALL_FAMILIES]
    tables = [table, authentic_table(rows), detection_table(rows), rows]
    for file, frame in zip(FILES, tables, strict=False):
        shown = frame.drop(columns=["seen", "inside", "outside"], errors="ignore")
        write_csv(shown, out / file, float_format="%.6g")
    edited, photos = rows[~rows["kind"].isin(AUTHENTIC_KINDS)], overall["n_photos"].iloc[0]
    note = f"{path.name}, split {split}: n = {edited['image'].nunique()} edited images, {photos} "
    figures.style()
    figure = figures.benchmark(table, rows, f"{note}photographs; 95 % intervals over photographs")
    with atomic(out / "scores.png") as draft:
        figure.savefig(draft, dpi=DPI, bbox_inches="tight")
    record = {
        "version": dinolizer.__version__,
        "manifest": str(path),
        "manifest_sha256": file_hash(path),
        "split": split,
        "rule": METRIC_RULE,
        "methods": {method.name: {"threshold": method.threshold} for method in methods},
        "model": None if localizer is None else localizer.settings,
        "maps": [*map(str, maps)],
    }
    write_file(out / "scores.json", json.dumps(record, indent=1) + "\n")
    if photos < LEAST:
        say(
            f"Intervals need {LEAST} photographs (groups of the manifest), and the edited images "
            f"are of {photos}: take the means as examples."
        )
    return overall[SHOWN]
