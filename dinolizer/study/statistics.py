"""Means over images with intervals over photographs, and paired differences: one table for all.

Images made from one photograph are not independent: whole photographs are drawn with replacement (a
bootstrap over clusters, Davison & Hinkley 1997, 3.8). Over a handful of photographs such intervals
are narrow: over seven they hold the mean of a skewed quantity some 82 times in 100, and not 95. The
same photographs and seed give the same, comparable draws.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from dinolizer.errors import InputError

BLOCK = 10_000_000
"""Numbers drawn at once by a bootstrap: 80 MB."""
RESAMPLES = 10_000
"""Enough for the tails of the wide, corrected intervals to hold more than a few resamples."""
ALL_FAMILIES = "all families"
PAIRING_RULE = (
    "mean over images of the difference on the same image; 95 % bootstrap intervals over "
    "photographs; significant where 0 lies outside; corrected intervals are wider (Bonferroni), so "
    "that all intervals of the table cover together with 95 %"
)


def macro_table(
    rows: pd.DataFrame,
    by: Sequence[str],
    value: str | Sequence[str],
    against: Mapping[str, object] | None = None,
    *,
    comparisons: int = 0,
    seed: int = 0,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Average scores of images, a line for each kind of row.

    The mean is over the families of the mean over each one's images; an image with several rows in
    a line (of several seeds) counts once, with their mean. Its 95 % percentile intervals are nan
    for fewer than two photographs. Raises InputError without any score, and where a line and what
    it is compared with do not have the same images.

    The columns are ``by``, ``n_images``, ``n_photos``; for each value V ``V, V_low, V_high``, with
    seeds ``V_sd`` (standard deviation of the mean over seeds), and with a comparison ``V_change``
    (the line minus the other), ``V_change_low, V_change_high`` and, if corrected,
    ``V_change_low_corrected, V_change_high_corrected``.

    Parameters
    ----------
    rows
        A row for each image and condition: ``group`` (its photograph), ``by`` and ``value``;
        ``family`` if families count alike; ``image`` if one has several rows; ``seed`` if several.
    by
        Columns that make the lines, in the order of the rows.
    value
        One or more columns of scores; nan is left out, and so is a row that has nothing else.
    against
        What each line is compared with, image by image: values for some of ``by``, such as
        ``{"method": "exact"}``; in the others it is like the line.
    comparisons
        How many comparisons corrected intervals hold for together (Bonferroni); 0: give none.
    """
    names = [value] if isinstance(value, str) else list(value)
    known = rows[rows[names].notna().any(axis=1)]
    if known.empty:
        raise InputError(f"There is no row with {' or '.join(names)} to average: evaluate first.")
    given: dict[str, Any] = {
        "family": "",
        "image": np.arange(len(known)),
    }  # where rows have no such column
    known = known.assign(**{name: of for name, of in given.items() if name not in known})
    lines = dict(list(known.groupby(list(by), sort=False, dropna=False)))
    of_image = ["family", "group", "image"]
    images = {key: part.groupby(of_image)[names].mean() for key, part in lines.items()}

    def with_interval(name: str, scores: "pd.Series[float]") -> dict[str, float]:
        families, groups = (scores.index.get_level_values(level) for level in ("family", "group"))
        means = bootstrap_means(scores, groups, strata=families, seed=seed, resamples=resamples)
        line = {name: scores.groupby(level="family").mean().mean()}
        line |= dict(zip((f"{name}_low", f"{name}_high"), percentile_interval(means), strict=True))
        if comparisons and name.endswith("_change"):
            ends = percentile_interval(means, 1 - 0.05 / comparisons)
            corrected = (f"{name}_low_corrected", f"{name}_high_corrected")
            line |= dict(zip(corrected, ends, strict=True))
        return line

    table = []
    for key, part in lines.items():
        of, kind = images[key], dict(zip(by, key, strict=True))
        line: dict[str, Any] = kind | {"n_images": len(of)}
        line["n_photos"] = of.index.get_level_values("group").nunique()
        for name in names:
            line |= with_interval(name, of[name])
            if "seed" in part:
                of_seeds = part.groupby(["seed", "family"])[name].mean().groupby(level=0).mean()
                line[f"{name}_sd"] = of_seeds.std(ddof=1)
            if against is not None:
                other = images.get(tuple({**kind, **against}.values()))
                if other is None or set(other.index) != set(of.index):
                    raise InputError(
                        f"{kind} and {dict(against)} were not evaluated on the same images: "
                        "evaluate both on one manifest."
                    )
                line |= with_interval(f"{name}_change", of[name] - other[name].reindex(of.index))
        table.append(line)
    return pd.DataFrame(table)


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
    """Compare a method with each of the others on the same images, by sort and over all.

    ``by`` tells the sorts apart: ``family`` or ``kind`` or both. Images without the score are left
    out. A line for each other method and sort has ``method, other, family, kind, n_images``, the
    ``difference`` with ``low, high, low_corrected, high_corrected``, ``significant`` and
    ``significant_corrected``. A column that is not in ``by`` is ``"all"``; over all sorts the
    family is `ALL_FAMILIES`. Raises InputError if methods have no rows or different images.
    """
    absent = {method, *others} - set(rows["method"])
    if absent:
        raise InputError(f"There is no row of the method {absent.pop()!r}; evaluate it first.")
    forged = rows[rows[score].notna()]
    sorts = [list(by)] * bool(by) + [[]]
    count = len(others) * (1 + len(forged[list(by)].drop_duplicates()))
    tables = []
    for other in others:
        both = forged[forged["method"].isin([method, other])]
        for sort in sorts:
            table = macro_table(
                both,
                ["method", *sort],
                score,
                {"method": other},
                comparisons=count,
                seed=seed,
                resamples=resamples,
            )
            overall = {"family": "all" if sort else ALL_FAMILIES, "kind": "all"}
            absent_columns = {name: text for name, text in overall.items() if name not in sort}
            of_method = table[table["method"] == method]
            tables.append(of_method.assign(other=other, **absent_columns))
    change = pd.concat(tables, ignore_index=True)
    ends = ("low", "high", "low_corrected", "high_corrected")
    names = {f"{score}_change": "difference"} | {f"{score}_change_{end}": end for end in ends}
    change = change.rename(columns=names)
    for end in ("", "_corrected"):
        change[f"significant{end}"] = (change[f"low{end}"] > 0) | (change[f"high{end}"] < 0)
    about = ["method", "other", "family", "kind", "n_images"]
    return change[[*about, "difference", *ends, "significant", "significant_corrected"]]


def describe(line: Mapping[Any, Any]) -> str:
    """A difference with its interval, in words: of a line with ``difference, low, high``."""
    return f"{line['difference']:+.2f} ({line['low']:+.2f} to {line['high']:+.2f})"


def macro_mean(
    values: ArrayLike, families: ArrayLike, groups: ArrayLike, *, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over the families of the mean over each one's images, and its 95 % interval; values are
    float ``(N,)``, one per image (nan is left out), each with its family and photograph."""
    mean = pd.Series(np.asarray(values)).groupby(np.asarray(families)).mean().mean()
    return float(mean), *bootstrap_interval(values, groups, strata=families, seed=seed)


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a mean, see `bootstrap_means`; nan for fewer than two photographs."""
    means = bootstrap_means(values, groups, strata=strata, seed=seed, resamples=resamples)
    return percentile_interval(means, level)


def bca_interval(
    statistic: Callable[..., Any], photos: int, *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval over photographs, bias-corrected and accelerated (Efron 1987), for thirty
    photographs or more. ``statistic`` is of photographs given by their numbers, int ``(n,)``; or
    of many resamples at once, ``(..., n)``, if it takes an ``axis``."""
    drawn = bootstrap((np.arange(photos),), statistic, n_resamples=2000, rng=seed)
    low, high = drawn.confidence_interval
    return float(low), float(high)


def bootstrap_means(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> NDArray[np.float64]:
    """Means of resamples of photographs, float64 ``(resamples,)``; nan for fewer than two of these.

    Values are float ``(N,)``, one per image (nan is left out), with its photograph in ``groups``.
    With ``strata``, ``(N,)``, such as the families, it is the mean over the strata of the mean in
    each; a stratum that a draw misses is left out.
    """
    values = np.asarray(values, dtype=float)
    known = ~np.isnan(values)
    photos, photo = np.unique(np.asarray(groups)[known], return_inverse=True)
    if len(photos) < 2:
        return np.full(resamples, np.nan)
    labels = np.zeros(len(values)) if strata is None else np.asarray(strata)
    families, family = np.unique(labels[known], return_inverse=True)
    sums = np.zeros((len(photos), len(families)))
    sizes = np.zeros_like(sums)
    np.add.at(sums, (photo, family), values[known])
    np.add.at(sizes, (photo, family), 1)
    means = []
    for draws in bootstrap_draws(len(photos), seed, resamples):
        drawn = draws @ sizes  # (resamples of the block, families)
        empty = np.full(drawn.shape, np.nan)
        means.append(np.nanmean(np.divide(draws @ sums, drawn, out=empty, where=drawn > 0), axis=1))
    return np.concatenate(means)


def bootstrap_draws(photos: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each photograph is drawn in each resample, in blocks ``(resamples, photos)``."""
    rng, share = np.random.default_rng(seed), np.full(photos, 1 / photos)
    block = max(1, BLOCK // photos)
    for first in range(0, resamples, block):
        yield rng.multinomial(photos, share, size=min(block, resamples - first))


def percentile_interval(means: NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """The ends that leave out ``(1 - level) / 2`` of the resamples on each side; nan for nan."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
