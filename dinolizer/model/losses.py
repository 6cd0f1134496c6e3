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
    probability = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    over = (0, 2, 3)
    both = (probability * target).sum(over)
    total = probability.sum(over) + target.sum(over)
    return 1 - torch.mean((2 * both + smooth) / (total + smooth))
