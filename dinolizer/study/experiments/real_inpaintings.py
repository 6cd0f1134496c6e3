"""The demonstration on real outputs of published models, which it was never tuned on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dinolizer.model.localizer import Localizer
from dinolizer.paths import ASSETS, ROOT
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.evaluation import Case, Method, rows_of
from dinolizer.study.methods import BASELINES, blind_method, localized
from dinolizer.study.results import Results
from dinolizer.study.statistics import macro_table, of_columns
from dinolizer.study.verdicts import decide

COMMITTED = ROOT / "results" / "real"
METHOD, RIVAL = "demonstration", "residual classifier"
CONDITIONS: dict[str, Case] = {"as published": (), "JPEG 75": (("jpeg", 75),)}
"""What is done to the whole picture; chroma is 4:2:0 then."""
SCORES = ("auc", "ap", "iou", "false_positive_rate")
LEAST = 4  # pictures that a generator needs to count in the mean over generators
AREAS = (0, 0.05, 0.1, 0.2, 0.4, 1)  # edges of the bins of edited shares
WANTED = pd.read_csv(ASSETS / "wanted.csv")
"""What was to be reached, fixed before the demonstration was made: where, which score, how much."""
REACHED = {"supported": "reached", "contradicted": "missed"}  # by verdict; else undecided


def picture_rows(localizer: Localizer, manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows of the localizer and the `BASELINES` on each picture, in each of `CONDITIONS`, those of
    generators with more pictures first. Baselines have no threshold, so no IoU."""
    about = ["picture", "scene", "generator", "kind", "base", "outside", "area"]
    names = [Path(path).stem for path in manifest["image"]]
    sizes = manifest.groupby("generator")["image"].transform("size")
    images = manifest.assign(picture=names, scene=manifest["group"], size=sizes)
    images = images.sort_values("size", ascending=False, kind="stable")
    methods = [localized(METHOD, localizer), *map(blind_method, BASELINES)]
    return _rows(methods, images, about)


def unedited_table(localizer: Localizer, folders: Sequence[str]) -> pd.DataFrame:
    """`score_table` of the false-positive rate of unedited photographs, by folder and condition."""
    images = [
        {"image": str(path), "picture": name, "collection": Path(folder).name, "group": name}
        for folder in folders
        for name, path in photo_paths(ROOT / folder).items()
    ]
    frame = pd.DataFrame(images).assign(mask="", generator="", kind="real", background="real")
    frame["area"] = 0.0
    rows = _rows([localized(METHOD, localizer)], frame, ["picture", "collection", "area"])
    return score_table(rows, ["collection", "condition"], "picture", ["false_positive_rate"])


def _rows(methods: Sequence[Method], images: pd.DataFrame, about: Sequence[str]) -> pd.DataFrame:
    """Rows of the methods, image by image, behind the columns ``about`` it."""
    each = images.assign(dataset="")
    cases = [rows_of(methods, each, [of]).assign(condition=name) for name, of in CONDITIONS.items()]
    rows = pd.concat(cases)[["image", "condition", "method", *SCORES]]
    return images[["image", *about]].merge(rows, on="image").drop(columns="image")


def score_table(
    rows: pd.DataFrame, by: Sequence[str], unit: str = "scene", scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Table of `macro_table` over pictures, with intervals over ``unit``: ``n_pictures``, ``n``
    units, and the mean ``area`` (the floor of IoU and AP: everything predicted)."""
    named = rows.assign(group=rows[unit], image=rows["picture"])
    table = macro_table(named, by, scores)
    areas = rows.groupby(list(by), sort=False, observed=True)["area"].mean()
    table.insert(len(by) + 2, "area", areas.to_numpy())
    return table.rename(columns={"n_images": "n_pictures", "n_photos": "n"})


def mean_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores by condition and method over generators with `LEAST` pictures, and over pictures."""
    by = ["condition", "method"]
    large = rows[rows.groupby("generator")["picture"].transform("nunique") >= LEAST]
    means = large.groupby([*by, "generator"], sort=False)[["area", *SCORES]].mean().reset_index()
    of_generators = score_table(means.assign(picture=means["generator"]), by, "generator")
    of_generators["n_pictures"] = large["picture"].nunique()
    tables = {"generators": of_generators, "pictures": score_table(rows, by)}
    return pd.concat([of.assign(over=over) for over, of in tables.items()], ignore_index=True)


def wanted_table(
    means: pd.DataFrame, unedited: pd.DataFrame, generators: pd.DataFrame
) -> pd.DataFrame:
    """`WANTED`, each beside what was measured: ``wanted, value, low, high, n`` and whether that was
    ``reached``, by the whole interval: reached, missed or undecided; of several collections of
    unedited photographs the worst. ``generators`` are scores by generator."""
    large = generators[generators["n_pictures"] >= LEAST]
    large = large[large["method"].isin([METHOD, RIVAL])]
    large = large.assign(group=large["generator"], image=large["generator"])
    above = macro_table(large, ["condition", "method"], "auc", {"method": RIVAL})
    tables = dict(list(means.groupby("over")))
    tables |= {"rival": above.rename(columns={"n_photos": "n"}), "unedited": unedited}
    lines = []
    for measure, condition, of, score, wanted in WANTED.itertuples(index=False):
        rows = tables[of].assign(method=METHOD) if of == "unedited" else tables[of]
        rows = rows[(rows["condition"] == condition) & (rows["method"] == METHOD)]
        for line in rows.nlargest(1, score).to_dict("records"):
            value, low, high = of_columns(line, score)
            over, under = (-np.inf, wanted) if of == "unedited" else (wanted, np.inf)
            verdict = decide(value, low, high, over, under, testable=True)
            reached = REACHED.get(verdict, "undecided")
            lines.append((measure, condition, wanted, value, low, high, line["n"], reached))
    columns = ["measure", "condition", "wanted", "value", "low", "high", "n", "reached"]
    return pd.DataFrame(lines, columns=columns)


def table_of(
    results: Results, measured: bool, name: str, caption: str, make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Make a table and save it or, where nothing is measured, read the committed one."""
    if not measured:
        return pd.read_csv(COMMITTED / "tables" / f"{name}.csv")
    table = make()
    results.save_table(table, name, caption)
    return table
