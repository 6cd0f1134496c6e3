"""What the backbone, the layer of the tokens, the head and its loss are each worth."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dinolizer.study.samples import Sample
from dinolizer.training.heads import Heads, fit
from dinolizer.training.losses import Loss

SHAPES = {"linear": (1, 0, 0.05, 1), "3x3 convolution": (3, 0, 0.01, 4), "MLP": (1, 16, 0.01, 4)}
"""Kernel and hidden values of `Heads`; the learning rate, set before any was compared; by how much
epochs and batches are smaller than the linear head's (the number of steps is the same)."""
BATCH = 64
UNTRAINED, GENERIC, FORENSIC = "untrained", "generic", "forensic"


def pretraining(backbone: str) -> str:
    """What a backbone of `dinolizer.model.backbones.BACKBONES` was pre-trained for, by its name."""
    if backbone.startswith("untrained-"):
        return UNTRAINED
    return FORENSIC if backbone.startswith(("bfree", "pocket")) else GENERIC


def fit_shape(
    name: str,
    losses: Sequence[Loss],
    tokens: Tensor,
    sample: Sample,
    seeds: Sequence[int],
    epochs: int,
) -> tuple[Heads, list[dict[str, object]]]:
    """Fit heads of one of the `SHAPES`, axes ``loss, seed, fold``, on tokens ``(N, D, h, w)``; and
    say of each, folds apart, what it is: ``head, loss, seed``. The seeds draw the images, see
    `Sample.drawn`; the first one is also that of the fit. ``epochs`` are those of the linear head.
    """
    kernel, hidden, lr, pace = SHAPES[name]
    drawn = sample.drawn(seeds)  # (S, F, N)
    axes = {"loss": len(losses), "seed": len(seeds), "fold": drawn.shape[1]}
    heads = Heads(axes, tokens.shape[1], 1, kernel, hidden, seeds[0]).to(tokens.device)
    settings: dict[str, Any] = {"lr": lr, "seed": seeds[0]}
    settings |= {"epochs": max(1, epochs // pace), "batch_size": BATCH // pace}
    targets, train = sample.targets.to(tokens.device), drawn.expand(len(losses), *drawn.shape)
    of_heads = [loss for loss in losses for _ in range(drawn.shape[0] * drawn.shape[1])]
    fit(heads, tokens, targets, train, losses=of_heads, **settings)
    return heads, [{"head": name, "loss": loss, "seed": seed} for loss in losses for seed in seeds]
