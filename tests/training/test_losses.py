"""Soft Dice against hand counts and an independent NumPy formula; the others against libraries."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from dinolizer.training.heads import LOSSES, Loss, dice_loss, entropy_sums, loss_of_heads

SURE = 50.0  # sigmoid(50) is 1 in float32


def test_hand_counted_dice() -> None:
    # Four patches: 2 marked, 1 edited, 1 in both; smoothed by one patch: (2 * 1 + 1) / (2 + 1 + 1).
    logits = torch.tensor([SURE, SURE, -SURE, -SURE]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 2, 2)
    assert dice_loss(logits, target).item() == pytest.approx(1 - 3 / 4)


def test_it_is_pooled_over_the_batch_not_averaged_over_images() -> None:
    # Image 1: 1 patch edited and found. Image 2: none edited, 3 marked. Pooled, smoothed by one
    # patch: (2 * 1 + 1) / (4 + 1 + 1); per image it would be the mean of 1 and 1 / 4.
    logits = torch.tensor([[SURE, -SURE, -SURE], [SURE, SURE, SURE]]).view(2, 1, 1, 3)
    target = torch.tensor([[1.0, 0, 0], [0, 0, 0]]).view(2, 1, 3)
    assert dice_loss(logits, target).item() == pytest.approx(1 - 3 / 6)


@pytest.mark.parametrize("classes", [1, 3])
def test_it_equals_the_formula_in_numpy(classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, classes, 5, 6))
    if classes == 1:
        probability = 1 / (1 + np.exp(-logits))
        target = rng.random((4, 1, 5, 6))
    else:
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        target = np.eye(3)[rng.integers(3, size=(4, 5, 6))].transpose(0, 3, 1, 2)
    dice = [
        (2 * np.vdot(probability[:, c], target[:, c]) + 1)
        / (probability[:, c].sum() + target[:, c].sum() + 1)
        for c in range(classes)
    ]
    loss = dice_loss(torch.from_numpy(logits), torch.from_numpy(target))
    assert loss.item() == pytest.approx(1 - np.mean(dice))
    if classes == 1:
        assert dice_loss(torch.from_numpy(logits), torch.from_numpy(target[:, 0])) == loss


def test_a_batch_without_edits_still_teaches_to_mark_nothing() -> None:
    logits = torch.zeros(2, 1, 3, 3, requires_grad=True)
    dice_loss(logits, torch.zeros(2, 3, 3)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_cross_entropy_and_focal_are_those_of_the_libraries() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 1, 5, 6, generator=rng)
    soft = torch.rand(4, 1, 5, 6, generator=rng)
    expected = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    torch.testing.assert_close(entropy_sums(logits, soft), expected.sum((1, 2, 3)))
    hard = soft.round()
    expected = sigmoid_focal_loss(logits, hard, alpha=-1, gamma=2)
    torch.testing.assert_close(entropy_sums(logits, hard, focus=2), expected.sum((1, 2, 3)))


@pytest.mark.parametrize("loss", LOSSES)
def test_each_head_has_the_loss_of_its_own_images(loss: Loss) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, 1, 4, 4, generator=rng)
    target = torch.rand(6, 1, 4, 4, generator=rng)
    weights = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 2, 1, 0, 1]])
    found = loss_of_heads(loss, logits, target, weights)
    repeated = torch.tensor([2, 2, 3, 5])
    for number, own in enumerate((torch.tensor([0, 1]), repeated)):
        z, t = logits[own, number], target[own]
        entropy = F.binary_cross_entropy_with_logits(z, t)
        p = z.sigmoid()
        focal = -(t * (1 - p) ** 2 * p.log() + (1 - t) * p**2 * (1 - p).log()).mean()
        parts = {"dice": dice_loss(z, t), "bce": entropy, "focal": focal}
        expected = sum(parts[name] for name in loss.split("+"))
        torch.testing.assert_close(found[number], expected)
