"""Heads on tokens that are already there, many at once along named axes, and their losses."""

import copy
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.errors import InputError, check_choice, progress
from dinolizer.model.head import make_head, probabilities
from dinolizer.model.weights import check_finite

Loss = Literal["dice", "bce", "focal", "dice+bce"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
FOCUS = 2.0
"""Exponent of the focal loss: the one that Lin et al. found best ("Focal Loss for Dense Object
Detection", ICCV 2017). Their class weight is left out: it shifts what 0.5 means."""

TEMPERATURES = tuple(np.geomspace(0.5, 50, 100).tolist())


class Heads(nn.Module):
    """K linear heads on the same tokens, standardised as ``(tokens - mean) * scale``, ``(K, D)``. K
    is the product of ``axes``, the lengths of what the heads differ in, say ``{"seed": 5, "fold":
    7}``; the last varies fastest. Each maps ``dim`` channels to ``classes``, and starts at 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self, axes: Mapping[str, int], dim: int, classes: int = 1) -> None:
        super().__init__()
        self.axes = dict(axes)
        self.register_buffer("mean", torch.zeros(len(self), dim))
        self.register_buffer("scale", torch.ones(len(self), dim))
        self.weight = nn.Parameter(torch.zeros(len(self), classes, dim))
        self.bias = nn.Parameter(torch.zeros(len(self), classes))

    def __len__(self) -> int:
        return prod(self.axes.values())

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of all heads: tokens ``(N, D, h, w)``, float32, to ``(N, K, C, h, w)``."""
        weight, bias = self.folded()
        logits = F.conv2d(tokens, weight.flatten(0, 1)[..., None, None], bias.flatten())
        return logits.unflatten(1, (len(self), -1))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weights ``(K, C, D)`` and biases ``(K, C)`` for tokens as they are:
        ``w . (x - mean) * scale + b = (w * scale) . x + b'``."""
        weight = self.weight * self.scale[:, None]
        return weight, self.bias - torch.einsum("kcd,kd->kc", weight, self.mean)

    def select(self, **positions: int) -> "Heads":
        """Copy, frozen, the heads at positions along axes that it loses: ``select(fold=2)``."""
        if unknown := sorted(positions.keys() - self.axes.keys()):
            raise ValueError(f"The heads have the axes {list(self.axes)}, not {unknown}.")
        where = tuple(positions.get(name, slice(None)) for name in self.axes)
        numbers = torch.arange(len(self)).view(tuple(self.axes.values()))[where].flatten()
        chosen = copy.deepcopy(self).eval().requires_grad_(False)
        chosen.axes = {name: n for name, n in self.axes.items() if name not in positions}
        for values in (*chosen.parameters(), *chosen.buffers()):
            values.data = values.data[numbers.to(values.device)]
        return chosen

    def linear(self, **positions: int) -> nn.Conv2d:
        """One of the heads as the plain 1x1 convolution that it is."""
        weight, bias = (part.squeeze(0) for part in self.select(**positions).folded())
        head = make_head(weight.shape[1], weight.shape[0]).to(weight.device)
        head.load_state_dict({"weight": weight[..., None, None], "bias": bias})
        return head.eval().requires_grad_(False)

    def cut_at(self, logits: Tensor) -> "Heads":
        """Copy the heads, frozen, with ``logits``, ``(K,)``, subtracted from theirs."""
        moved = copy.deepcopy(self).requires_grad_(False)
        moved.bias.sub_(logits[:, None])
        return moved


class Fit(NamedTuple):
    """A trained linear head, on tokens as they are, and its history: a row per ``epoch`` (from 1)
    with ``loss`` (mean over the batches) and ``validation_dice`` (soft Dice pooled over all
    validation patches; NaN without any)."""

    head: nn.Conv2d
    history: pd.DataFrame


def fit_heads(tokens: Tensor, targets: Tensor, train: Tensor, **settings: Any) -> list[Fit]:
    """Fit K linear heads together, one for each row of ``train``; otherwise as `fit`."""
    classes = targets.shape[1] if targets.ndim == 4 else 1
    heads = Heads({"head": len(train)}, tokens.shape[1], classes).to(tokens.device)
    histories = fit(heads, tokens, targets, train, **settings)
    return [Fit(heads.linear(head=number), history) for number, history in enumerate(histories)]


def temper(head: nn.Conv2d, tokens: Tensor, targets: Tensor) -> nn.Conv2d:
    """Divide a linear head's logits by a temperature, in place: the one of `TEMPERATURES` at which
    their cross-entropy on tokens ``(N, D, h, w)`` and targets ``(N, h, w)`` in [0, 1] is least (Guo
    et al. 2017). Dice leaves the scale of the logits open, and lets them grow until most of a map
    is exactly 0 or 1, where nothing can be ranked; no mask at one half moves."""
    with torch.no_grad():
        logits = torch.cat([head(part.float()).squeeze(1) for part in tokens.split(256)])
        loss = F.binary_cross_entropy_with_logits
        temperature = min(TEMPERATURES, key=lambda value: loss(logits / value, targets).item())
        head.weight /= temperature
        assert head.bias is not None  # every head of this project has one
        head.bias /= temperature
    return head


def fit(
    heads: Heads,
    tokens: Tensor,
    targets: Tensor,
    train: Tensor,
    *,
    validation: Tensor | None = None,
    losses: Sequence[Loss] | None = None,
    epochs: int = 20,
    lr: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
) -> list[pd.DataFrame]:
    """Fit heads in place, with AdamW, freeze them, and return the history of each as in `Fit`.

    They share the pass over the tokens and nothing else: each comes out as if fitted alone on the
    same batches. The loss is taken at patch resolution by choice of this project; the paper's is
    not known. Tokens, ``(N, D, h, w)``, float16 or float32, are standardised per channel. Targets,
    ``(N, h, w)`` or ``(N, C, h, w)``, are the share of a patch that is edited, in [0, 1].
    ``train``, ``(K, N)`` or with the heads' axes in place of K, says how often each window counts,
    from 0; ``validation``, bool, likewise what is only measured; ``losses`` has one for each head,
    by default Dice. The rate falls from ``lr`` to 0 along a cosine; the seed decides the order.
    Raises InputError for a head without windows, an unknown loss, and what is not finite."""
    train = train.flatten(0, -2)
    if not train.any(1).all() or (train < 0).any():
        due = f"for every head a row of {len(tokens)} with at least one True, or one number over 0"
        given = f"The windows to fit on are {tuple(train.shape)}"
        raise InputError(f"{given}, but {due} and none below it, is expected.")
    targets = targets if targets.ndim == 4 else targets[:, None]
    held_out = torch.zeros_like(train) if validation is None else validation.reshape(train.shape)
    weights, measured = (rows.to(tokens.device, torch.float32) for rows in (train, held_out))
    losses = losses or ["dice"] * len(train)
    of_loss = {each: [n for n, of in enumerate(losses) if of == each] for each in losses}
    heads.mean, heads.scale = standardisation(tokens, weights, batch_size)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=lr)  # its decay is 0.01
    windows, held = (rows.any(0).nonzero().squeeze(1).cpu() for rows in (weights, measured))
    steps = epochs * -(-len(windows) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    order = torch.Generator().manual_seed(seed)
    history = []
    for epoch in progress(range(1, epochs + 1), "epochs"):
        of_steps = []
        for chosen in windows[torch.randperm(len(windows), generator=order)].split(batch_size):
            logits, wanted = heads(tokens[chosen].float()), targets[chosen].float()
            loss = torch.zeros(len(weights), device=tokens.device)
            for each, numbers in of_loss.items():
                asked = logits if len(of_loss) == 1 else logits[:, numbers]
                loss[numbers] = loss_of_heads(each, asked, wanted, weights[numbers][:, chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            schedule.step()
            of_steps.append(loss.detach())
        mean_loss = torch.stack(of_steps).mean(0)
        made = {"loss": mean_loss, **dict(heads.named_parameters())}
        check_finite(made, "a head", f"fit with a lower learning rate than {lr}")
        sums = torch.zeros(2, len(weights), targets.shape[1], device=tokens.device)
        with torch.no_grad():
            for chosen in held.split(batch_size) if len(held) else ():
                of_windows = dice_sums(heads(tokens[chosen].float()), targets[chosen, None].float())
                sums += torch.einsum("snkc,kn->skc", of_windows, measured[:, chosen])
        dice = torch.where(measured.any(1), soft_dice(sums), torch.nan)
        history.append((epoch, mean_loss.tolist(), dice.tolist()))
    heads.requires_grad_(False)
    columns = ["epoch", "loss", "validation_dice"]
    rows = ([(at, loss[n], dice[n]) for at, loss, dice in history] for n in range(len(weights)))
    return [pd.DataFrame(of_head, columns=columns) for of_head in rows]


def standardisation(tokens: Tensor, train: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean of each channel over each head's windows, and one over its standard deviation, or 0 for
    a constant channel: ``(K, D)`` each. In two passes, as tokens may lie far from 0."""
    over, batches = (2, 3), tokens.split(batch_size)
    centre = torch.cat([batch.double().mean(over) for batch in batches]).mean(0)
    centred = (batch.double() - centre[:, None, None] for batch in batches)
    moments = [torch.stack([part.sum(over), part.square().sum(over)]) for part in centred]
    sums, squares = torch.cat(moments, dim=1)
    count = train.double().sum(1, keepdim=True) * tokens[0, 0].numel()
    mean = train.double() @ sums / count
    variance = train.double() @ squares / count - mean.square()
    moments_of = {"mean or variance": mean + variance + centre}
    check_finite(moments_of, "the tokens to fit on", "check the backbone's weights and pictures")
    std = variance.clamp(min=0).sqrt()
    return (centre + mean).float(), torch.where(std > 1e-6, 1 / std, 0).float()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss, ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)``, a scalar in [0, 1]. p is
    the sigmoid of the logits ``(N, 1, h, w)``, or the softmax of ``(N, C, h, w)``, whose channels
    are averaged; t is in [0, 1], ``(N, C, h, w)`` or ``(N, h, w)``. Sums are over the whole batch:
    an image without an edit has no Dice of its own, but its false positives count."""
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
    target in [0, 1], ``(..., 1, h, w)``: ``-t (1-p)^focus log(p) - (1-t) p^focus log(1-p)``."""
    if focus:
        surprise, relief = F.softplus(-logits), F.softplus(logits)  # -log p, -log (1 - p)
        missed = target * (-focus * relief).exp() * surprise
        each = missed + (1 - target) * (-focus * surprise).exp() * relief
    else:
        each = F.softplus(logits) - target * logits  # the same, in half the work
    return each.sum((-3, -2, -1))


def loss_of_heads(loss: Loss, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Loss of each of K heads over its own images of a batch, ``(K,)``: `dice_loss`, the mean
    cross-entropy of a patch, that with `FOCUS`, or the sum of the first two. Logits are ``(N, K, C,
    h, w)``, the target in [0, 1] ``(N, C, h, w)``; only Dice takes several channels. ``weights``,
    ``(K, N)``, say how often an image counts."""
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
