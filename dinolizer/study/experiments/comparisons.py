"""What several experiments compare in the same way, and how they say it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dinolizer.study.statistics import Measured, macro_mean, macro_table

RATE = "false_positive_rate"


def compare(
    rows: pd.DataFrame, by: Sequence[str], against: Mapping[str, object], seed: int = 0
) -> pd.DataFrame:
    """Table of `macro_table`: ``iou`` of every variant, and its ``false_positive_rate`` where
    nothing is edited (there all images count alike).

    A row is of an image (or crop of it), variant and ``seed``: ``image, group, family, iou,
    predicted_area`` and the columns ``by``; of the same images for all variants.
    """
    table = macro_table(rows[rows["iou"].notna()], by, "iou", against, seed=seed)
    unedited = rows[rows["iou"].isna()].drop(columns="family")
    unedited = unedited.rename(columns={"predicted_area": RATE})
    if unedited.empty:
        return table
    rates = macro_table(unedited, by, RATE, seed=seed)
    return table.merge(rates[[*by, RATE, f"{RATE}_low", f"{RATE}_high"]], "left", list(by))


def by_generators(rows: pd.DataFrame, unedited: "pd.Series[bool]") -> pd.DataFrame:
    """Rows by ``generators``, seen in training or held out; unedited ones are of both, and there
    are none of generators without an edit."""
    seen = rows["seen"].astype(bool)
    return pd.concat(
        rows[of | unedited].assign(generators=name)
        for name, of in (("seen", seen), ("held out", ~seen))
        if (of & ~unedited).any()
    )


def leads(
    rows: pd.DataFrame, first: str, second: str = "", by: str = "method", score: str = "iou"
) -> pd.DataFrame:
    """How far a score of one value of ``by`` is above that of another, for each image that has
    both: ``family, group, image, lead``. Several rows of an image count by their mean.

    Without a ``second`` it is the next best: the other with the highest mean over families.
    """
    scores = rows.pivot_table(score, ["family", "group", "image"], by)
    second = second or str(scores.groupby("family").mean().mean().drop(first).idxmax())
    return (scores[first] - scores[second]).dropna().rename("lead").reset_index()


def mean_lead(lead: pd.DataFrame, seed: int = 0) -> Measured:
    """Mean over families of `leads`."""
    return macro_mean(lead["lead"], lead["group"], lead["family"], seed=seed)


def change_text(line: "Mapping[Any, Any] | pd.Series[Any]", name: str) -> str:
    """A change in words, of a line with its interval, and whether that leaves out zero."""
    clear = line[f"{name}_low"] > 0 or line[f"{name}_high"] < 0
    return f"{line[name]:+.3f}{'' if clear else ' (not significant)'}"
