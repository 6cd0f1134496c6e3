"""The demonstration on real outputs of published models, which it was never tuned on.

Tables are made from rows, one per picture, condition and method, or read as they are committed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from dinolizer.data.degradations import jpeg
from dinolizer.data.manifest import read_pair
from dinolizer.model.localizer import Localizer
from dinolizer.paths import ROOT
from dinolizer.pocket.photos import photo_paths
from dinolizer.study import figures
from dinolizer.study.baselines import BASELINES
from dinolizer.study.cache import cache_key, cached, images_hash, probe_hash
from dinolizer.study.evaluation import probe_image
from dinolizer.study.metrics import score_image
from dinolizer.study.results import Results
from dinolizer.study.statistics import columns, macro_mean

COMMITTED = ROOT / "results" / "real"
METHOD, RIVAL = "demonstration", "residual classifier"
CONDITIONS = ("as published", "JPEG 75")  # of the whole picture, chroma 4:2:0
SCORES = ("auc", "ap", "iou", "false_positive_rate")
LEAST = 4
"""Pictures that a generator needs to count in the mean over generators."""
AREAS = (0, 0.05, 0.1, 0.2, 0.4, 1)
"""Edges of the bins of edited shares."""
WANTED = (
    ("mean AUC over generators", "as published", 0.75),
    ("mean AUC over pictures", "as published", 0.68),
    ("mean AP over generators", "as published", 0.45),
    ("mean AUC over generators", "JPEG 75", 0.6),
    ("AUC above the residual classifier over generators", "as published", 0.0),
    ("share marked of unedited photographs, at most", "as published", 0.03),
    ("share marked of unedited photographs, at most", "JPEG 75", 0.05),
)
"""What was to be reached, and fixed before the demonstration was made."""


def picture_rows(localizer: Localizer, manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows of the localizer and the `BASELINES` on each picture, in each of `CONDITIONS`, those of
    generators with more pictures first; ``scene`` is the manifest's group. Baselines, without a
    threshold of their own, have no IoU and false-positive rate."""
    about = ["generator", "kind", "base", "outside", "area"]
    manifest = manifest.assign(picture=manifest["image"].map(lambda path: Path(path).stem))
    manifest = manifest.rename(columns={"group": "scene"})
    rows = _rows(localizer, manifest, ["picture", "scene", *about], edited=True)
    size = rows.groupby("generator")["picture"].transform("size")
    return rows.iloc[np.argsort(-size, kind="stable")]


def unedited_table(localizer: Localizer, folders: Sequence[str]) -> pd.DataFrame:
    """Share of the pixels marked (``false_positive_rate``) of photographs that nobody has edited:
    a line for each ``collection``, a folder's name, and condition, as in `score_table`."""
    images = [
        {"image": str(path), "mask": "", "picture": name, "collection": Path(folder).name}
        for folder in folders
        for name, path in photo_paths(ROOT / folder).items()
    ]
    about = ["picture", "collection", "area"]
    rows = _rows(localizer, pd.DataFrame(images).assign(area=0.0), about, edited=False)
    return score_table(rows, ["collection", "condition"], "picture", ["false_positive_rate"])


def score_table(
    rows: pd.DataFrame, by: Sequence[str], unit: str = "scene", scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Mean scores of pictures, a line for each value of ``by``: ``n_pictures``, ``n`` units, the
    mean ``area`` (the floor of IoU and AP: everything marked), and each score with its 95 %
    interval over units (see `dinolizer.study.statistics.interval`)."""
    lines = []
    for key, part in rows.groupby(list(by), sort=False, observed=True):
        line: dict[str, Any] = dict(zip(by, key, strict=True))
        line |= {"n_pictures": part["picture"].nunique(), "n": part[unit].nunique()}
        line["area"] = part["area"].mean()
        for score in scores:
            line |= columns(score, macro_mean(part[score], part[unit], bounds=(0, 1)))
        lines.append(line)
    return pd.DataFrame(lines)


def mean_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores of each condition and method: over the generators with `LEAST` pictures or more, each
    counting once, with intervals over generators; and over all pictures, over scenes."""
    by, tables = ["condition", "method"], []
    large = rows[rows.groupby("generator")["picture"].transform("nunique") >= LEAST]
    means = large.groupby([*by, "generator"], sort=False)[["area", *SCORES]].mean().reset_index()
    for name, part, unit in (
        ("generators", means.assign(picture=means["generator"]), "generator"),
        ("pictures", rows, "scene"),
    ):
        table = score_table(part, by, unit)
        table["n_pictures"] = (large if unit == "generator" else rows)["picture"].nunique()
        tables.append(table.assign(over=name))
    return pd.concat(tables, ignore_index=True)


def wanted_table(
    means: pd.DataFrame, unedited: pd.DataFrame, generators: pd.DataFrame
) -> pd.DataFrame:
    """`WANTED`, each beside what was reached: ``wanted, value, low, high, n, reached``; of several
    collections of unedited photographs the worst. ``generators`` are scores by generator."""
    shown, lines = means[means["method"] == METHOD], []
    for name, condition, wanted in WANTED:
        most, score = "at most" in name, "ap" if " AP " in name else "auc"
        rows = shown[shown["over"] == name.split()[-1]]
        if most:
            rows, score = unedited, "false_positive_rate"
        elif "above" in name:
            rows = _above_rival(generators)
        for line in rows[rows["condition"] == condition].nlargest(1, score).to_dict("records"):
            value, *ends = (line[f"{score}{end}"] for end in ("", "_low", "_high"))
            reached = value <= wanted if most else value >= wanted
            lines.append((name, condition, wanted, value, *ends, line["n"], reached))
    columns = ["measure", "condition", "wanted", "value", "low", "high", "n", "reached"]
    return pd.DataFrame(lines, columns=columns)


def _above_rival(generators: pd.DataFrame) -> pd.DataFrame:
    """By condition, the mean over generators with `LEAST` pictures of the demonstration's AUC less
    the rival's, with its interval over generators."""
    large = generators[generators["n_pictures"] >= LEAST]
    auc = large.pivot(index=["condition", "generator"], columns="method", values="auc")
    lines = []
    for condition, above in (auc[METHOD] - auc[RIVAL]).groupby("condition"):
        lines.append((condition, *macro_mean(above, np.arange(len(above))), len(above)))
    return pd.DataFrame(lines, columns=["condition", "auc", "auc_low", "auc_high", "n"])


def generator_figure(table: pd.DataFrame, rows: pd.DataFrame, note: str) -> Figure:
    """Draw AUC and AP of each generator, of the demonstration and the first baseline: means with
    intervals, the demonstration's pictures as grey points, chance as a line or as bars."""
    methods = [METHOD, next(iter(BASELINES))]
    table = table[table["method"].isin(methods)].assign(
        label=table["generator"] + " (" + table["n_pictures"].astype(str) + ")"
    )
    names = {"auc": "pixel AUC", "ap": "average precision"}
    figure = figures.dots(table, names, note, hue="method", lines={"auc": 0.5})
    at = {generator: place for place, generator in enumerate(table["generator"].unique())}
    demonstration, floor = rows[rows["method"] == METHOD], table.drop_duplicates("generator")
    for panel, score in zip(figure.axes, names, strict=True):
        panel.set_xlim(-0.02, 1.02)
        panel.plot(
            demonstration[score], demonstration["generator"].map(at), ".", color="0.7", zorder=0
        )
    places = floor["generator"].map(at)
    figure.axes[1].vlines(floor["area"], places - 0.4, places + 0.4, **figures.REFERENCE)
    return figure


def table_of(
    results: Results, measured: bool, name: str, caption: str, make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Make a table and save it or, where nothing is measured, read the committed one."""
    if not measured:
        return pd.read_csv(COMMITTED / "tables" / f"{name}.csv")
    table = make()
    results.save_table(table, name, caption)
    return table


def _rows(
    localizer: Localizer, images: pd.DataFrame, about: list[str], *, edited: bool
) -> pd.DataFrame:
    """Rows of images, with those columns of them, each from the cache if it is there."""
    probe = probe_image(localizer.window, localizer.window)
    made = np.quantile(localizer(probe).probability, np.linspace(0, 1, 9))
    baselines = [baseline(probe) for baseline in BASELINES.values()]
    code = probe_hash(made, decimals=2), probe_hash(*baselines)
    rows = []
    for row in tqdm(images.to_dict("records"), desc="pictures", leave=False, disable=None):
        files = images_hash(pd.DataFrame([{"image": row["image"], "mask": row["mask"]}]))
        key = cache_key(settings=localizer.settings, code=code, files=files, edited=edited)
        scores = cached("real", key, partial(_computed, localizer, row, edited))
        rows.append(scores.assign(**{name: row[name] for name in about}))
    return pd.concat(rows, ignore_index=True)[[*about, *rows[0].columns[: -len(about)]]]


def _computed(localizer: Localizer, row: dict[Any, Any], edited: bool) -> pd.DataFrame:
    rows = []
    image, truth = read_pair(row)
    for condition, picture in zip(CONDITIONS, (image, jpeg(image, 75)), strict=True):
        result = localizer(picture)
        maps: dict[str, Any] = {METHOD: result.probability}
        if edited:
            maps |= {name: baseline(picture) for name, baseline in BASELINES.items()}
        for method, values in maps.items():
            scores = score_image(values, result.threshold, truth, ranking=edited)
            scores["false_positive_rate"] = scores["fp"] / max(1, scores["fp"] + scores["tn"])
            scores["auc"] = roc_auc_score(truth.ravel(), values.ravel()) if edited else np.nan
            if method != METHOD:
                scores |= {"iou": np.nan, "false_positive_rate": np.nan}
            rows.append({"condition": condition, "method": method, **scores})
    return pd.DataFrame(rows)[["condition", "method", *SCORES]]
