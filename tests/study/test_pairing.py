"""Paired differences by hand and against scipy's bootstrap."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from dinolizer.errors import InputError
from dinolizer.study.evaluation import ALL_FAMILIES
from dinolizer.study.pairing import compare


def rows_of(scores: dict[str, list[float]], families: list[str] | None = None) -> pd.DataFrame:
    """One image a photograph; a method each."""
    frames = []
    for method, values in scores.items():
        names = [f"{number}" for number in range(len(values))]
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "image": names,
                    "group": names,
                    "family": families or "x",
                    "kind": "sp",
                    "iou": values,
                }
            )
        )
    return pd.concat(frames)


def test_the_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(12)  # what makes a photograph hard for both
    ours, theirs = hard * 0.8 + 0.1 + 0.05 * rng.random(12), hard * 0.8
    table = compare(rows_of({"ours": list(ours), "theirs": list(theirs)}), "ours", ["theirs"])
    line = table.iloc[0]
    assert line["difference"] == pytest.approx((ours - theirs).mean())
    expected = bootstrap(
        (ours, theirs),
        lambda first, second, axis: (first - second).mean(axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (line["low"], line["high"]) == pytest.approx(tuple(expected), abs=1e-3)
    assert line["low_all"] < line["low"] and line["high"] < line["high_all"]
    assert line["holds"] and line["holds_all"]


def test_a_difference_that_changes_sign_does_not_hold() -> None:
    rows = rows_of({"ours": [0.5, 0.1, 0.4], "theirs": [0.1, 0.5, 0.4]})
    line = compare(rows, "ours", ["theirs"]).iloc[0]
    assert line["difference"] == pytest.approx(0, abs=1e-12)
    assert not line["holds"] and not line["holds_all"]


def test_families_count_equally_and_seeds_are_averaged() -> None:
    families = ["x", "x", "x", "y"]
    rows = rows_of({"ours": [0.2, 0.2, 0.2, 0.8], "theirs": [0.1, 0.1, 0.1, 0.1]}, families)
    again = rows.assign(iou=rows["iou"] + np.where(rows["method"] == "ours", 0.2, 0))
    table = compare(pd.concat([rows, again]), "ours", ["theirs"]).set_index("family")
    assert table["n_images"].to_dict() == {"x": 3, "y": 1, ALL_FAMILIES: 4}
    assert table.loc["x", "difference"] == pytest.approx(0.2)
    assert table.loc[ALL_FAMILIES, "difference"] == pytest.approx((0.2 + 0.8) / 2)
    assert np.isnan(table.loc["y", "low"])  # one photograph tells nothing of others
    assert not table.loc["y", "holds"]


def test_methods_that_met_other_images_are_not_compared() -> None:
    rows = rows_of({"ours": [0.2, 0.3], "theirs": [0.1]})
    with pytest.raises(InputError, match="not evaluated on the same images"):
        compare(rows, "ours", ["theirs"])
    with pytest.raises(InputError, match="no row of the method 'absent'"):
        compare(rows, "ours", ["absent"])
