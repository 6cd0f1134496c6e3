"""A linear head, and any adapter inside its backbone, trained by a recipe on crops of images."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES
from dinolizer.training.crops import Crops, crop_batches
from dinolizer.training.heads import Fit, Heads, standardisation
from dinolizer.training.loop import Batch, optimise
from dinolizer.training.losses import dice_sums, soft_dice
from dinolizer.training.tokens import extract_crops

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dinolizer.training.recipes import Recipe

SAMPLE = 64
"""Crops whose tokens give the mean and the scale that the head's input is standardised with."""


class Network(nn.Module):
    """A backbone and a single linear head of `Heads`: from uint8 crops to logits.

    The head reads standardised tokens, so that a learning rate means the same for every backbone.
    """

    def __init__(self, backbone: Backbone, head: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head.requires_grad_(True).to(backbone.device)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits float ``(N, C, h, w)``, of what `tokens` takes."""
        head = self.head
        standard = (self.tokens(crops) - head.mean[0, :, None, None]) * head.scale[0, :, None, None]
        return F.conv2d(standard, head.weight[0], head.bias[0])

    def tokens(self, crops: Tensor) -> Tensor:
        """Tokens ``(N, D, h, w)`` of uint8 crops ``(N, 3, H, W)``, with gradients where weights of
        the backbone are trained too; float16 tokens pass through."""
        if crops.dtype != torch.uint8:
            return crops.float()
        return self.backbone.tokens(crops.float() / 255)


def fit_recipe(
    backbone: Backbone,
    training: Crops,
    validation: Crops,
    recipe: "Recipe",
    accelerator: "Accelerator",
    *,
    workers: int = 0,
    **saving: Any,
) -> Fit:
    """Train a head, and the adapter inside the backbone, which ends as that of the best epoch.

    Each step takes the soft Dice of all crops of its batch together, whichever process has them, so
    several processes give the result of one. Crops that do not fill an epoch's last batch are left
    out. ``saving`` is ``checkpoint``, ``log`` and ``save_every`` of `optimise`.
    """
    device, world = accelerator.device, accelerator.num_processes
    size = min(recipe.batch, len(training))
    if size < world:
        raise InputError(
            f"A batch has {size} crops, but each of the {world} processes needs one: take a larger "
            "batch or fewer processes."
        )
    per_epoch = len(training) // size
    sets: list[Dataset[Batch]] = [training, validation]
    if recipe.keeps_tokens:
        sets = [extract_crops(backbone, crops, workers) for crops in (training, validation)]
        workers = 0
    head = Heads({}, backbone.dim, CLASSES[recipe.policy])
    network = Network(backbone, head)

    def order(epoch: int) -> list[int]:
        numbers = np.random.default_rng([recipe.seed, epoch]).permutation(len(training))
        return (numbers + epoch * len(training) * (recipe.crops == "fresh")).tolist()

    def load(number: int, items: Sequence[int], rank: int, world: int = world) -> Iterable[Batch]:
        """A process's share of each batch of items of a set."""
        batches = [items[at : at + size][rank::world] for at in range(0, len(items), size)]
        batches = [batch for batch in batches if batch]
        return crop_batches(sets[number], batches, workers, device.type == "cuda")

    def batches(first: int, last: int) -> Iterable[Batch]:
        epoch, done = divmod(first, per_epoch)
        items = order(epoch)[done * size : (done + last - first) * size]
        return load(0, items, accelerator.process_index)

    def loss_of(model: nn.Module, crops: Tensor, targets: Tensor) -> Tensor:
        sums = dice_sums(model(crops).float(), targets).sum(1)
        return 1 - soft_dice(pooled(sums, accelerator))

    @torch.no_grad()
    def validation_dice() -> float:
        sums = torch.zeros(2, CLASSES[recipe.policy], device=device)
        for crops, targets in load(1, range(len(validation)), accelerator.process_index):
            # Not through the wrapped model, which waits for processes that have fewer batches.
            sums += dice_sums(network(crops.to(device)).float(), targets.to(device)).sum(1)
        return soft_dice(accelerator.reduce(sums, "sum")).item()

    with torch.no_grad(), accelerator.autocast():
        sample = load(0, order(0)[:SAMPLE], rank=0, world=1)  # the same in each process
        tokens = torch.cat([network.tokens(crops.to(device)) for crops, _ in sample])
        head.mean, head.scale = standardisation(tokens, tokens.new_ones(1, len(tokens)), size)
    images = f"{training.digest[:12]} {validation.digest[:12]}"
    progress = optimise(
        network,
        batches,
        loss_of,
        steps=recipe.epochs * per_epoch,
        lr=recipe.lr,
        warm_up=False,
        score=validation_dice,
        score_every=per_epoch,
        patience=recipe.patience,
        settings=asdict(recipe) | {"backbone": backbone.hash, "images": images},
        accelerator=accelerator,
        **saving,
    )
    return Fit(head.linear(), progress.history())


def pooled(sums: Tensor, accelerator: "Accelerator") -> Tensor:
    """Add up the sums of all processes. The gradient is this process's, times the number of
    processes, because gradients are averaged afterwards."""
    fixed = sums.detach()
    return accelerator.reduce(fixed, "sum") + accelerator.num_processes * (sums - fixed)
