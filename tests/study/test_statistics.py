"""Intervals, tables and paired differences by hand and against scipy's bootstrap."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from dinolizer.errors import InputError
from dinolizer.study.statistics import (
    ALL_FAMILIES,
    bca_interval,
    bootstrap_draws,
    bootstrap_interval,
    compare,
    macro_table,
    percentile_interval,
)


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


def test_the_interval_of_a_difference_is_scipys() -> None:
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
    assert line["low_corrected"] < line["low"] and line["high"] < line["high_corrected"]
    assert line["significant"] and line["significant_corrected"]


def test_a_difference_that_changes_sign_is_not_significant() -> None:
    rows = rows_of({"ours": [0.5, 0.1, 0.4], "theirs": [0.1, 0.5, 0.4]})
    line = compare(rows, "ours", ["theirs"]).iloc[0]
    assert line["difference"] == pytest.approx(0, abs=1e-12)
    assert not line["significant"] and not line["significant_corrected"]


def test_families_count_equally_and_seeds_are_averaged() -> None:
    families = ["x", "x", "x", "y"]
    rows = rows_of({"ours": [0.2, 0.2, 0.2, 0.8], "theirs": [0.1, 0.1, 0.1, 0.1]}, families)
    again = rows.assign(iou=rows["iou"] + np.where(rows["method"] == "ours", 0.2, 0))
    table = compare(pd.concat([rows, again]), "ours", ["theirs"]).set_index("family")
    assert table["n_images"].to_dict() == {"x": 3, "y": 1, ALL_FAMILIES: 4}
    assert table.loc["x", "difference"] == pytest.approx(0.2)
    assert table.loc[ALL_FAMILIES, "difference"] == pytest.approx((0.2 + 0.8) / 2)
    assert np.isnan(table.loc["y", "low"])  # one photograph tells nothing of others
    assert not table.loc["y", "significant"]


def test_methods_that_met_other_images_are_not_compared() -> None:
    rows = rows_of({"ours": [0.2, 0.3], "theirs": [0.1]})
    with pytest.raises(InputError, match="not evaluated on the same images"):
        compare(rows, "ours", ["theirs"])
    with pytest.raises(InputError, match="no row of the method 'absent'"):
        compare(rows, "ours", ["absent"])


def test_a_table_by_hand() -> None:
    # Two seeds of one photograph each of family x (two images) and y (one).
    rows = pd.DataFrame(
        [
            ("linear", 0, "x", "a", "1", 0.2),
            ("linear", 0, "x", "b", "2", 0.4),
            ("linear", 0, "y", "b", "3", 0.9),
            ("linear", 1, "x", "a", "1", 0.4),
            ("linear", 1, "x", "b", "2", 0.6),
            ("linear", 1, "y", "b", "3", 0.5),
            ("deep", 0, "x", "a", "1", 0.5),
            ("deep", 0, "x", "b", "2", 0.5),
            ("deep", 0, "y", "b", "3", 0.8),
            ("deep", 0, "none", "a", "4", float("nan")),
        ],
        columns=["head", "seed", "family", "group", "image", "iou"],
    )
    table = macro_table(rows, ["head"], "iou", {"head": "linear"}, comparisons=1)
    linear, deep = table.to_dict("records")
    assert (linear["n_images"], linear["n_photos"], deep["n_images"]) == (3, 2, 3)
    # Images over seeds 0.3, 0.5 and 0.7: families 0.4 and 0.7.
    assert linear["iou"] == pytest.approx((0.4 + 0.7) / 2)
    # Seed 0: (0.3 + 0.9) / 2; seed 1: (0.5 + 0.5) / 2.
    assert linear["iou_sd"] == pytest.approx(np.std([0.6, 0.5], ddof=1))
    # Image by image 0.2, 0 and 0.1; of the draws a alone gives 0.2, b alone (0 + 0.1) / 2.
    assert deep["iou_change"] == pytest.approx((0.1 + 0.1) / 2)
    assert (deep["iou_change_low"], deep["iou_change_high"]) == pytest.approx((0.05, 0.2))
    assert deep["iou_change_low_corrected"] == deep["iou_change_low"]  # of one comparison
    assert linear["iou_change"] == 0
    # Without families images count alike.
    plain = macro_table(rows.drop(columns="family"), ["head"], "iou")
    assert plain["iou"].tolist() == pytest.approx([(0.3 + 0.5 + 0.7) / 3, (0.5 + 0.5 + 0.8) / 3])
    with pytest.raises(InputError, match="no row with iou"):
        macro_table(rows[rows["iou"].isna()], ["head"], "iou")
    with pytest.raises(InputError, match="not evaluated on the same images"):
        macro_table(rows.iloc[1:3], ["head", "image"], "iou", {"image": "2"})


def test_lines_are_compared_with_those_of_their_kind() -> None:
    rows = rows_of({"a": [0.1, 0.2], "b": [0.5, 0.7]})
    rows["kind"] = np.where(rows["image"] == "0", "sp", "fr")
    table = macro_table(rows, ["method", "kind"], "iou", {"method": "a"})
    assert table["iou_change"].tolist() == pytest.approx([0, 0, 0.4, 0.5])


def test_with_an_image_per_photo_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).gamma(2, size=40)
    found = bootstrap_interval(values, np.arange(40), resamples=20_000)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    # Two independent draws: the ends wander by about 1 % of the interval's width.
    width = np.ptp(expected.confidence_interval)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.04 * width)


def test_the_draws_are_photos_and_weigh_by_their_images() -> None:
    # Photo a has three images of value 0, photo b one of value 1. Of two draws, aa (1/4) gives 0,
    # ab (1/2) gives 1/4, bb (1/4) gives 1: the middle half of the resamples is at 1/4.
    values, groups = [0, 0, 0, 1], ["a", "a", "a", "b"]
    assert bootstrap_interval(values, groups, level=0.4) == (0.25, 0.25)
    assert bootstrap_interval(values, groups, level=0.6) == (0, 1)


def test_copies_of_an_image_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).random(12)
    once = bootstrap_interval(values, np.arange(12))
    copied = bootstrap_interval(np.repeat(values, 9), np.repeat(np.arange(12), 9))
    assert copied == pytest.approx(once)


def test_strata_count_equally_whatever_their_size() -> None:
    # Both photos have nine images of family x with value 0 and one of family y with value 1:
    # every resample's mean over families is 1/2, its mean over images 1/10.
    values = np.tile([0.0] * 9 + [1.0], 2)
    groups, families = np.repeat(["a", "b"], 10), np.tile(["x"] * 9 + ["y"], 2)
    assert bootstrap_interval(values, groups, strata=families) == (0.5, 0.5)
    assert bootstrap_interval(values, groups) == pytest.approx((0.1, 0.1))


def test_a_stratum_that_a_draw_misses_is_left_out() -> None:
    # Family y comes from photo b alone: aa gives 0, ab gives (0 + 1) / 2, bb gives (0 + 1) / 2.
    found = bootstrap_interval([0, 0, 1], ["a", "b", "b"], strata=["x", "x", "y"])
    assert found == (0, 0.5)


def test_unknown_values_are_left_out_of_the_interval() -> None:
    values, groups = np.random.default_rng(3).random(10), np.arange(10)
    with_unknown = np.append(values, [np.nan, np.nan])
    found = bootstrap_interval(with_unknown, np.append(groups, [3, 11]))
    assert found == bootstrap_interval(values, groups)


def test_the_interval_is_seeded() -> None:
    values, groups = np.random.default_rng(4).random(9), np.arange(9)
    assert bootstrap_interval(values, groups, seed=1) == bootstrap_interval(values, groups, seed=1)
    assert bootstrap_interval(values, groups, seed=1) != bootstrap_interval(values, groups, seed=2)


def test_one_photo_tells_nothing_of_others() -> None:
    assert np.isnan(bootstrap_interval([0.1, 0.9], ["a", "a"])).all()


def test_bca_intervals_are_those_of_scipy_and_follow_skew() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    low, high = bca_interval(lambda photos: float(values[photos].mean()), 40, seed=3)
    expected = bootstrap((values,), np.mean, n_resamples=2000, method="BCa", rng=3)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval))
    assert high - values.mean() > values.mean() - low  # the long tail is on the right


# How often an interval holds the mean of a skewed distribution: the exponential one, of mean 1.
# Of so many samples a share of 0.95 has a standard error of 0.5 % (2000), or 1.3 % (300).


@pytest.mark.parametrize(("photos", "least", "most"), [(7, 0.80, 0.85), (200, 0.93, 0.97)])
def test_percentile_intervals_hold_over_many_photographs_and_are_narrow_over_seven(
    photos: int, least: float, most: float
) -> None:
    samples = np.random.default_rng(0).exponential(size=(2000, photos))
    (draws,) = bootstrap_draws(photos, seed=1, resamples=2000)
    intervals = [percentile_interval(means) for means in samples @ draws.T / photos]
    assert least <= np.mean([low <= 1 <= high for low, high in intervals]) <= most
    # The intervals of tables are those, drawn anew for each sample.
    assert bootstrap_interval(samples[0], np.arange(photos), seed=1) == pytest.approx(intervals[0])


def test_bca_intervals_hold_over_200_photographs() -> None:
    samples = np.random.default_rng(0).exponential(size=(300, 200))
    intervals = [
        bca_interval(lambda photos, axis, of=sample: of[photos].mean(axis=axis), 200, seed=seed)
        for seed, sample in enumerate(samples)
    ]
    assert 0.93 <= np.mean([low <= 1 <= high for low, high in intervals]) <= 0.97
