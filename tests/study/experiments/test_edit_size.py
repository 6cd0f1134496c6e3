"""Scores by size are hand-counted, and the fitted threshold is the one the data were drawn with."""

import numpy as np
import pandas as pd
import pytest
import torch

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


def test_bins_hold_what_lies_in_them() -> None:
    rows = pd.DataFrame(
        {
            "share": [0.004, 0.006, 0.006, 0.5, 0.5, 0.7],
            "recall": [0.0, 0.4, 0.6, 1.0, 0.0, 1.0],
            "iou": [0.0, 0.1, 0.3, 0.8, 0.0, 0.9],
            "group": list("abcabc"),
            "seed": 0,
        }
    )
    table = edit_size.by_size(rows, "share")
    assert table["n_images"].tolist() == [2, 2]
    assert table["iou"].tolist() == pytest.approx([0.2, 0.4])
    assert table["missed"].tolist() == pytest.approx([0.5, 0.5])
    edges = np.append(table["from"], table["to"])
    assert edges.min() == pytest.approx(0.005) and edges.max() == pytest.approx(0.6)


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
