"""The training losses of heads: the paper's soft Dice, and those it can be compared with."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from dinolizer.errors import check_choice
from dinolizer.model.head import probabilities

Loss = Literal["dice", "bce", "focal", "dice+bce"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
FOCUS = 2.0
"""Exponent of the focal loss: the one that Lin et al. found best ("Focal Loss for Dense Object
Detection", ICCV 2017). Their class weight is left out: it shifts what 0.5 means."""


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss, ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)``, a scalar in [0, 1].

    p is the sigmoid of the logits ``(N, 1, h, w)``, or the softmax of ``(N, C, h, w)``, whose
    channels are averaged; t is in [0, 1], ``(N, C, h, w)`` or ``(N, h, w)``. Sums are over the
    whole batch: an image without an edit has no Dice of its own, but its false positives count.
    """
    return 1 - soft_dice(dice_sums(logits, target).sum(1))


def dice_sums(logits: Tensor, target: Tensor) -> Tensor:
    """Sums of soft Dice for each image, ``sum(p t)`` and ``sum(p) + sum(t)``, ``(2, ..., C)``, of
    logits ``(..., C, h, w)`` and a target broadcast to them, with an axis less if C is 1. They add
    up to those of a batch, whichever process has the images."""
    if target.ndim == logits.ndim - 1:
        target = target.unsqueeze(-3)
    probability, over = probabilities(logits), (-2, -1)
    both = (probability * target).sum(over)
    return torch.stack([both, probability.sum(over) + target.sum(over)])


def soft_dice(sums: Tensor) -> Tensor:
    """Soft Dice of sums as `dice_sums` gives them: ``(2, ..., C) -> (...)``, the channels' mean."""
    both, total = sums
    return torch.mean((2 * both + 1) / (total + 1), dim=-1)


def entropy_sums(logits: Tensor, target: Tensor, focus: float = 0.0) -> Tensor:
    """Cross-entropy of each image in nats, ``(...)``, summed over its patches, of logits and a
    target in [0, 1], ``(..., 1, h, w)``: ``-t (1 - p)^focus log p - (1 - t) p^focus log(1 - p)``.
    """
    if focus:
        surprise, relief = F.softplus(-logits), F.softplus(logits)  # -log p, -log (1 - p)
        missed = target * (-focus * relief).exp() * surprise
        each = missed + (1 - target) * (-focus * surprise).exp() * relief
    else:
        each = F.softplus(logits) - target * logits  # the same, in half the work
    return each.sum((-3, -2, -1))


def loss_of_heads(loss: Loss, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Loss of each of K heads over its own images of a batch, ``(K,)``: `dice_loss`, the mean
    cross-entropy of a patch, that with `FOCUS`, or the sum of the first two.

    Logits are ``(N, K, C, h, w)``, the target in [0, 1] ``(N, C, h, w)``; only Dice takes several
    channels. ``weights``, ``(K, N)``, say how often an image counts.
    """
    check_choice("loss", loss, LOSSES)
    target = target[:, None]
    total = torch.zeros(len(weights), device=logits.device)
    if "dice" in loss:
        sums = torch.einsum("snkc,kn->skc", dice_sums(logits, target), weights)
        total = total + 1 - soft_dice(sums)
    if loss != "dice":
        sums = entropy_sums(logits, target, FOCUS if loss == "focal" else 0.0)
        patches = weights.sum(1) * target.shape[-2] * target.shape[-1]
        total = total + torch.einsum("nk,kn->k", sums, weights) / patches.clamp(min=1)
    return total
