"""The training loss of the head."""

import torch
from torch import Tensor


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss, pooled over the batch.

    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``, with p the sigmoid of the logits and
    every sum over all patches of all images of the batch, not per image: an image without an edit
    has no Dice of its own, but its false positives count here. With more than one channel p is the
    softmax, and the loss is the mean of those of the channels.

    Parameters
    ----------
    logits
        ``(N, C, h, w)``, any real number.
    target
        In [0, 1]: ``(N, h, w)`` for one channel, ``(N, C, h, w)`` for any number of them.
    smooth
        Added above and below, in patches; with 0 the loss of an all-empty batch is undefined.

    Returns
    -------
    Tensor
        A scalar in [0, 1].
    """
    return 1 - soft_dice(dice_sums(logits, target).sum(1), smooth)


def dice_sums(logits: Tensor, target: Tensor) -> Tensor:
    """The sums of soft Dice, for each image: ``sum(p t)`` and ``sum(p) + sum(t)``.

    Those of the images of a batch add up to those of the batch, whichever process has them.

    Parameters
    ----------
    logits
        ``(..., C, h, w)``.
    target
        As many axes, or one less for one channel; broadcast to the logits.

    Returns
    -------
    Tensor
        ``(2, ..., C)``.
    """
    if target.ndim == logits.ndim - 1:
        target = target.unsqueeze(-3)
    probability = logits.sigmoid() if logits.shape[-3] == 1 else logits.softmax(dim=-3)
    over = (-2, -1)
    both = (probability * target).sum(over)
    return torch.stack([both, probability.sum(over) + target.sum(over)])


def soft_dice(sums: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice of sums as `dice_sums` gives them: ``(2, ..., C) -> (...)``, the channels' mean."""
    both, total = sums
    return torch.mean((2 * both + smooth) / (total + smooth), dim=-1)
