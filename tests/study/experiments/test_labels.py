"""Policies on the same tokens: labels, maps, and tables counted by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import small_backbone, small_manifest

from dinolizer.data.images import write_image
from dinolizer.data.manifest import POLICIES, read_manifest, read_pair
from dinolizer.model.head import CLASSES, card_for, probabilities
from dinolizer.model.localizer import Localizer
from dinolizer.study.experiments import labels
from dinolizer.study.experiments.labels import relabelled
from dinolizer.study.heads import fit_drawn
from dinolizer.study.samples import Dataset, Sample, read_sample, window_sample
from dinolizer.training.heads import Heads, fit

SIDE = 84
CASES = (("sp", "real", True), ("fr", "reencoded", True), ("reencoded", "reencoded", False))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Of three photographs a spliced, a re-generated and a re-encoded image each."""
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:60, 20:70] = 255
    write_image(tmp_path / "mask.png", mask)
    rows = []
    for group in "abc":
        for kind, background, edited in CASES:
            path = tmp_path / f"{group}-{kind}.png"
            write_image(path, rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
            rows.append(
                {
                    "image": str(path),
                    "mask": str(tmp_path / "mask.png") if edited else "",
                    "authentic": not edited,
                    "kind": kind,
                    "background": background,
                    "group": group,
                    "family": "x",
                    "generator": "x",
                    "area": mask.mean() / 255 * edited,
                    "seen": True,
                    "width": SIDE,
                    "height": SIDE,
                }
            )
    return Dataset(pd.DataFrame(rows), None)


def fit_policies(
    tokens: torch.Tensor, sample: Sample, seeds: Sequence[int], epochs: int
) -> dict[str, Heads]:
    return {
        policy: fit_drawn(tokens, relabelled(sample, policy), seeds, epochs) for policy in POLICIES
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_of_the_shares_are_those_read_for_the_policy(dataset: Dataset, policy: str) -> None:
    _, sample = window_sample(dataset, small_backbone(), "three-class")
    expected = window_sample(dataset, small_backbone(), policy)[1].targets
    torch.testing.assert_close(relabelled(sample, policy).targets, expected)


def test_seeds_draw_their_images_and_no_head_meets_its_photograph(dataset: Dataset) -> None:
    tokens, sample = window_sample(dataset, small_backbone(), "three-class")
    policies = fit_policies(tokens, sample, range(2), epochs=2)
    assert list(policies) == list(POLICIES)
    drawn = sample.drawn(range(2))[1, 1]  # of seed 1, without photograph b
    assert not drawn.numpy()[sample.rows["group"] == "b"].any()
    for policy, heads in policies.items():
        found = heads.linear(seed=1, fold=1)
        assert found.out_channels == CLASSES[policy]
        alone = Heads({"head": 1}, tokens.shape[1], CLASSES[policy])
        fit(alone, tokens, relabelled(sample, policy).targets, drawn[None], epochs=2, seed=0)
        # 36 windows are one batch, so that it has met the same ones as beside the others.
        weight = alone.linear(head=0).weight
        torch.testing.assert_close(found.weight, weight, atol=1e-3, rtol=1e-3)
    first, second = (policies["pristine"].linear(seed=seed, fold=1) for seed in range(2))
    assert not torch.equal(first.weight, second.weight)


def test_maps_are_those_of_the_localizer(dataset: Dataset) -> None:
    backbone = small_backbone()
    tokens, sample = window_sample(dataset, backbone, "three-class")
    policies = fit_policies(tokens, sample, range(2), epochs=3)
    row = dataset.test.iloc[4].to_dict()  # of photograph b, re-generated
    image, _ = read_pair(row)
    for reduce in ("sum", "mean"):
        found = labels.policy_maps(backbone, policies, sample, reduce)(image, row)
        assert len(found) == 3 * 2
        card = replace(card_for(backbone, ""), reduce=reduce)
        for number, policy in enumerate(POLICIES):
            head = policies[policy].linear(seed=1, fold=1)
            expected = Localizer(backbone, head, card)(image).probability
            np.testing.assert_allclose(found[2 * number + 1], expected, atol=1e-4)


def test_with_a_training_set_every_seed_draws_its_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    training, test = (
        read_manifest(small_manifest(tmp_path / splits[0], 12, splits))
        for splits in (("train", "valid"), ("test",))
    )
    dataset = Dataset(test.assign(family="x", seen=True), training)
    backbone = small_backbone()
    tokens, sample = read_sample(dataset, backbone, policy="three-class")
    policies = fit_policies(tokens, sample, [0, 1], epochs=1)
    assert all(heads.axes == {"loss": 1, "seed": 2, "fold": 1} for heads in policies.values())
    maps = labels.policy_maps(backbone, policies, sample)
    assert all(len(maps(read_pair(row)[0], row)) == 3 * 2 for row in test.to_dict("records"))


def test_sum_and_mean_of_one_output_mark_the_same_of_three_they_may_not(dataset: Dataset) -> None:
    one = torch.randn(4, 1, 8, 8)
    assert torch.equal(probabilities(4 * one) > 0.5, probabilities(one) > 0.5)
    three = torch.tensor([0.0, 0.0, 0.5])[:, None, None]  # e^0.5 / (2 + e^0.5) = 0.45; of 2: 0.79
    assert probabilities(three)[2] < 0.5 < probabilities(4 * three)[2]
    backbone = small_backbone()
    tokens, sample = window_sample(dataset, backbone, "three-class")
    policies = fit_policies(tokens, sample, [0], epochs=3)
    both = [labels.policy_maps(backbone, policies, sample, how) for how in ("sum", "mean")]
    for row in dataset.test.to_dict("records"):
        summed, mean = (maps(read_pair(row)[0], row) for maps in both)
        for policy, *of in zip(policies, summed, mean, strict=True):
            first, second = (values > 0.5 for values in of)
            assert policy == "three-class" or np.array_equal(first, second)


def test_backgrounds_by_hand() -> None:
    """Two photographs and two seeds of one policy; a third photograph has only one background."""
    rate = "false_positive_rate"
    lines = [("a", "fr", 0.5), ("b", "fr", 0.7), ("a", "sp", 0.1), ("b", "sp", 0.1)]
    rows = pd.DataFrame([*lines, ("c", "sp", 0.9)], columns=["group", "kind", rate])
    seeds = [rows.assign(method="three-class", seed=seed) for seed in (0, 1)]
    rows = pd.concat(seeds, ignore_index=True)
    rates = labels.background_rates(rows).set_index("background")
    assert rates["n_photos"].tolist() == [2, 2]
    assert rates[rate].to_dict() == pytest.approx({"regenerated": 0.6, "untouched": 0.1})
    assert rates.loc["regenerated", f"{rate}_change"] == pytest.approx(0.5)
    assert labels.background_rates(rows[rows["kind"] == "sp"]).empty
