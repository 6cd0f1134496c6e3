"""Training on new crops at every step: for tokens that would not fit or do not stay the same."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES
from dinolizer.paths import atomic
from dinolizer.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from dinolizer.training.crops import Crops, crop_batches
from dinolizer.training.heads import Fit
from dinolizer.training.losses import dice_sums, soft_dice
from dinolizer.training.network import Network, Recipe

WEIGHT_DECAY = 0.01
SAMPLE = 64
"""Crops whose tokens give the mean and the scale that the head's input is standardised with."""


def fit_streamed(
    backbone: Backbone,
    train: Crops,
    validation: Crops,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    checkpoint: Path,
    log: Path,
    workers: int = 0,
    save_every: int = 500,
) -> Fit:
    """Train a head, and the adapter inside the backbone where there is one, on streamed crops.

    Each step takes the soft Dice of all crops of its batch together, whichever process has them:
    several processes give the result of one. Crops that do not fill the last batch of an epoch are
    left out of that epoch. The epoch with the best validation Dice is kept.

    Parameters
    ----------
    backbone
        Its adapter ends as that of the best epoch.
    train, validation
        Neither is empty.
    recipe, accelerator
        How to train, and where.
    checkpoint
        Written every ``save_every`` steps and after every epoch; where it exists the run goes on
        from there, and on a CPU ends with the same bits as one that was never interrupted.
    log
        CSV of the history, written anew after every epoch.
    workers
        Processes that prepare crops ahead, for each training process.
    save_every
        In steps.

    Raises
    ------
    InputError
        For the checkpoint of another run or one that is damaged or cannot be written, for a batch
        smaller than the number of processes, and when the loss is no number any more.
    """
    run = _Run(backbone, train, validation, recipe, accelerator, workers)
    if checkpoint.exists():
        progress = run.load(checkpoint)
    else:
        progress = Progress()
        run.standardise()
    accelerator.wait_for_everyone()  # a run that is at its end would remove the checkpoint
    with tqdm(
        total=run.steps,
        initial=progress.step,
        desc="training",
        unit="step",
        mininterval=5,
        disable=None if accelerator.is_main_process else True,
    ) as bar:
        while progress.step < run.steps and not _stalled(progress, recipe.patience):
            epoch, done = divmod(progress.step, run.per_epoch)
            for images, targets in run.batches(epoch, done):
                loss = run.take_step(images, targets)
                progress.step += 1
                progress.loss += loss
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if progress.step % save_every == 0 and progress.step % run.per_epoch:
                    run.save(checkpoint, progress)
            row = (epoch + 1, progress.loss / run.per_epoch, run.validation_dice())
            progress.rows.append(row)
            progress.loss = 0.0
            if progress.best_epoch == epoch + 1:
                progress.best = run.network.trained()
            run.save(checkpoint, progress)
            if accelerator.is_main_process:
                with atomic(log) as draft:
                    progress.history().to_csv(draft, index=False)
    run.network.load_state_dict(progress.best, strict=False)
    return Fit(run.network.plain_head(), progress.history())


class _Run:
    """What a training holds: the network, its optimiser, and where its crops come from."""

    def __init__(
        self,
        backbone: Backbone,
        train: Crops,
        validation: Crops,
        recipe: Recipe,
        accelerator: Accelerator,
        workers: int,
    ) -> None:
        self.train, self.validation = train, validation
        self.recipe, self.accelerator, self.workers = recipe, accelerator, workers
        self.size = min(recipe.batch, len(train))
        if self.size < accelerator.num_processes:
            raise InputError(
                f"A batch has {self.size} crops, but each of the {accelerator.num_processes} "
                "processes needs one: take a larger batch or fewer processes."
            )
        self.per_epoch = len(train) // self.size
        self.steps = recipe.epochs * self.per_epoch
        self.network = Network(backbone, CLASSES[recipe.policy]).to(accelerator.device)
        learned = [value for value in self.network.parameters() if value.requires_grad]
        plain = torch.optim.AdamW(learned, lr=recipe.lr, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=self.steps)
        self.model, self.optimiser = accelerator.prepare(self.network, plain)
        self.settings = asdict(recipe) | {
            "backbone": backbone.hash,
            "images": f"{train.digest[:12]} {validation.digest[:12]}",
        }

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the batches of an epoch (from 0), from a batch on."""
        order = _order(self.recipe.seed, epoch, len(self.train))[: self.per_epoch * self.size]
        return self._share(self.train, _split(order, self.size)[first:])

    def take_step(self, images: Tensor, targets: Tensor) -> float:
        """Learn from a batch, and give its loss."""
        sums = dice_sums(self.model(images).float(), targets).sum(1)
        loss = 1 - soft_dice(pooled(sums, self.accelerator))
        if not math.isfinite(loss.item()):
            raise InputError(
                f"The loss is {loss.item()}, but it must be a finite number: train with a lower "
                f"learning rate than {self.recipe.lr}, or another precision than "
                f"{self.recipe.precision!r}."
            )
        self.optimiser.zero_grad()
        self.accelerator.backward(loss)
        self.optimiser.step()
        self.schedule.step()
        return loss.item()

    @torch.no_grad()
    def validation_dice(self) -> float:
        """Soft Dice of all patches of the validation crops."""
        sums = torch.zeros(2, self.network.head.out_channels, device=self.accelerator.device)
        items = _split(range(len(self.validation)), self.size)
        for images, targets in self._share(self.validation, items):
            # Not through the wrapped model, which waits for processes that have fewer batches.
            sums += dice_sums(self.network(images).float(), targets).sum(1)
        return soft_dice(self.accelerator.reduce(sums, "sum")).item()

    @torch.no_grad()
    def standardise(self) -> None:
        """Set the network's mean and scale, in each process from the same crops."""
        sample = _order(self.recipe.seed, 0, len(self.train))[:SAMPLE]
        tokens = []
        with self.accelerator.autocast():
            for images, _ in self._load(self.train, _split(sample, self.size)):
                tokens.append(self.network.tokens(images))
        self.network.standardise(torch.cat(tokens))

    def save(self, checkpoint: Path, progress: Progress) -> None:
        """Write all that a run to go on needs, once for all processes."""
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"settings": self.settings, "network": self.network.trained(), **vars(progress)}
        write_checkpoint(checkpoint, state)

    def load(self, checkpoint: Path) -> Progress:
        """Take up the state of a checkpoint, after a check that it is of the same run."""
        state = read_checkpoint(checkpoint, self.settings)
        self.network.load_state_dict(state["network"], strict=False)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return Progress(state["step"], state["loss"], state["rows"], state["best"])

    def _parts(self) -> dict[str, Any]:
        parts = {"optimiser": self.optimiser, "schedule": self.schedule}
        scaler = self.accelerator.scaler  # with fp16 only
        return parts if scaler is None else parts | {"scaler": scaler}

    def _share(self, crops: Crops, items: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        return self._load(crops, [own for batch in items if (own := batch[first::step])])

    def _load(self, crops: Crops, items: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of crops and labels by their items, on the device."""
        device = self.accelerator.device
        for images, targets in crop_batches(crops, items, self.workers, device.type == "cuda"):
            yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def pooled(sums: Tensor, accelerator: Accelerator) -> Tensor:
    """Add up the sums of all processes, with the gradient of this process's own part.

    It is taken times the number of processes, whose gradients are averaged afterwards.
    """
    own = sums.detach()
    return accelerator.reduce(own, "sum") + accelerator.num_processes * (sums - own)


def _order(seed: int, epoch: int, count: int) -> list[int]:
    """The items of `Crops` of an epoch, shuffled."""
    return (np.random.default_rng([seed, epoch]).permutation(count) + epoch * count).tolist()


def _split(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _stalled(progress: Progress, patience: int) -> bool:
    return len(progress.rows) - progress.best_epoch >= patience
