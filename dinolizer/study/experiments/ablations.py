"""What the backbone, the layer of the tokens, the head and its loss are each worth."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from dinolizer.study.samples import Sample
from dinolizer.training.heads import Heads, fit
from dinolizer.training.losses import Loss


class Shape(NamedTuple):
    """A head's shape and how it is fitted: ``kernel`` and ``hidden`` as of `Heads`; ``lr``, ours,
    set before any was compared; ``pace``, by how much fewer epochs it gets than the linear head,
    with as much smaller batches (the number of steps is the same)."""

    kernel: int = 1
    hidden: int = 0
    lr: float = 0.05
    pace: int = 1


SHAPES = {
    "linear": Shape(),
    "3x3 convolution": Shape(kernel=3, lr=0.01, pace=4),
    "MLP": Shape(hidden=16, lr=0.01, pace=4),
}
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
    *,
    seeds: Sequence[int],
    epochs: int,
) -> tuple[Heads, list[dict[str, object]]]:
    """Fit the heads of one of the `SHAPES`, axes ``loss, seed, fold``, in one pass over tokens
    ``(N, D, h, w)``; and say of each, folds apart, what it is: ``head, loss, seed``.

    The seeds are of the images drawn, see `Sample.drawn`; the first one also of the order and,
    where there are hidden values, of the start. ``epochs`` are those of the linear head.
    """
    shape = SHAPES[name]
    drawn = sample.drawn(seeds)  # (S, F, N)
    axes = {"loss": len(losses), "seed": len(seeds), "fold": drawn.shape[1]}
    about = {"kernel": shape.kernel, "hidden": shape.hidden, "seed": seeds[0]}
    heads = Heads(axes, tokens.shape[1], **about).to(tokens.device)
    fit(
        heads,
        tokens,
        sample.targets.to(tokens.device),
        drawn.expand(len(losses), *drawn.shape),
        losses=[loss for loss in losses for _ in range(drawn.shape[0] * drawn.shape[1])],
        epochs=max(1, epochs // shape.pace),
        batch_size=BATCH // shape.pace,
        lr=shape.lr,
        seed=seeds[0],
    )
    names = [{"head": name, "loss": loss, "seed": seed} for loss in losses for seed in seeds]
    return heads.requires_grad_(False), names
