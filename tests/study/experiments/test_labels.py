"""Policies on the same tokens: labels, stacked heads, and tables counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix
from small import random_head, small_backbone, small_manifest

from dinolizer.data.images import write_image
from dinolizer.data.manifest import POLICIES, read_manifest, read_pair
from dinolizer.model.head import CLASSES, card_for, probabilities
from dinolizer.model.localizer import Localizer
from dinolizer.study.experiments import labels
from dinolizer.study.experiments.labels import (
    CLASS_NAMES,
    KEPT,
    fit_policies,
    measure,
    score,
    stack,
    targets_of,
)
from dinolizer.study.samples import Dataset, window_sample
from dinolizer.training.heads import fit_heads

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


@pytest.mark.parametrize("policy", POLICIES)
def test_targets_of_the_shares_are_those_read_for_the_policy(dataset: Dataset, policy: str) -> None:
    shares = window_sample(dataset, small_backbone(), "three-class")[1].targets
    expected = window_sample(dataset, small_backbone(), policy)[1].targets
    torch.testing.assert_close(targets_of(shares, policy), expected)


def test_seeds_draw_their_images_and_no_head_meets_its_photograph(dataset: Dataset) -> None:
    backbone = small_backbone()
    policies = fit_policies(dataset, backbone, range(2), epochs=2)
    assert list(policies) == list(POLICIES)
    tokens, sample = window_sample(dataset, backbone, "three-class")
    kept = np.random.default_rng(1).random(len(dataset.test)) < KEPT
    train = sample.rows["group"].ne("b").to_numpy() & np.repeat(kept, 4)
    for policy in POLICIES:
        found = policies[policy][1]["b"]
        assert found.out_channels == CLASSES[policy]
        targets = targets_of(sample.targets, policy)
        (alone,) = fit_heads(tokens, targets, torch.from_numpy(train)[None], epochs=2)
        # 36 windows are one batch, so that it has met the same ones as beside the others.
        torch.testing.assert_close(found.weight, alone.head.weight, atol=1e-3, rtol=1e-3)
    first, second = (of_group["b"].weight for of_group in policies["pristine"])
    assert not torch.equal(first, second)


def test_with_a_training_set_every_policy_and_seed_is_trained_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    training, test = (
        read_manifest(small_manifest(tmp_path / splits[0], 12, splits))
        for splits in (("train", "valid"), ("test",))
    )
    dataset = Dataset(test.assign(family="x", seen=True), training)
    backbone = small_backbone()
    policies = fit_policies(dataset, backbone, [0, 1], epochs=1)
    for policy, some in policies.items():
        assert [head.out_channels for of in some for head in of.values()] == [CLASSES[policy]] * 24
        assert not torch.equal(some[0]["0"].weight, some[1]["0"].weight)
    rows, *_ = measure(dataset, backbone, policies)
    assert len(rows) == len(test) * 3 * 2 * 2
    assert rows.loc[rows["kind"] == "fr", "predicted re-encoded"].between(0, 1).all()


def test_a_stacked_head_gives_all_logits_and_a_one() -> None:
    heads = [random_head(5), random_head(5, 3)]
    tokens = torch.randn(2, 5, 4, 4)
    found = stack(heads)(tokens)
    expected = torch.cat([head(tokens) for head in heads] + [torch.ones(2, 1, 4, 4)], dim=1)
    torch.testing.assert_close(found, expected)


def test_maps_and_scores_are_those_of_the_localizer(dataset: Dataset) -> None:
    backbone = small_backbone()
    policies = fit_policies(dataset, backbone, [0], epochs=3)
    table, pixels, said = measure(dataset, backbone, policies)
    row = dataset.test.iloc[4].to_dict()  # of photograph b, re-generated
    image, mask = read_pair(row)
    rows = table[table["image"] == row["image"]].set_index(["method", "reduce"])
    for policy in POLICIES:
        card = card_for(backbone, "")
        head = policies[policy][0]["b"]
        for reduce in ("sum", "mean"):
            own = Localizer(backbone, head, replace(card, reduce=reduce))(image)
            line = rows.loc[(policy, reduce)]
            marked = own.probability > 0.5
            assert line["predicted inpainted"] == pytest.approx(marked[mask].mean(), abs=0.01)
            assert line["predicted re-encoded"] == pytest.approx(marked[~mask].mean(), abs=0.01)
            iou = (marked & mask).sum() / (marked | mask).sum()
            assert line["iou"] == pytest.approx(iou, abs=0.01)
    assert (rows.loc[[("pristine", "mean"), ("fake", "mean")], "changed"] == 0).all()
    assert said["fake", "mean"].shape == (1, len(pixels))


def test_sum_and_mean_of_one_output_mark_the_same_of_three_they_may_not() -> None:
    one = torch.randn(4, 1, 8, 8)
    assert torch.equal(probabilities(4 * one) > 0.5, probabilities(one) > 0.5)
    three = torch.tensor([0.0, 0.0, 0.5])[:, None, None]  # e^0.5 / (2 + e^0.5) = 0.45; of 2: 0.79
    assert probabilities(three)[2] < 0.5 < probabilities(4 * three)[2]


def test_scores_of_an_image_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (9, 7), generator=generator).to(torch.uint8)
    probability = probabilities(2 * torch.randn(2, 3, 9, 7, generator=generator))
    for line, found in zip(
        score(probability, truth, probability[:, 2] > 0.3), probability, strict=True
    ):
        called = found.argmax(0)
        expected = confusion_matrix(truth.ravel(), called.ravel(), normalize="true")
        shares = [[line[f"{true} as {name}"] for name in CLASS_NAMES] for true in CLASS_NAMES]
        np.testing.assert_allclose(shares, expected, rtol=1e-6)
        marked, edited = found[2] > 0.5, truth == 2
        assert line["iou"] == pytest.approx(
            float((marked & edited).sum() / (marked | edited).sum())
        )
        assert line["changed"] == pytest.approx(float((marked != (found[2] > 0.3)).float().mean()))
    nothing = score(probability, torch.zeros_like(truth), probability[:, 2] > 0.5)[0]
    assert np.isnan([nothing["iou"], nothing["predicted inpainted"]]).all()
    assert nothing["changed"] == 0


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two photographs and two seeds, of one policy; by hand."""
    lines = []
    for group, ious, background in (("a", (0.2, 0.4), 0.5), ("b", (0.6, 0.8), 0.7)):
        for seed, iou in enumerate(ious):
            about = {"method": "three-class", "seed": seed, "reduce": "sum", "group": group}
            about |= {"family": "x", "seen": True, "changed": 0.0}
            spliced = {"kind": "sp", "image": f"{group}-sp", "iou": iou, "predicted real": 0.1}
            whole = {"kind": "fr", "image": f"{group}-fr", "iou": iou / 2}
            whole |= {"predicted re-encoded": background, "re-encoded as re-encoded": 0.75}
            whole |= {"re-encoded as real": 0.25, "re-encoded as inpainted": 0.0}
            lines += [about | spliced, about | whole]
    return pd.DataFrame(lines).assign(**{"predicted inpainted": 1.0, "real as real": np.nan})


def test_tables_by_hand(rows: pd.DataFrame) -> None:
    marked = labels.class_shares(rows, ["method", "kind", "seen"], ["pixels"]).set_index(
        ["kind", "pixels"]
    )["share"]
    assert marked["fr", "re-encoded"] == pytest.approx(0.6)
    assert ("sp", "re-encoded") not in marked.index
    rates = labels.background_rates(rows).set_index("background")
    assert rates["n_photos"].tolist() == [2, 2]
    rate = "false_positive_rate"
    assert rates[rate].to_dict() == pytest.approx({"regenerated": 0.6, "untouched": 0.1})
    assert rates.loc["regenerated", f"{rate}_change"] == pytest.approx(0.5)
    assert labels.background_rates(rows[rows["kind"] == "sp"]).empty


def test_calibration_is_of_all_seeds_and_pixels() -> None:
    rows = pd.DataFrame(
        {"method": "fake", "reduce": "sum", "family": ["x", "y"], "iou": [0.2, 0.4]}
    )
    pixels = pd.DataFrame({"group": ["a", "b"], "edited": [True, False]})
    said = {("fake", "sum"): np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)}
    line = labels.calibration(rows.assign(changed=0.0), pixels, said).iloc[0]
    assert line["iou"] == pytest.approx(0.3)
    assert line["brier"] == 0.5  # the first seed is always right, the second never
    # Said 1 of one that happened and one that did not: observed 0.5, and so of those said 0.
    assert line["ece"] == 0.5
