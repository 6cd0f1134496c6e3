"""Means over images with intervals over photographs, and paired differences: one table for all.

Images made from one photograph are not independent: an interval is over photographs. Of fewer than
`MANY` it is Student's t on what each contributes, its jackknife pseudo-value (Tukey 1958), made
symmetric for their skewness (Hall, "On the removal of skewness by transformation", JRSS B 54,
1992). From `MANY` on it is a bootstrap of whole photographs, bias-corrected and accelerated (BCa,
Efron 1987). Simulated, the interval of seven holds the mean of a normal quantity 95 times in 100,
of a strongly skewed one (exponential) 93 times; the plain t interval 89, a percentile bootstrap 82.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, permutation_test, skew
from scipy.stats import t as student

from dinolizer.errors import InputError

Measured = tuple[float, float, float]
"""A number and the ends of its 95 % interval over photographs; nan where there is none."""
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A number of photographs: from how often each of them counts, ``(R, photos)``, to ``(R,)``."""
LEAST = 3
"""Of fewer photographs an interval says nothing, and is nan."""
MANY = 30
"""Photographs from which on an interval is a bootstrap's instead of Student's t."""
RESAMPLES = 2000
BATCH = 10_000_000
"""Numbers drawn at once by a bootstrap: 80 MB."""
ALL_FAMILIES = "mean of all"
PAIRING_RULE = (
    "Differences are taken on the same image, then averaged. Intervals are 95 % over photographs: "
    f"Student's t corrected for skewness or, from {MANY} photographs on, a BCa bootstrap; a "
    "difference is significant if its interval leaves out 0. Corrected intervals (Bonferroni) are "
    "so wide that all of a table hold together 95 times in 100. p is that of an exact test that "
    "flips the signs of the photographs' differences; of seven it is never below 1/64"
)


def interval(
    statistic: Statistic,
    photos: int,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Interval of a number over so many photographs, cut at the bounds that it cannot leave; nan
    for fewer than `LEAST`, or where it hangs on one photograph. The seed draws resamples."""
    if photos < LEAST:
        return np.nan, np.nan
    value, left_out = statistic(np.ones((1, photos)))[0], statistic(1 - np.eye(photos))
    ends: tuple[Any, Any] = _studentised(value, left_out, level)

    def of_numbers(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        rows = drawn.reshape(-1, drawn.shape[axis])
        counts = np.stack([np.bincount(row, minlength=photos) for row in rows])
        return statistic(counts.astype(float)).reshape(drawn.shape[:-1])

    if photos >= MANY and np.ptp(left_out) > 0:
        settings: dict[str, Any] = {"n_resamples": resamples, "rng": seed}
        settings |= {"confidence_level": level, "batch": max(1, BATCH // photos)}
        ends = bootstrap((np.arange(photos),), of_numbers, **settings).confidence_interval
    low, high = np.clip(ends, *bounds)
    return float(low), float(high)


def _studentised(value: float, left_out: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Ends of a t interval on pseudo-values, by the value and those with one photograph left out:
    a studentised mean is taken through Hall's monotone cubic, and its limits back from there."""
    photos = len(left_out)
    deviation = left_out.std() * np.sqrt(photos * (photos - 1))  # of the pseudo-values, (n - 1)
    # A pseudo-value falls where the one that is left out grows.
    third = -float(skew(left_out)) if np.ptp(left_out) > 1e-12 else 0.0
    limits = student.ppf([(1 + level) / 2, (1 - level) / 2], photos - 1) / np.sqrt(photos)
    if abs(third) > 1e-6:
        limits = (np.cbrt(1 + third * (limits - third / (6 * photos))) - 1) * 3 / third
    low, high = value - deviation * limits
    return float(low), float(high)


def sign_flip_p(statistic: Statistic, photos: int, seed: int = 0) -> float:
    """p of a mean difference by flipping the signs of the photographs' pseudo-values, two-sided:
    exact for up to 14 photographs, of `RESAMPLES` flips else; nan for fewer than `LEAST`."""
    if photos < LEAST:
        return np.nan
    value, left_out = statistic(np.ones((1, photos))), statistic(1 - np.eye(photos))
    contributed = photos * value - (photos - 1) * left_out
    settings: dict[str, Any] = {"permutation_type": "samples", "rng": seed, "vectorized": True}
    settings["n_resamples"] = 2**14 if photos <= 14 else RESAMPLES
    return float(permutation_test((contributed,), np.mean, **settings).pvalue)


def measured(statistic: Statistic, photos: int, **settings: Any) -> Measured:
    """A number with its `interval`, which takes the settings."""
    value = float(statistic(np.ones((1, photos)))[0])
    return value, *interval(statistic, photos, **settings)


def macro_statistic(
    values: ArrayLike, groups: ArrayLike, families: ArrayLike | None = None
) -> tuple[Statistic, int]:
    """Mean over the families of the mean over each one's images, and its number of photographs, of
    float ``(N,)``, one per image (nan is left out). Without families images count alike."""
    values = np.asarray(values, dtype=float)
    known = ~np.isnan(values)
    photos, photo = np.unique(np.asarray(groups)[known], return_inverse=True)
    labels = np.zeros(len(values)) if families is None else np.asarray(families)
    strata, stratum = np.unique(labels[known], return_inverse=True)
    sums, sizes = np.zeros((2, len(photos), len(strata)))
    np.add.at(sums, (photo, stratum), values[known])
    np.add.at(sizes, (photo, stratum), 1)

    def means(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = counts @ sizes
        of_strata = np.divide(counts @ sums, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        return quotient(of_strata.sum(axis=1), (drawn > 0).sum(axis=1))

    return means, len(photos)


def quotient(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers ``(R,)`` divided by others; nan where the latter are not over 0."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def macro_mean(
    values: ArrayLike, groups: ArrayLike, families: ArrayLike | None = None, **settings: Any
) -> Measured:
    """The mean of `macro_statistic` with its `interval`, by default within -1 and 1."""
    return measured(*macro_statistic(values, groups, families), **{"bounds": (-1, 1), **settings})


def ratio(
    above: ArrayLike,
    below: ArrayLike,
    groups: ArrayLike,
    families: ArrayLike | None = None,
    seed: int = 0,
) -> Measured:
    """Ratio of the means (over families, if named) of two values ``(N,)`` of the same images."""
    (one, photos), (other, _) = (macro_statistic(of, groups, families) for of in (above, below))
    return measured(lambda counts: quotient(one(counts), other(counts)), photos, seed=seed)


def columns(name: str, numbers: Measured) -> dict[str, float]:
    """A number and its interval as columns of a table."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def of_columns(line: "Mapping[Any, Any] | pd.Series[Any]", name: str) -> Measured:
    """The number and its interval that `columns` gave to a line of a table."""
    return line[name], line[f"{name}_low"], line[f"{name}_high"]


def macro_table(
    rows: pd.DataFrame,
    by: Sequence[str],
    value: str | Sequence[str],
    against: Mapping[str, object] | None = None,
    *,
    comparisons: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Average scores of images, a line for each value of the columns ``by``.

    ``rows`` have the photograph, ``group``, the columns ``by``, and those of ``value``, scores from
    0 to 1, of which nan is left out; ``family`` if the mean is to be over the families of the mean
    over each one's images; ``image`` if one has several rows in a line, which count once, with
    their mean; and ``seed`` if there are several. Each line can be compared, image by image,
    ``against`` another: values for some of ``by``, such as ``{"method": "exact"}``; in the others
    it is like the line. Corrected intervals hold for so many ``comparisons`` together (Bonferroni).

    The columns are ``by``, ``n_images``, ``n_photos``; for each value V ``V, V_low, V_high`` (see
    `interval`), with seeds ``V_sd`` (standard deviation of the mean over seeds), and with a
    comparison ``V_change`` (the line minus the other), its ``_low, _high`` and, if corrected,
    ``_low_corrected, _high_corrected`` and ``_p`` (uncorrected, see `sign_flip_p`). Raises
    InputError without any score, and where two lines that are compared are of other images."""
    names = [value] if isinstance(value, str) else list(value)
    known = rows[rows[names].notna().any(axis=1)]
    if known.empty:
        raise InputError(f"There is no row with {' or '.join(names)} to average: evaluate first.")
    absent: dict[str, Any] = {"family": "", "image": np.arange(len(known))}
    known = known.assign(**{name: of for name, of in absent.items() if name not in known})
    lines = dict(list(known.groupby(list(by), sort=False, dropna=False)))
    of_image = ["family", "group", "image"]
    images = {key: part.groupby(of_image)[names].mean() for key, part in lines.items()}

    def with_interval(name: str, scores: "pd.Series[float]", lowest: float) -> dict[str, float]:
        families, groups = (scores.index.get_level_values(level) for level in ("family", "group"))
        statistic, photos = macro_statistic(scores, groups, families)
        settings: dict[str, Any] = {"bounds": (lowest, 1), "seed": seed}
        mean = scores.groupby(level="family").mean().mean()
        line = columns(name, (mean, *interval(statistic, photos, **settings)))
        if comparisons and name.endswith("_change"):
            low, high = interval(statistic, photos, level=1 - 0.05 / comparisons, **settings)
            line |= {f"{name}_low_corrected": low, f"{name}_high_corrected": high}
            line[f"{name}_p"] = sign_flip_p(statistic, photos, seed)
        return line

    table = []
    for key, part in lines.items():
        of, kind = images[key], dict(zip(by, key, strict=True))
        line: dict[str, Any] = kind | {"n_images": len(of)}
        line["n_photos"] = of.index.get_level_values("group").nunique()
        for name in names:
            line |= with_interval(name, of[name], 0)
            if "seed" in part:
                of_seeds = part.groupby(["seed", "family"])[name].mean().groupby(level=0).mean()
                line[f"{name}_sd"] = of_seeds.std(ddof=1)
            if against is not None:
                other = images.get(tuple({**kind, **against}.values()))
                if other is None or set(other.index) != set(of.index):
                    said = f"{kind} and {dict(against)} were not evaluated on the same images"
                    raise InputError(f"{said}: evaluate both on one manifest.")
                line |= with_interval(f"{name}_change", of[name] - other[name][of.index], -1)
        table.append(line)
    return pd.DataFrame(table)


def compare(
    rows: pd.DataFrame,
    method: str,
    others: Sequence[str],
    *,
    by: Sequence[str] = ("family", "kind"),
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the AP of a method with each of the others on the same images, by sort and over all.
    A line for each other method and sort (columns ``by``, the others ``"all"`` and, over all sorts,
    `ALL_FAMILIES`) has ``method, other, family, kind, n_images, difference, low, high,
    low_corrected, high_corrected, significant, significant_corrected, p``."""
    for name in {method, *others} - set(rows["method"]):
        raise InputError(f"There is no row of the method {name!r}; evaluate it first.")
    forged = rows[rows["ap"].notna()]
    count = len(others) * (1 + len(forged[list(by)].drop_duplicates()))
    tables = []
    for other, sort in product(others, [list(by), []]):
        both = forged[forged["method"].isin([method, other])]
        against = {"method": other}
        table = macro_table(both, ["method", *sort], "ap", against, comparisons=count, seed=seed)
        lines = table[table["method"] == method]
        every = {"family": "all" if sort else ALL_FAMILIES, "kind": "all"}
        tables.append(lines.assign(other=other, **{n: every[n] for n in every if n not in sort}))
    change = pd.concat(tables, ignore_index=True).rename(columns={"ap_change": "difference"})
    change.columns = change.columns.str.removeprefix("ap_change_")
    for end in ("", "_corrected"):
        change[f"significant{end}"] = (change[f"low{end}"] > 0) | (change[f"high{end}"] < 0)
    ends = ["low", "high", "low_corrected", "high_corrected"]
    shown = ["method", "other", "family", "kind", "n_images", "difference", *ends]
    return change[[*shown, "significant", "significant_corrected", "p"]]
