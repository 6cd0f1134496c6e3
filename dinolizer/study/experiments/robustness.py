"""Which degradations a robustness study applies, and how much they leave."""

import pandas as pd

from dinolizer.data.degradations import DEGRADATIONS, Step
from dinolizer.study.evaluation import Case, leads, mean_lead, step_columns
from dinolizer.study.metrics import chance
from dinolizer.study.statistics import Measured, ratio

CLEAN: Case = ()
SINGLE: list[Case] = [((name, at),) for name, curve in DEGRADATIONS.items() for at in curve.levels]
"""Every level of every degradation."""
FIRST: list[Step] = [("resize", 0.9), ("blur", 3), ("noise", 3), ("jpeg", 80)]
"""What is done to an image before it is compressed for sharing; mild, and a choice of ours."""
CHAIN_QUALITIES = (60, 90)
CHAINS: list[Case] = [(first, ("jpeg", quality)) for first in FIRST for quality in CHAIN_QUALITIES]
CASES: list[Case] = [CLEAN, *SINGLE, *CHAINS]
CLAIMED: dict[str, Case] = {
    "resize": (("resize", 0.75),),
    "noise": (("noise", 7),),
    "jpeg": (("jpeg", 80),),
    "double-jpeg": (("jpeg", 80), ("jpeg", 90)),
}
"""Where the paper's claims of robustness are decided: moderate levels, a choice of ours."""
KEPT = 0.8  # share that must be left there for a claim to be supported, a choice of ours


def label(case: Case) -> str:
    """A case in words."""
    return ", then ".join(f"{name} {level:g}" for name, level in case)


def rows_of(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Those of the rows or lines of a table that are of one case."""
    wanted = pd.DataFrame([step_columns(case)]).astype({"level": float})
    return rows.reset_index().merge(wanted).set_index("index")


def share_kept(rows: pd.DataFrame, case: Case, seed: int = 0) -> Measured:
    """Share of what the average precision is above chance that is left after a case:
    the ratio of both means over families of the same images, of one method."""
    gains = rows.assign(gain=rows["ap"] - chance(rows))
    clean = rows_of(gains, CLEAN)[["image", "gain"]]
    both = rows_of(gains, case).merge(clean, on="image", suffixes=("", "_clean"))
    return ratio(both["gain"], both["gain_clean"], both["group"], both["family"], seed)


def lead_gained(rows: pd.DataFrame, method: str, seed: int = 0) -> Measured:
    """By how much a method's lead over the next best, see `leads`, grows in average precision: the
    mean over the single degradations that all have, minus that before; who has none is left out."""
    clean = rows["degradation"] == "none"
    single = rows[~clean & (rows["before"] == "none")]
    having = single.groupby(["degradation", "level"])["method"].transform("nunique")
    single = single[having == single["method"].nunique()]
    rows = rows[clean & rows["method"].isin(single["method"])]
    key = ["family", "group", "image"]
    before, after = (leads(of, method, score="ap").set_index(key) for of in (rows, single))
    return mean_lead((after - before).dropna().reset_index(), seed)
