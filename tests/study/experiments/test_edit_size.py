"""Scores by size are hand-counted, and the fitted threshold is the one the data were drawn with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dinolizer.data.images import write_image
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.evaluation import Method
from dinolizer.study.experiments import edit_size
from dinolizer.study.samples import Sample
from dinolizer.training.heads import Heads, fit


def drawn(half: float, slope: float, seed: int, count: int = 4000) -> pd.DataFrame:
    """Edits of log-uniform shares, detected by a logistic law of the share's logarithm."""
    rng = np.random.default_rng(seed)
    share = np.exp(rng.uniform(np.log(0.005), np.log(0.6), count))
    detected = rng.random(count) < 1 / (1 + np.exp(-slope * np.log(share / half)))
    return pd.DataFrame(
        {
            "share": share,
            "recall": np.where(detected, 0.9, 0.1),
            "iou": detected * 0.5,
            "predicted_area": 0.2,
            "group": rng.integers(20, size=count).astype(str),
            "strategy": "usual",
            "seed": 0,
        }
    )


@pytest.mark.parametrize("half", [0.02, 0.15])
def test_the_threshold_is_where_half_were_drawn_to_be(half: float) -> None:
    size, low, high = edit_size.detection_size(drawn(half, 2.0, seed=1), "share")
    assert size == pytest.approx(half, rel=0.1)
    assert low < half < high and high / low < 1.6


def test_rows_of_several_seeds_weigh_alike() -> None:
    """Twice the same rows give the same size; photographs alike give no spread."""
    rows = drawn(0.05, 2.0, seed=2, count=400)
    measured = edit_size.detection_size(rows, "share")
    twice = edit_size.detection_size(pd.concat([rows, rows]), "share")
    assert measured == pytest.approx(twice, rel=1e-3)
    same = pd.concat([rows.assign(group=name) for name in "abc"])
    assert edit_size.detection_size(same, "share") == pytest.approx([measured[0]] * 3, rel=1e-3)


def test_thresholds_that_are_not_reached() -> None:
    rows = drawn(0.05, 2.0, seed=3, count=200)
    shrinking = rows.assign(recall=np.where(rows["share"] < 0.05, 1.0, 0.0))
    for of, size in (
        (rows.assign(recall=0.0), 1),
        (rows.assign(recall=1.0), 0.005),
        (shrinking, 1),
    ):
        reached, *ends = edit_size.detection_size(of, "share")
        assert reached == pytest.approx(size)
        assert np.isnan(ends).all()
        assert np.isnan(edit_size.detection_size(rows, "share", of)[1:]).all()
    assert np.isnan(edit_size.detection_size(rows.assign(share=0.0), "share")).all()


def test_a_shrinking_mask_stays_at_its_place_and_gives_the_photograph_back() -> None:
    """Of a square of 6 x 6 pixels at the edge the 2 x 2 that are three pixels deep remain."""
    mask = np.zeros((10, 12), bool)
    mask[:6, 2:8] = True
    image, original = np.full((10, 12, 3), 200, np.uint8), np.zeros((10, 12, 3), np.uint8)
    edited, part = edit_size.Pair(image, original, mask, {}).at(0.04, window=10)
    assert np.argwhere(part).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    np.testing.assert_array_equal(edited[..., 0], 200 * part)
    larger = edit_size.Pair(image, original, mask, {}).at(0.16, window=10)[1]
    assert larger.sum() == 16 and larger[part].all() and mask[larger].all()


def test_forged_pairs_differ_in_the_mask_alone_and_generators_share_their_places() -> None:
    pairs = list(edit_size.forged_pairs({"cat": photo_paths()["cat"]}, window=66, seed=1))
    assert len(pairs) == 3 * edit_size.PLACES
    for pair in pairs:
        assert pair.image.shape == (64, 64, 3)
        assert pair.mask.mean() == pytest.approx(edit_size.SHARES[0], abs=0.01)
        np.testing.assert_array_equal(pair.image[~pair.mask], pair.original[~pair.mask])
    same = [pair for pair in pairs if pair.row["image"].startswith("cat-1-")]
    assert len({pair.mask.tobytes() + pair.original.tobytes() for pair in same}) == 1
    assert len({pair.image.tobytes() for pair in pairs}) == len(pairs)
    assert [pair.row["seen"] for pair in same] == [True, True, False]


def test_listed_pairs_are_of_one_photograph_and_size(tmp_path: Path) -> None:
    rows = []
    for group, kind, width in (("a", "real", 8), ("a", "sp", 8), ("b", "sp", 8), ("a", "sp", 9)):
        image, mask = (
            tmp_path / f"{group}{kind}{width}.png",
            tmp_path / f"{group}{kind}{width}m.png",
        )
        write_image(image, np.full((8, width, 3), 100 if kind == "sp" else 50, np.uint8))
        write_image(mask, np.eye(8, width, dtype=bool))
        about = {"dataset": "d", "group": group, "generator": "g", "kind": kind, "width": width}
        rows.append(about | {"height": 8, "image": str(image), "mask": str(mask)})
    (pair,) = edit_size.listed_pairs(pd.DataFrame(rows))
    assert (pair.image[0, 0, 0], pair.original[0, 0, 0], pair.mask.sum()) == (100, 50, 8)


def test_recall_while_the_mask_shrinks_by_hand() -> None:
    """A method that reads grey levels: edits are at 200, of photographs at 0 to 99 the brightest of
    one hundred columns is 99, so that 1 % of the others' pixels lies over 98 or so."""
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(100, axis=0)
    mask = np.zeros((100, 100), bool)
    mask[:, :50] = True
    image = np.where(mask[..., None], np.uint8(200), ramp)
    pairs = [
        edit_size.Pair(
            image, ramp, mask, {"image": name, "group": name, "family": "f", "seen": True}
        )
        for name in "ab"
    ]
    grey = Method("grey", lambda image, row: image[..., 0] / 255)
    rows = edit_size.shrinking_rows(grey, pairs, window=100)
    edits = edit_size.at_rates(rows)
    assert len(edits) == 2 * 2 * 2 * len(edit_size.SHARES)  # pairs, cases, rates
    by_case = edits.groupby("case")[["recall", "detected"]].mean()
    assert by_case.loc["edited"].tolist() == [1, 1] and by_case.loc["untouched"].tolist() == [0, 0]
    assert ((rows["tp"] + rows["fn"]) / 10_000)[rows["kind"] == "sp"].tolist() == pytest.approx(
        rows.loc[rows["kind"] == "sp", "share"].tolist()
    )
    assert edit_size.at_rates(edit_size.shrinking_rows(grey, [], window=100)).empty
    alone = edit_size.at_rates(edit_size.shrinking_rows(grey, pairs[:1], window=100))
    assert alone.empty  # no other photograph gives a threshold


def sample_of(targets: torch.Tensor, area: float = 0.1) -> Sample:
    count = len(targets)
    rows = pd.DataFrame(
        {
            "image": [str(number) for number in range(count)],
            "group": [str(number % 3) for number in range(count)],
            "family": "f",
            "kind": "sp",
            "area": area,
            "share": targets.mean((1, 2)).numpy(),
        }
    )
    return Sample(targets, rows, np.zeros(count, int), torch.ones(1, count, dtype=torch.bool))


def test_strategies_count_windows_as_they_say() -> None:
    targets = torch.zeros(4, 10, 10)
    targets[1, 0, :5], targets[2, :3] = 1.0, 1.0  # 5 % and 30 % edited
    extra = sample_of(targets[3:])
    weights = edit_size.training_weights(sample_of(targets[:3]), extra, torch.full((1, 1, 4), 2.0))
    assert {name: of_strategy.flatten().tolist() for name, of_strategy in weights.items()} == {
        "all windows": [2, 2, 2, 0],
        "small edits 5 times": [2, 10, 2, 0],
        "small edits only": [2, 2, 0, 0],
        "enlarged images too": [2, 2, 2, 2],
    }


def test_cuts_give_the_false_positive_rate_of_the_first_strategy() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(30, 4, 8, 8, generator=generator)
    targets = torch.zeros(30, 8, 8)
    targets[20:] = (tokens[20:, 0] > 0).float()
    sample = sample_of(targets)
    weights = {"first": torch.ones(1, 1, 30), "other": torch.ones(1, 1, 30)}
    stack = Heads({"strategy": 2, "seed": 1, "fold": 1}, 4)
    fit(stack, tokens, targets, torch.stack(list(weights.values())), epochs=1)
    stack.bias.data[1] += 0.3  # the other marks more
    cut = stack.cut_at(edit_size.matched_cuts(stack, tokens, sample, weights))
    with torch.no_grad():
        before, after = (
            (some(tokens[:20]) > 0).float().mean((0, 2, 3, 4)) for some in (stack, cut)
        )
    assert before[1] > before[0] + 0.05
    assert after[1].item() == pytest.approx(before[0].item(), abs=0.002)
    assert after[0] == before[0]
    assert edit_size.matched_cuts(stack, tokens, sample_of(targets + 0.1), weights).tolist() == [
        0,
        0,
    ]


def test_a_strategy_is_compared_edit_by_edit() -> None:
    usual = drawn(0.05, 2.0, seed=4, count=600)
    clean = usual.head(30).assign(share=0.0, iou=np.nan, recall=np.nan, predicted_area=0.3)
    usual = pd.concat([usual, clean])
    better = usual.assign(
        strategy="better", iou=usual["iou"] + 0.1, predicted_area=usual["predicted_area"] - 0.05
    )
    table = edit_size.compare_strategies(pd.concat([usual, better]), "share", "usual")
    first, second = (line for _, line in table.iterrows())
    assert (
        first["shift"] == first["small_iou_change"] == first["false_positive_rate_change_high"] == 0
    )
    for ending in ("", "_low", "_high"):
        assert second[f"large_iou_change{ending}"] == pytest.approx(0.1)
        assert second[f"false_positive_rate_change{ending}"] == pytest.approx(-0.05)
        assert second[f"shift{ending}"] == pytest.approx(0)  # the recall is the same
    large = usual.loc[usual["share"] >= 0.2, "iou"].mean()
    assert second["large_iou"] == pytest.approx(large + 0.1)
    without = pd.concat([usual, better]).query("share > 0 and share < 0.2")
    table = edit_size.compare_strategies(without, "share", "usual")
    assert table[["large_iou", "false_positive_rate"]].isna().all(axis=None)
