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
    if target.ndim == logits.ndim - 1:
        target = target[:, None]
    both, total = (sums.sum(0) for sums in overlaps(logits, target))
    return dice_from(both, total, smooth)


def overlaps(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What Dice is made of: ``sum(p t)`` and ``sum(p) + sum(t)`` over the patches of each image.

    Logits are ``(..., C, h, w)``, targets broadcast to them; both results are ``(..., C)``.
    """
    one = logits.shape[-3] == 1
    probability = logits.sigmoid() if one else logits.softmax(dim=-3)
    over = (-2, -1)
    return (probability * target).sum(over), probability.sum(over) + target.sum(over)


def dice_from(both: Tensor, total: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice loss of sums over a batch, ``(..., C) -> (...)``: the mean over the channels."""
    return 1 - torch.mean((2 * both + smooth) / (total + smooth), dim=-1)
