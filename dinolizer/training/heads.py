"""Fitting heads on tokens that are already there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.training.losses import LOSSES, Loss, dice_sums, loss_of_heads, soft_dice
from dinolizer.training.stack import Stack


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
    **settings: Any,
) -> list[Fit]:
    """Fit K linear heads together, with AdamW and soft Dice at patch resolution.

    Parameters
    ----------
    tokens, targets, train, validation, **settings
        As in `fit_stack`.

    Raises
    ------
    InputError
        See `fit_stack`.
    """
    classes = targets.shape[1] if targets.ndim == 4 else 1
    stack = Stack(len(train), tokens.shape[1], classes).to(tokens.device)
    histories = fit_stack(stack, tokens, targets, train, validation=validation, **settings)
    return [Fit(stack.linear(number), history) for number, history in enumerate(histories)]


def fit_stack(
    stack: Stack,
    tokens: Tensor,
    targets: Tensor,
    train: Tensor,
    *,
    validation: Tensor | None = None,
    losses: Sequence[Loss] | None = None,
    epochs: int = 20,
    lr: float = 0.05,
    weight_decay: float = 0.01,
    seed: int = 0,
    batch_size: int = 64,
) -> list[pd.DataFrame]:
    """Fit a stack of K heads in place, with AdamW.

    They share the pass over the tokens and nothing else: each has its own windows, loss, weights
    and step sizes, so it comes out as if it had been fitted alone on the same batches.

    The target of a patch is the share of it that is edited. That the loss is taken at patch
    resolution is a choice of this project; at which the paper takes it is not known.

    Tokens are standardised per channel, which conditions the problem; mean and scale are folded
    into the weights, so that a linear head is the plain one: ``D + 1`` parameters per class.

    Parameters
    ----------
    stack
        On the device of the tokens.
    tokens
        ``(N, D, h, w)``, float16 or float32, on any device; cast batch by batch.
    targets
        In [0, 1]: ``(N, h, w)``, or ``(N, C, h, w)`` for C classes.
    train
        ``(K, N)``, bool: the windows that each head is fitted on; or numbers from 0: how much each
        window counts for it, 2 as if it were there twice.
    validation
        bool ``(K, N)``: the windows that are only measured for each head.
    losses
        Of each head, see `dinolizer.training.losses.loss_of_heads`; without it all take soft Dice.
    epochs, batch_size
        Passes over the windows, and windows per step; windows in a batch that are not a head's own
        do not count for it.
    lr, weight_decay
        Of AdamW; the learning rate falls to 0 along a cosine.
    seed
        Of the order of the windows. The same seed gives the same heads.

    Returns
    -------
    list of DataFrame
        The `Fit.history` of each head.

    Raises
    ------
    InputError
        If tokens, targets and windows do not belong together, a head has none to be fitted on, or
        there is no such loss.
    """
    _check(tokens, targets, train)
    targets = targets if targets.ndim == 4 else targets[:, None]
    own, measured = (
        members.to(tokens.device, torch.float32)
        for members in (train, torch.zeros_like(train) if validation is None else validation)
    )
    heads_of = _heads_of_losses(losses or ["dice"] * len(train))
    stack.mean, stack.scale = standardisation(tokens, own, batch_size)
    optimiser = torch.optim.AdamW(stack.parameters(), lr=lr, weight_decay=weight_decay)
    windows, held = (members.any(0).nonzero().squeeze(1).cpu() for members in (own, measured))
    steps = epochs * -(-len(windows) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    order = torch.Generator().manual_seed(seed)

    def ask(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all heads ``(n, K, C, h, w)`` and targets of the chosen windows."""
        return stack(tokens[chosen].float()), targets[chosen].float()

    of_epochs, dices = [], []  # of every epoch, (K,)
    for _ in range(epochs):
        of_steps = []
        for chosen in windows[torch.randperm(len(windows), generator=order)].split(batch_size):
            logits, wanted = ask(chosen)
            loss = torch.zeros(len(own), device=tokens.device)
            for name, heads in heads_of.items():
                some = logits if len(heads_of) == 1 else logits[:, heads]
                loss[heads] = loss_of_heads(name, some, wanted, own[heads][:, chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            schedule.step()
            of_steps.append(loss.detach())
        of_epochs.append(torch.stack(of_steps).mean(0))
        dices.append(torch.full_like(of_epochs[-1], torch.nan))
        if len(held):
            sums = torch.zeros(2, len(own), targets.shape[1], device=tokens.device)
            with torch.no_grad():
                for chosen in held.split(batch_size):
                    logits, wanted = ask(chosen)
                    of_windows = dice_sums(logits, wanted[:, None])
                    sums += torch.einsum("snkc,kn->skc", of_windows, measured[:, chosen])
            dices[-1] = torch.where(measured.any(1), soft_dice(sums), torch.nan)
    return [_history(of_epochs, dices, number) for number in range(len(own))]


def _heads_of_losses(losses: Sequence[Loss]) -> dict[Loss, list[int]]:
    """From each loss to the numbers of the heads that take it."""
    unknown = [loss for loss in losses if loss not in LOSSES]
    if unknown:
        raise InputError(f"The loss is {unknown[0]!r}, but it must be one of {list(LOSSES)}.")
    return {
        loss: [number for number, of_head in enumerate(losses) if of_head == loss]
        for loss in dict.fromkeys(losses)
    }


def _check(tokens: Tensor, targets: Tensor, train: Tensor) -> None:
    places = (len(tokens), *tokens.shape[2:])
    if tokens.ndim != 4 or not len(tokens) or (len(targets), *targets.shape[-2:]) != places:
        raise InputError(
            f"The tokens have the shape {tuple(tokens.shape)} and the targets "
            f"{tuple(targets.shape)}, but (N, D, h, w) and (N, h, w) with the same N, h, w are "
            "expected."
        )
    of_tokens = train.ndim == 2 and train.shape[1] == len(tokens)
    if not of_tokens or not train.any(1).all() or (train < 0).any():
        raise InputError(
            f"The windows to fit on are {tuple(train.shape)}, but a row of {len(tokens)} with at "
            "least one True, or one number over 0 and none below it, is expected for every head."
        )


def standardisation(tokens: Tensor, train: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
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


def _history(losses: Sequence[Tensor], dices: Sequence[Tensor], number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": range(1, len(losses) + 1),
            "loss": [loss[number].item() for loss in losses],
            "validation_dice": [dice[number].item() for dice in dices],
        }
    )
