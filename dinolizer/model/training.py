"""Fitting the linear head on tokens that are already there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.head import make_head
from dinolizer.model.losses import dice_sums, soft_dice


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
    tokens: Tensor, targets: Tensor, *, validation: Tensor | None = None, **settings: Any
) -> Fit:
    """Fit one head.

    Parameters
    ----------
    tokens, targets
        As in `fit_heads`.
    validation
        bool ``(N,)``: the windows that are only measured.
    **settings
        ``epochs``, ``lr``, ``weight_decay``, ``seed``, ``batch_size``, as in `fit_heads`.
    """
    measured = torch.zeros(len(tokens), dtype=torch.bool) if validation is None else validation
    return fit_heads(tokens, targets, ~measured[None], validation=measured[None], **settings)[0]


def fit_heads(
    tokens: Tensor,
    targets: Tensor,
    train: Tensor,
    *,
    validation: Tensor | None = None,
    epochs: int = 20,
    lr: float = 0.05,
    weight_decay: float = 0.01,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Fit]:
    """Fit K linear heads together with AdamW and soft Dice at patch resolution.

    They share the pass over the tokens and nothing else: each has its own windows, loss, weights
    and step sizes, so it comes out as if it had been fitted alone on the same batches.

    The target of a patch is the share of it that is edited. That the loss is taken at patch
    resolution is a choice of this project; at which the paper takes it is not known.

    Tokens are standardised per channel, which conditions the problem; mean and scale are folded
    into the weights, so that a head is the plain linear one: ``D + 1`` parameters per class.

    Parameters
    ----------
    tokens
        ``(N, D, h, w)``, float16 or float32, on any device; cast batch by batch.
    targets
        In [0, 1]: ``(N, h, w)``, or ``(N, C, h, w)`` for C classes.
    train
        bool ``(K, N)``: the windows that each head is fitted on.
    validation
        bool ``(K, N)``: the windows that are only measured for each head.
    epochs, batch_size
        Passes over the windows, and windows per step; windows in a batch that are not a head's own
        do not count for it.
    lr, weight_decay
        Of AdamW; the learning rate falls to 0 along a cosine.
    seed
        Of the order of the windows. The same seed gives the same heads.

    Raises
    ------
    InputError
        If tokens, targets and windows do not belong together, or a head has none to be fitted on.
    """
    _check(tokens, targets, train)
    targets = targets if targets.ndim == 4 else targets[:, None]
    shape = (len(train), targets.shape[1], tokens.shape[1])
    train, measured = (
        members.to(tokens.device, torch.float32)
        for members in (train, torch.zeros_like(train) if validation is None else validation)
    )
    mean, scale = _standardisation(tokens, train, batch_size)
    weight = torch.zeros(shape, device=tokens.device, requires_grad=True)
    bias = torch.zeros(shape[:2], device=tokens.device, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=weight_decay)
    windows, held = (members.any(0).nonzero().squeeze(1).cpu() for members in (train, measured))
    steps = epochs * -(-len(windows) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    order = torch.Generator().manual_seed(seed)

    def sums(chosen: Tensor, members: Tensor) -> Tensor:
        """``sum(p t)`` and ``sum(p) + sum(t)`` of every head over its own of the chosen windows."""
        folded, offset = _fold(weight, bias, mean, scale)
        logits = torch.einsum("kcd,ndhw->nkchw", folded, tokens[chosen].float())
        of_windows = dice_sums(logits + offset[..., None, None], targets[chosen, None].float())
        return torch.einsum("snkc,kn->skc", of_windows, members[:, chosen])

    losses, dices = [], []  # of every epoch, (K,)
    for _ in range(epochs):
        of_steps = []
        for chosen in windows[torch.randperm(len(windows), generator=order)].split(batch_size):
            loss = 1 - soft_dice(sums(chosen, train))  # (K,)
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            schedule.step()
            of_steps.append(loss.detach())
        losses.append(torch.stack(of_steps).mean(0))
        with torch.no_grad():
            pooled = [sums(chosen, measured) for chosen in held.split(batch_size)]
            dice = soft_dice(torch.stack(pooled).sum(0))
        dices.append(torch.where(measured.any(1), dice, torch.nan))
    folded, offset = _fold(weight.detach(), bias.detach(), mean, scale)
    return [
        Fit(_as_head(folded[number], offset[number]), _history(losses, dices, number))
        for number in range(len(train))
    ]


def _check(tokens: Tensor, targets: Tensor, train: Tensor) -> None:
    places = (len(tokens), *tokens.shape[2:])
    if tokens.ndim != 4 or not len(tokens) or (len(targets), *targets.shape[-2:]) != places:
        raise InputError(
            f"The tokens have the shape {tuple(tokens.shape)} and the targets "
            f"{tuple(targets.shape)}, but (N, D, h, w) and (N, h, w) with the same N, h, w are "
            "expected."
        )
    if train.ndim != 2 or train.shape[1] != len(tokens) or not train.any(1).all():
        raise InputError(
            f"The windows to fit on are {tuple(train.shape)}, but a row of {len(tokens)} with at "
            "least one True is expected for every head."
        )


def _standardisation(tokens: Tensor, train: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean of each channel over each head's windows, and one over its standard deviation: 0 for a
    constant one, which says nothing. Both ``(K, D)``.

    In two passes, as tokens may lie far from 0, and without a float copy of all of them.
    """
    places = tokens.shape[2] * tokens.shape[3]
    over = (2, 3)
    centre = torch.cat([batch.double().mean(over) for batch in tokens.split(batch_size)]).mean(0)
    sums, squares = [], []
    for batch in tokens.split(batch_size):
        centred = batch.double() - centre[:, None, None]
        sums.append(centred.sum(over))
        squares.append(centred.square().sum(over))
    count = train.double().sum(1, keepdim=True) * places
    mean = train.double() @ torch.cat(sums) / count
    variance = train.double() @ torch.cat(squares) / count - mean.square()
    std = variance.clamp(min=0).sqrt()
    return (centre + mean).float(), torch.where(std > 1e-6, 1 / std, 0).float()


def _fold(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(K, C, D)`` and biases ``(K, C)`` for tokens as they are:
    ``w . (x - mean) * scale + b = (w * scale) . x + b'``."""
    scaled = weight * scale[:, None]
    return scaled, bias - torch.einsum("kcd,kd->kc", scaled, mean)


def _as_head(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    head = make_head(weight.shape[1], weight.shape[0]).to(weight.device)
    head.load_state_dict({"weight": weight[..., None, None], "bias": bias})
    return head.eval().requires_grad_(False)


def _history(losses: Sequence[Tensor], dices: Sequence[Tensor], number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": range(1, len(losses) + 1),
            "loss": [loss[number].item() for loss in losses],
            "validation_dice": [dice[number].item() for dice in dices],
        }
    )
