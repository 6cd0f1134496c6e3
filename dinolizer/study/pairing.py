"""Which differences hold: methods on the same images, by a paired bootstrap over photographs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.errors import InputError
from dinolizer.study.evaluation import ALL_FAMILIES
from dinolizer.study.metrics import bootstrap_means, percentile_interval

RESAMPLES = 10_000
"""So many that the tails of the wide intervals, too, are made of some resamples."""
COLUMNS = (
    *("method", "other", "family", "kind", "n_images", "difference", "low", "high"),
    *("low_all", "high_all", "holds", "holds_all"),
)
PAIRING_RULE = (
    "mean over images of the difference on the same image; 95 % bootstrap intervals over "
    "photographs; it holds where 0 lies outside; low_all and high_all are wider (Bonferroni), so "
    "that all intervals of the table cover together with 95 %"
)


def compare(
    rows: pd.DataFrame,
    method: str,
    others: Sequence[str],
    *,
    score: str = "iou",
    by: Sequence[str] = ("family", "kind"),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare a method with each of the others, on every sort of edited images and on all.

    Both methods are met on the same images, so the differences on single images are resampled:
    what makes a photograph hard for both does not widen the interval. Intervals of a bootstrap
    over a handful of photographs are rather narrow.

    Parameters
    ----------
    rows : of `dinolizer.study.evaluation.evaluate`; authentic images are left out.
    method, others : names in the column ``method``.
    score : the column that is compared.
    by : columns that tell the sorts apart, ``family`` or ``kind`` or both. Over all of them the
        mean is over the families of the mean over each one's images, as in the benchmark.
    seed, resamples : of the bootstrap.

    Returns
    -------
    A line for each other method and sort, the columns `COLUMNS`; where a column of the sort is not
    named it is ``"all"``. Intervals are nan for fewer than two photographs, and then nothing holds.

    Raises
    ------
    InputError
        If a method has no row, or another image than the others have.
    """
    forged = rows[~rows["kind"].isin(AUTHENTIC_KINDS)]
    own = _by_image(forged, method, score)
    pairs = []
    for other in others:
        theirs = _by_image(forged, other, score)
        if set(own.index) != set(theirs.index):
            raise InputError(
                f"The methods {method!r} and {other!r} were not evaluated on the same images: "
                "evaluate both on one manifest."
            )
        both = own.assign(difference=own[score] - theirs[score].reindex(own.index), other=other)
        sorts = list(both.groupby(list(by), sort=False))
        pairs += [(dict(zip(by, names, strict=True)), part) for names, part in sorts]
        pairs.append(({"family": ALL_FAMILIES}, both))
    lines = []
    for names, part in pairs:
        sort = {"family": "all", "kind": "all"} | names
        lines.append(
            {"method": method, "other": part["other"].iloc[0], **sort, "n_images": len(part)}
            | _difference(part, len(pairs), seed, resamples)
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def describe(line: Mapping[Any, Any]) -> str:
    """A difference with its interval, in words: of a line with ``difference, low, high``."""
    return f"{line['difference']:+.2f} ({line['low']:+.2f} to {line['high']:+.2f})"


def _by_image(rows: pd.DataFrame, method: str, score: str) -> pd.DataFrame:
    """One row an image, named by it; where there are several (seeds), their mean."""
    own = rows[rows["method"] == method]
    if own.empty:
        raise InputError(f"There is no row of the method {method!r} to compare; evaluate it first.")
    first = own.groupby("image", sort=False)[["group", "family", "kind"]].first()
    return first.assign(**{score: own.groupby("image", sort=False)[score].mean()})


def _difference(part: pd.DataFrame, tests: int, seed: int, resamples: int) -> dict[str, object]:
    means = bootstrap_means(
        part["difference"], part["group"], strata=part["family"], seed=seed, resamples=resamples
    )
    low, high = percentile_interval(means)
    low_all, high_all = percentile_interval(means, 1 - 0.05 / tests)
    return {
        "difference": part.groupby("family")["difference"].mean().mean(),
        "low": low,
        "high": high,
        "low_all": low_all,
        "high_all": high_all,
        "holds": bool(low > 0 or high < 0),
        "holds_all": bool(low_all > 0 or high_all < 0),
    }
