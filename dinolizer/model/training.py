"""Fitting the linear head on tokens that are already there."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.head import make_head
from dinolizer.model.losses import dice_loss


@dataclass(frozen=True)
class Fit:
    """A fitted head and how the fit went.

    Attributes
    ----------
    head
        1x1 convolution from tokens as they are (not standardised) to logits.
    history
        One row per epoch: ``epoch`` (from 1), ``loss`` (mean over the batches) and
        ``validation_dice`` (pooled soft Dice of all validation patches; NaN without any).
    """

    head: nn.Conv2d
    history: pd.DataFrame


def fit_head(
    tokens: Tensor,
    targets: Tensor,
    *,
    epochs: int = 20,
    lr: float = 0.05,
    weight_decay: float = 0.01,
    seed: int = 0,
    batch_size: int = 64,
    validation: tuple[Tensor, Tensor] | None = None,
) -> Fit:
    """Fit a linear head with AdamW and soft Dice at patch resolution.

    The target of a patch is the share of it that is edited. That the loss is taken at patch
    resolution is a choice of this project; at which the paper takes it is not known.

    Tokens are standardised per channel, which conditions the problem; mean and scale are folded
    into the weights, so that the head is the plain linear one: ``D + 1`` parameters per class.

    Parameters
    ----------
    tokens
        ``(N, D, h, w)``, float16 or float32, on any device; cast batch by batch.
    targets
        In [0, 1]: ``(N, h, w)``, or ``(N, C, h, w)`` for C classes.
    epochs, batch_size
        Passes over the windows, and windows per step.
    lr, weight_decay
        Of AdamW; the learning rate falls to 0 along a cosine.
    seed
        Of the order of the windows. The same seed gives the same head.
    validation
        Tokens and targets that are only measured.

    Raises
    ------
    InputError
        If tokens and targets do not belong together.
    """
    for name, (some_tokens, some_targets) in {
        "training": (tokens, targets),
        "validation": validation or (tokens, targets),
    }.items():
        _check(name, some_tokens, some_targets)
    classes = 1 if targets.ndim == 3 else targets.shape[1]
    mean, scale = _standardisation(tokens, batch_size)
    weight = torch.zeros(classes, tokens.shape[1], device=tokens.device, requires_grad=True)
    bias = torch.zeros(classes, device=tokens.device, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=weight_decay)
    steps = epochs * -(-len(tokens) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    order = torch.Generator().manual_seed(seed)
    rows = []
    for epoch in range(1, epochs + 1):
        losses = []
        for chosen in torch.split(torch.randperm(len(tokens), generator=order), batch_size):
            folded = _fold(weight, bias, mean, scale)
            loss = dice_loss(_logits(tokens[chosen], *folded), targets[chosen].float())
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        dice = float("nan")
        if validation is not None:
            dice = _dice(*validation, *_fold(weight, bias, mean, scale), batch_size)
        rows.append((epoch, sum(losses) / len(losses), dice))
    head = make_head(tokens.shape[1], classes).to(tokens.device)
    final_weight, final_bias = _fold(weight.detach(), bias.detach(), mean, scale)
    head.load_state_dict({"weight": final_weight[..., None, None], "bias": final_bias})
    return Fit(
        head.eval().requires_grad_(False),
        pd.DataFrame(rows, columns=["epoch", "loss", "validation_dice"]),
    )


def _check(name: str, tokens: Tensor, targets: Tensor) -> None:
    places = (len(tokens), *tokens.shape[2:])
    if tokens.ndim != 4 or not len(tokens) or (len(targets), *targets.shape[-2:]) != places:
        raise InputError(
            f"The {name} tokens have the shape {tuple(tokens.shape)} and the targets "
            f"{tuple(targets.shape)}, but (N, D, h, w) and (N, h, w) with the same N, h, w are "
            "expected."
        )


def _standardisation(tokens: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean of each channel, and one over its standard deviation: 0 for a constant one, which says
    nothing. In two passes, as tokens may lie far from 0, and without a float copy of all of them.
    """
    count = tokens.numel() / tokens.shape[1]
    over = (0, 2, 3)
    batches = torch.split(tokens, batch_size)
    mean = sum(batch.float().sum(over).double() for batch in batches) / count
    assert isinstance(mean, Tensor)  # for the type checker: sum() of nothing would be 0
    centre = mean.float()[:, None, None]
    variance = sum((batch.float() - centre).square().sum(over).double() for batch in batches)
    std = torch.as_tensor(variance / count).sqrt()
    return mean.float(), torch.where(std > 1e-6, 1 / std, 0).float()


def _fold(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weights for tokens as they are: ``w . (x - mean) * scale + b = (w * scale) . x + b'``."""
    scaled = weight * scale
    return scaled, bias - scaled @ mean


def _logits(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The 1x1 convolution, ``(N, D, h, w) -> (N, C, h, w)``; faster so than as one on a CPU."""
    return torch.einsum("cd,ndhw->nchw", weight, tokens.float()) + bias[:, None, None]


@torch.no_grad()
def _dice(tokens: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, batch_size: int) -> float:
    logits = [_logits(batch, weight, bias) for batch in torch.split(tokens, batch_size)]
    return 1 - dice_loss(torch.cat(logits), targets.float()).item()
