"""Which degradations a robustness study applies, and how much of the IoU they leave.

A case is a sequence of steps, applied in that order; without any, the image as it was.
"""

import numpy as np
import pandas as pd

from dinolizer.data.degradations import DEGRADATIONS, Step
from dinolizer.study.evaluation import Case, score_table, step_columns
from dinolizer.study.experiments.comparisons import leads, mean_lead
from dinolizer.study.statistics import Measured, ratio

CLEAN: Case = ()
SINGLE: list[Case] = [((name, at),) for name, curve in DEGRADATIONS.items() for at in curve.levels]
"""Every level of every degradation."""
FIRST: list[Step] = [("resize", 0.9), ("blur", 3), ("noise", 3), ("jpeg", 80)]
"""What is done to an image before it is compressed for sharing; mild, and a choice of ours."""
CHAIN_QUALITIES = (60, 90)
CHAINS: list[Case] = [(first, ("jpeg", quality)) for first in FIRST for quality in CHAIN_QUALITIES]
CASES: list[Case] = [CLEAN, *SINGLE, *CHAINS]
QUALITIES = (50, 60, 70, 80, 90)
"""Of the double compressions; on the JPEG grid of IMDL-BenCo (Ma et al., NeurIPS 2024)."""
QUALITY_GRID: list[Case] = [(("jpeg", a), ("jpeg", b)) for a in QUALITIES for b in QUALITIES]
CLAIMED: dict[str, Case] = {
    "resize": (("resize", 0.75),),
    "noise": (("noise", 7),),
    "jpeg": (("jpeg", 80),),
    "double-jpeg": (("jpeg", 80), ("jpeg", 90)),
}
"""Where the paper's claims of robustness are decided: moderate levels, a choice of ours."""
KEPT = 0.8  # share of the IoU that must be left there for a claim to be supported, a choice of ours
UNDEGRADED = {"jpeg": np.inf, "webp": np.inf, "noise": 0, "blur": 1, "resize": 1, "rescale": 1}
"""Where the images as they were stand among the levels."""


def label(case: Case) -> str:
    """A case in words."""
    return ", then ".join(f"{name} {level:g}" for name, level in case)


def largest_of_each_photo(images: pd.DataFrame) -> pd.DataFrame:
    """Of each photograph of a manifest the image with the largest edited share."""
    return images.loc[images.groupby("group", sort=False)["area"].idxmax()].reset_index(drop=True)


def rows_of(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Those of the rows or lines of a table that are of one case."""
    wanted = pd.DataFrame([step_columns(case)]).astype({"level": float})
    return rows.reset_index().merge(wanted).set_index("index")


def single_curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lines of a robustness table by single degradation, named by its label; levels are text, in
    ascending order, the images as they were the level ``none``."""
    single = table[table["before"] == "none"]
    return {
        curve.label: _levels(single[single["degradation"].isin([name, "none"])], name, "none")
        for name, curve in DEGRADATIONS.items()
        if (single["degradation"] == name).any()
    }


def chain_curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lines of a robustness table by the step before JPEG, as `single_curves`: the first step alone
    is the level ``no JPEG``; JPEG alone is one more method."""
    alone, method = table["before"] == "none", table["method"].iloc[0]
    steps = table["degradation"] + table["level"].map(" {:g}".format)
    jpeg = table[alone & (table["method"] == method) & table["degradation"].isin(["jpeg", "none"])]
    curves = {}
    for first, chain in table[~alone].groupby("before", sort=False):
        end = table[alone & (steps == first)].assign(level=np.nan)
        same = jpeg[jpeg["level"].isna() | jpeg["level"].isin(chain["level"])]
        lines = pd.concat([chain, end, same.assign(method=f"{method}, JPEG alone")])
        curves[f"JPEG quality after {first}"] = _levels(lines, "jpeg", "no JPEG")
    return curves


def _levels(lines: pd.DataFrame, name: str, undegraded: str) -> pd.DataFrame:
    at = lines["level"].fillna(UNDEGRADED[name])
    lines = lines.assign(at=at).sort_values("at", kind="stable")
    level = lines["level"].map("{:g}".format, na_action="ignore")
    return lines.assign(level=level.fillna(undegraded))


def share_kept(rows: pd.DataFrame, case: Case, seed: int = 0) -> Measured:
    """Share of the IoU that is left after a case: the ratio of both means over families of the same
    images, of one method; nan where nothing was detected before."""
    clean = rows_of(rows, CLEAN)[["image", "iou"]]
    both = rows_of(rows, case).merge(clean, on="image", suffixes=("", "_clean"))
    return ratio(both["iou"], both["iou_clean"], both["group"], both["family"], seed)


def lead_gained(rows: pd.DataFrame, method: str, seed: int = 0) -> Measured:
    """By how much a method's lead over the next best, see `leads`, grows in IoU: the mean over all
    single degradations, less that on the images as they were."""
    clean = rows["degradation"] == "none"
    single = rows[~clean & (rows["before"] == "none")]
    of_image = ["family", "group", "image"]
    before, after = (leads(of, method).set_index(of_image) for of in (rows[clean], single))
    return mean_lead((after - before).dropna().reset_index(), seed)


def quality_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Table of double compressions, of the rows of one method: ``first`` quality (text; ``"none"``
    for a single one), ``second, n_images, iou`` and its ends."""
    first = rows["before"].str.removeprefix("jpeg ")
    chosen = (rows["degradation"] == "jpeg") & rows["level"].isin(QUALITIES)
    chosen &= first.isin(["none", *map(str, QUALITIES)])
    named = rows.assign(first=first, second=rows["level"])[chosen]
    table = score_table(named, ["first", "second"], seed).astype({"second": int})
    return table[["first", "second", "n_images", "iou", "iou_low", "iou_high"]]
