"""Intervals, tables and paired differences by hand and against scipy's tests and bootstrap."""

import numpy as np
import pandas as pd
import pytest
from intervals import halls
from scipy.stats import bootstrap, ttest_rel

from dinolizer.errors import InputError
from dinolizer.study.statistics import (
    ALL_FAMILIES,
    columns,
    compare,
    interval,
    macro_mean,
    macro_statistic,
    macro_table,
    of_columns,
    ratio,
    sign_flip_p,
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
                    "ap": values,
                }
            )
        )
    return pd.concat(frames)


def test_the_interval_of_differences_that_are_not_skewed_is_scipys() -> None:
    theirs = np.array([0.5, 0.2, 0.4, 0.1, 0.3])
    ours = theirs + 0.1 + np.array([-0.06, -0.02, 0, 0.02, 0.06])
    line = compare(rows_of({"ours": list(ours), "theirs": list(theirs)}), "ours", ["theirs"])
    expected = ttest_rel(ours, theirs).confidence_interval()
    assert line[["low", "high"]].iloc[0].tolist() == pytest.approx(list(expected))


def test_the_interval_of_a_difference_follows_its_skew() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(12)  # what makes a photograph hard for both
    ours, theirs = hard * 0.8 + 0.1 + 0.05 * rng.random(12), hard * 0.8
    table = compare(rows_of({"ours": list(ours), "theirs": list(theirs)}), "ours", ["theirs"])
    line = table.iloc[0]
    assert line["difference"] == pytest.approx((ours - theirs).mean())
    assert (line["low"], line["high"]) == pytest.approx(halls(ours - theirs))
    wide = halls(ours - theirs, 1 - 0.05 / 2)  # of two comparisons: one sort, and all
    assert (line["low_corrected"], line["high_corrected"]) == pytest.approx(wide)
    assert line["p"] == pytest.approx(2 / 2**12)  # all differences have one sign
    assert line["significant"] and line["significant_corrected"]


def test_a_difference_that_changes_sign_is_not_significant() -> None:
    rows = rows_of({"ours": [0.5, 0.1, 0.4], "theirs": [0.1, 0.5, 0.4]})
    line = compare(rows, "ours", ["theirs"]).iloc[0]
    assert line["difference"] == pytest.approx(0, abs=1e-12)
    assert not line["significant"] and not line["significant_corrected"]


def test_families_count_equally_and_seeds_are_averaged() -> None:
    families = ["x", "x", "x", "y"]
    rows = rows_of({"ours": [0.2, 0.2, 0.2, 0.8], "theirs": [0.1, 0.1, 0.1, 0.1]}, families)
    again = rows.assign(ap=rows["ap"] + np.where(rows["method"] == "ours", 0.2, 0))
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
    # Image by image 0.2, 0 and 0.1.
    assert deep["iou_change"] == pytest.approx((0.1 + 0.1) / 2)
    assert np.isnan([deep["iou_change_low"], deep["iou_change_p"]]).all()  # of two photographs
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


def test_with_as_many_images_each_the_interval_is_that_of_the_photographs_means() -> None:
    values = np.random.default_rng(1).normal(size=(7, 3)) / 10
    measured = macro_mean(values.ravel(), np.repeat(np.arange(7), 3))
    assert measured == pytest.approx((values.mean(), *halls(values.mean(axis=1))))


def test_photographs_weigh_by_their_images() -> None:
    """Of photographs with 1, 2 and 3 images of values 0.6, 0 and 0.2: the mean is 1.2 / 6; without
    one it is 0.6 / 5, 1.2 / 4 and 0.6 / 3. Pseudo-values are 3 * 0.2 - 2 * these."""
    values, groups = [0.6, 0.0, 0.0, 0.2, 0.2, 0.2], ["a", "b", "b", "c", "c", "c"]
    pseudo = 3 * 0.2 - 2 * np.array([0.12, 0.3, 0.2])
    expected = np.array(halls(pseudo)) - pseudo.mean() + 0.2  # around the mean itself
    assert macro_mean(values, groups) == pytest.approx((0.2, *expected))


def test_intervals_stay_within_the_bounds() -> None:
    values = [0.0, 0.0, 0.9]  # unbounded it would reach further
    assert macro_mean(values, [1, 2, 3], bounds=(0, 1)) == pytest.approx((0.3, 0, 1))
    table = macro_table(rows_of({"a": values, "b": [0.9, 0.0, 0.0]}), ["method"], "iou")
    assert table[["iou_low", "iou_high"]].to_numpy().tolist() == [[0, 1], [0, 1]]
    table = macro_table(
        rows_of({"a": values, "b": [0.9, 0.0, 0.0]}), ["method"], "iou", {"method": "a"}
    )
    assert table.loc[1, ["iou_change_low", "iou_change_high"]].tolist() == [-1, 1]


def test_copies_of_an_image_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).random(12)
    once = macro_mean(values, np.arange(12))
    assert macro_mean(np.repeat(values, 9), np.repeat(np.arange(12), 9)) == pytest.approx(once)


def test_strata_count_equally_whatever_their_size() -> None:
    # Each photo has nine images of family x with value 0 and one of family y with value 1: the
    # mean over families is 1/2, the mean over images 1/10, whichever photographs are drawn.
    values = np.tile([0.0] * 9 + [1.0], 3)
    groups, families = np.repeat(["a", "b", "c"], 10), np.tile(["x"] * 9 + ["y"], 3)
    assert macro_mean(values, groups, families) == pytest.approx((0.5, 0.5, 0.5))
    assert macro_mean(values, groups) == pytest.approx((0.1, 0.1, 0.1))


def test_a_stratum_that_a_draw_misses_is_left_out() -> None:
    # Family y comes from photo b alone: aa gives 0, ab gives (0 + 1) / 2, bb gives (0 + 1) / 2.
    statistic, photos = macro_statistic([0, 0, 1], ["a", "b", "b"], ["x", "x", "y"])
    assert photos == 2
    assert statistic(np.array([[2.0, 0], [1, 1], [0, 2]])).tolist() == [0, 0.5, 0.5]


def test_unknown_values_are_left_out() -> None:
    values = np.append(np.random.default_rng(3).random(10), [np.nan, np.nan])
    groups = np.append(np.arange(10), [3, 11])
    assert macro_mean(values, groups) == macro_mean(values[:10], groups[:10])


def test_two_photographs_tell_nothing_of_others() -> None:
    assert np.isnan(macro_mean([0.1, 0.9], ["a", "b"])[1:]).all()


def test_from_thirty_on_intervals_are_scipys_and_follow_skew() -> None:
    values = np.random.default_rng(0).exponential(size=40) / 5
    mean, low, high = macro_mean(values, np.arange(40), seed=3)
    expected = bootstrap((values,), np.mean, n_resamples=2000, method="BCa", rng=3)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval))
    assert high - mean > mean - low  # the long tail is on the right
    assert macro_mean(values, np.arange(40), seed=4)[1:] != (low, high)
    assert macro_mean([0.25] * 40, np.arange(40)) == (0.25, 0.25, 0.25)


def test_flipped_signs_by_hand() -> None:
    """Of differences 1, 2 and 4 eight sums of flipped signs are possible; the largest, 7, and its
    negative are as far from 0 as what is seen. Of -1, 2 and 4 the sum is 5: of the eight, 7, 5, -5
    and -7 are as far."""
    for values, p in (([0.1, 0.2, 0.4], 2 / 8), ([-0.1, 0.2, 0.4], 4 / 8)):
        assert sign_flip_p(*macro_statistic(values, [1, 2, 3])) == pytest.approx(p)
    many = np.random.default_rng(0).normal(1, 1, size=60)
    assert sign_flip_p(*macro_statistic(many, np.arange(60))) < 0.01


def test_a_ratio_is_of_means_over_families() -> None:
    """By hand: families of 0.3 and 0.6, of 0.6 and 0.6."""
    values = [0.2, 0.4, 0.5, 0.7], [0.4, 0.8, 0.5, 0.7], list("abab"), list("xxyy")
    assert ratio(*values)[0] == pytest.approx(0.9 / 1.2)
    assert ratio(*values[:3])[0] == pytest.approx(1.8 / 2.4)
    assert np.isnan(ratio([1, 2, 3], [0, 0, 0], ["a", "b", "c"])).all()
    assert ratio([1, 2, 3], [2, 4, 6], ["a", "b", "c"]) == pytest.approx((0.5, 0.5, 0.5))
    assert columns("x", (1, 0, 2)) == {"x": 1, "x_low": 0, "x_high": 2}


# How often an interval holds the mean of the distribution it was drawn from. Of so many samples a
# share of 0.95 has a standard error of 0.5 % (2000), or 1.3 % (300). The exponential is as skewed
# as any score here; Beta(0.8, 2) is like IoUs with many small ones, and Beta(5, 1) like AUCs.


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [
        ("normal", (), 0),
        ("beta", (0.8, 2), 0.8 / 2.8),
        ("beta", (5, 1), 5 / 6),
        ("exponential", (), 1),
    ],
)
def test_intervals_over_seven_photographs_cover_skewed_means(
    name: str, shape: tuple[float, ...], mean: float
) -> None:
    rng = np.random.default_rng(0)
    samples = getattr(rng, name)(*shape, size=(2000, 7))
    held = [
        low <= mean <= high
        for sample in samples
        for low, high in [interval(*macro_statistic(sample, np.arange(7)))]
    ]
    assert 0.93 <= np.mean(held) <= 0.97


def test_intervals_over_200_photographs_cover_a_skewed_mean() -> None:
    held = []
    for seed, sample in enumerate(np.random.default_rng(0).exponential(size=(300, 200))):
        low, high = interval(*macro_statistic(sample, np.arange(200)), seed=seed)
        held.append(low <= 1 <= high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_paired_change_of_three_photographs_has_students_interval() -> None:
    """They change by 0, -0.05 and -0.1: 4.303 standard errors of 0.05 / 3**0.5 are 0.124."""
    values = {28: [0.4, 0.6, 0.5], 56: [0.4, 0.55, 0.4]}
    rows = pd.DataFrame(
        [
            {"stride": stride, "image": group, "group": group, "iou": iou}
            for stride, ious in values.items()
            for group, iou in zip("abc", ious, strict=True)
        ]
    )
    usual, wide = macro_table(rows, ["stride"], "iou", {"stride": 28}).to_dict("records")
    assert (usual["stride"], usual["n_images"]) == (28, 3)
    assert (usual["iou_change"], usual["iou"]) == (0, 0.5)
    change = of_columns(wide, "iou_change")
    assert change == pytest.approx((-0.05, -0.05 - 0.124, -0.05 + 0.124), abs=1e-3)
