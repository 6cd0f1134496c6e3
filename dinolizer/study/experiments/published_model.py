"""The authors' released model on CocoGlide: a third party's rows, and ours beside them."""

from itertools import pairwise, product

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from dinolizer.data.manifest import AUTHENTIC_KINDS, coco_group, read_manifest
from dinolizer.errors import InputError
from dinolizer.model.localizer import Localizer
from dinolizer.model.published import SCORE_THRESHOLD
from dinolizer.paths import ROOT
from dinolizer.study.evaluation import rows_of
from dinolizer.study.experiments.edit_size import DETECTED, detection_size
from dinolizer.study.methods import localized
from dinolizer.study.metrics import auc
from dinolizer.study.statistics import columns, macro_mean, ratio

ROWS = ROOT / "data" / "published" / "cocoglide.csv"
"""What a third party measured with the released weights: see the README beside it."""
METHOD = "DinoLizer (released)"
WINDOWS = (1016 / 504) ** 2  # at most so many times its share of the image is an edit's of a window
EDGES = (0, 0.03, 0.05, 0.1, 0.2, 0.4, 1)  # of edited shares; up to 20 % as the third party's
RULES = {  # when an edit counts as detected
    "sensitivity": f"image score over {SCORE_THRESHOLD}",
    "recalled": f"at least {DETECTED:.0%} of its pixels predicted",
}
TOLERANCES = {"image score": 0.01, "macro IoU": 0.01, "image AUC": 0.005}
REPRODUCED = "Reproduced: over the same images " + ", ".join(
    f"{name} differs by at most {most:g}" for name, most in TOLERANCES.items()
)


def read_rows() -> pd.DataFrame:
    """The third party's rows, one per image, with the names of our own rows: ``score`` is the 99th
    percentile of the map at 1016 pixels; scores of an edit are nan where nothing is edited."""
    rows = pd.read_csv(ROWS)
    edited, tp, either = rows["label"] == 1, rows["tp"], rows["fp"] + rows["fn"]
    recall = tp / (tp + rows["fn"])
    scores = {
        "iou": rows["iou"],
        "f1": 2 * tp / (2 * tp + either),
        "recall": recall,
        "sensitivity": (rows["p99"] > SCORE_THRESHOLD).astype(float),
        "recalled": (recall >= DETECTED).astype(float),
    }
    names = {"truth": "area", "marked": "predicted_area", "p99": "score"}
    return rows.rename(columns=names).assign(
        method=METHOD,
        group=rows["coco_id"].astype(str).map(coco_group),
        edited=edited,
        kind=np.where(edited, "sp", "real"),
        **{name: values.where(edited) for name, values in scores.items()},
    )


def aggregates(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A line per half and measure: ``half, n_photos, measure, value, low, high``, over photos."""
    lines = []
    for half, part in rows.groupby("split"):
        edited, real = (part[part["edited"] == which] for which in (True, False))
        pixels = edited[["tp", "fp", "fn"]].sum(axis=1)
        photos, clean = edited["group"], real["group"]
        measures = {
            "macro IoU": macro_mean(edited["iou"], photos, seed=seed),
            "macro F1": macro_mean(edited["f1"], photos, seed=seed),
            "micro IoU": ratio(edited["tp"], pixels, photos, seed=seed),
            "image AUC": auc(part["score"], part["edited"], part["group"], seed=seed),
            "sensitivity": macro_mean(edited["sensitivity"], photos, seed=seed),
            "specificity": macro_mean(real["score"] <= SCORE_THRESHOLD, clean, seed=seed),
            "pixel false-positive rate": macro_mean(real["predicted_area"], clean, seed=seed),
            "image false-positive rate, any pixel": macro_mean(
                real["predicted_area"] > 0, clean, seed=seed
            ),
        }
        lines += [(half, len(photos), name, *of) for name, of in measures.items()]
    return pd.DataFrame(lines, columns=["half", "n_photos", "measure", "value", "low", "high"])


def by_size(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """IoU, and the share of edits detected by each of `RULES` (with Wilson's interval), in bins of
    the edited share, of mean ``share`` and, of a window, up to ``window_to``, by half and both."""
    edits, lines = rows[rows["edited"]], []
    for half, (start, end) in product(("calibration", "validation", "both"), pairwise(EDGES)):
        part = edits[edits["area"].between(start, end, inclusive="left")]
        part = part[(part["split"] == half) | (half == "both")]
        line = {"half": half, "from": start, "to": end, "window_to": min(1, WINDOWS * end)}
        line |= {"n_images": len(part), "share": part["area"].mean()}
        line |= columns("iou", macro_mean(part["iou"], part["group"], seed=seed))
        for rule in RULES:
            ends = binomtest(int(part[rule].sum()), len(part)).proportion_ci(method="wilson")
            line |= columns(rule, (part[rule].mean(), *ends))
        lines.append(line)
    return pd.DataFrame(lines)


def sizes_at_half(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """``size`` at 50 % detection by `RULES`, as a share ``of`` image or, at most, window."""
    edits, lines = rows[rows["edited"]], []
    for rule, name in RULES.items():
        size = detection_size(edits.assign(recall=edits[rule]), "area", seed=seed)
        for of, times in (("image", 1.0), ("window", WINDOWS)):
            measured = columns("size", (times * size[0], times * size[1], times * size[2]))
            lines.append({"rule": name, "of": of, **measured})
    return pd.DataFrame(lines)


def shared_images(file: str, limit: int = 0) -> pd.DataFrame:
    """Rows of a manifest that the third party has, of its first ``limit`` photographs (0: all)."""
    path, how = ROOT / file, "make it with 'dinolizer fetch cocoglide'."
    if not path.is_file():
        raise InputError(f"There is no manifest {file}; {how}")
    manifest = read_manifest(path)
    photos = sorted(set(read_rows()["group"]) & set(manifest["group"]))
    if not photos:
        raise InputError(f"{file} has no photograph of CocoGlide; {how}")
    return manifest[manifest["group"].isin(photos[: limit or None])]


def our_rows(localizer: Localizer, manifest: pd.DataFrame) -> pd.DataFrame:
    """Our rows, ``group, edited, iou, score``, from the cache as far as they are there. The score
    is of the map at the size of the image, the third party's of that at 1016 pixels."""
    rows = rows_of([localized(METHOD, localizer)], manifest)
    edited = ~rows["kind"].isin(AUTHENTIC_KINDS)
    return rows.assign(edited=edited)[["group", "edited", "iou", "score"]]


def compared(both: pd.DataFrame) -> pd.DataFrame:
    """Rows of the third party beside ours (ending ``_ours``) in sum, a line for each of
    `TOLERANCES`; ``worst`` is the largest difference of an image."""
    lines = []
    for name, column in zip(TOLERANCES, ("score", "iou", "score"), strict=True):
        pair = both[[column, f"{column}_ours"]].dropna()
        theirs, ours = pair.mean()
        worst = (pair.iloc[:, 1] - pair.iloc[:, 0]).abs().max()
        if name == "image AUC":
            theirs, ours = (roc_auc_score(both["edited"], pair[of]) for of in pair)
            worst = np.nan
        within = abs(ours - theirs) <= TOLERANCES[name]
        lines.append((name, len(pair), theirs, ours, ours - theirs, worst, within))
    columns = ["measure", "n_images", "theirs", "ours", "difference", "worst", "within"]
    return pd.DataFrame(lines, columns=columns)
