"""The resumable end-to-end loop: heads, adapters, backbones and generators pass through it."""

import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from dinolizer.errors import InputError, unwatched
from dinolizer.paths import read_checked, write_checked, write_file

if TYPE_CHECKING:  # most who train here need none
    from accelerate import Accelerator

Batch = tuple[Tensor, ...]
Batches = Callable[[int, int], Iterable[Batch]]
"""From the numbers of two steps to the batches of the first one up to, not including, the last."""


@dataclass
class Progress:
    """How far a training is: losses of its steps, scores of its rounds, the trained tensors after
    the best round (the first of equals), and the seconds spent."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best_round(self) -> int:
        """From 1; 0 before there is one."""
        return self.scores.index(max(self.scores)) + 1 if self.scores else 0

    def history(self) -> pd.DataFrame:
        """As in `dinolizer.training.heads.Fit`, where a round is an epoch."""
        count = len(self.scores)
        losses = [sum(part) / len(part) for part in np.array_split(self.losses, count)]
        epochs = range(1, count + 1)
        return pd.DataFrame({"epoch": epochs, "loss": losses, "validation_dice": self.scores})


def optimise(
    model: nn.Module,
    batches: Batches,
    loss_of: Callable[..., Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    warm_up: bool = True,
    clip: float = math.inf,
    score: Callable[[], float] | None = None,
    score_every: int | None = None,
    patience: int | None = None,
    checkpoint: Path | None = None,
    settings: Mapping[str, object] | None = None,
    save_every: int = 500,
    log: Path | None = None,
    label: str = "training",
    accelerator: "Accelerator | None" = None,
) -> Progress:
    """Minimise a loss with AdamW, in place, over the parameters that require gradients.

    The same steps always give the same batches; ``loss_of`` takes the model and the tensors of a
    batch to a scalar. The rate falls from ``lr`` to 0 along a cosine, with ``warm_up`` after a rise
    in the first tenth. The accelerator is for several processes or half precision.

    After each ``score_every`` steps, a round, the score is measured, and the history written to the
    CSV ``log``. Training stops after ``patience`` rounds without a better score, and the model ends
    as after the best. Where the checkpoint, written after ``save_every`` steps and every round,
    exists, training goes on from there, on a CPU to the same bits as without interruption.

    Raises InputError for a checkpoint that is damaged or of other ``settings`` (all that the result
    depends on), and for a loss, score or weight that is not finite."""
    device = next(model.parameters()).device
    learned = [value for value in model.parameters() if value.requires_grad]
    optimiser: Any = torch.optim.AdamW(learned, lr=lr, weight_decay=weight_decay)
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
        if warm_up
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    )
    called, backward, is_main = model, torch.autograd.backward, True
    movable: dict[str, Any] = {"schedule": schedule}
    if accelerator:
        called, optimiser = accelerator.prepare(model, optimiser)
        backward, is_main = accelerator.backward, accelerator.is_main_process
        if accelerator.scaler is not None:  # with fp16 only
            movable["scaler"] = accelerator.scaler
    movable["optimiser"] = optimiser
    settings, progress = dict(settings or {}), Progress()
    if checkpoint and checkpoint.exists():
        progress = _resume(checkpoint, settings, model, movable)
    if accelerator:
        accelerator.wait_for_everyone()  # a process at its end would remove the checkpoint
    start = time.monotonic() - progress.seconds
    model.train()

    def save() -> None:
        progress.seconds = time.monotonic() - start
        if is_main and checkpoint:
            states = {name: part.state_dict() for name, part in movable.items()}
            state = {"settings": settings, "model": trained(model), **vars(progress), **states}
            state["random"] = torch.get_rng_state()  # of dropout
            content = io.BytesIO()
            torch.save(state, content)
            write_checked(checkpoint, content.getvalue())

    per_round, done = score_every or steps, len(progress.losses)
    hidden = not is_main or unwatched()
    with tqdm(total=steps, initial=done, desc=label, mininterval=5, disable=hidden) as bar:
        while done < steps:
            rounds = done // per_round
            if patience and rounds - progress.best_round >= patience:
                break
            last = min((rounds + 1) * per_round, steps)
            for batch in batches(done, last):
                loss = loss_of(called, *(part.to(device, non_blocking=True) for part in batch))
                progress.losses.append(_finite(loss.item(), "loss", lr))
                done += 1
                optimiser.zero_grad()
                backward(loss)
                if clip < math.inf:
                    nn.utils.clip_grad_norm_(learned, clip)
                optimiser.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{progress.losses[-1]:.4f}", refresh=False)
                if done % save_every == 0 and done < last:
                    save()
            if score:
                progress.scores.append(_finite(score(), "score", lr))
                if progress.best_round == len(progress.scores):
                    progress.best = trained(model)
            save()
            if log and is_main:
                write_file(log, progress.history().to_csv(index=False))
    if score:
        _load(model, progress.best)
    for weight in learned:
        _finite(weight.detach().abs().max().item(), "largest weight", lr)
    return progress


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Copy to the CPU what training may change: all that is not a frozen parameter."""
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    learned = {name: of for name, of in model.state_dict().items() if name not in frozen}
    return {name: tensor.detach().cpu().clone() for name, tensor in learned.items()}


def _finite(value: float, what: str, lr: float) -> float:
    if not math.isfinite(value):
        advice = f"train with a lower learning rate than {lr}, or in full precision"
        raise InputError(f"The {what} is {value}, but it must be a finite number: {advice}.")
    return value


def _resume(
    path: Path, settings: Mapping[str, object], model: nn.Module, movable: Mapping[str, Any]
) -> Progress:
    """Take up a checkpoint, after checking that it is whole and of the same training."""
    again = "delete it to train from the start."
    try:
        content = io.BytesIO(read_checked(path))
        state = torch.load(content, map_location="cpu", weights_only=True)
        made_with = dict(state.pop("settings"))
        if made_with == settings:
            if state["scores"]:
                _load(model, state["best"])
            _load(model, state.pop("model"))
            for name, part in movable.items():
                part.load_state_dict(state.pop(name))
            torch.set_rng_state(state.pop("random"))
            if state.keys() != vars(Progress()).keys():
                raise KeyError
            return Progress(**state)
    except Exception:  # readers of archives and pickles meet damage with almost any
        raise InputError(f"The checkpoint {path} cannot be read; {again}") from None
    names = {**settings, **made_with}
    name = next(name for name in names if made_with.get(name) != settings.get(name))
    both = f"{name} = {made_with.get(name)!r}, but this run has {settings.get(name)!r}"
    raise InputError(f"The checkpoint {path} was made with {both}: give the same, or {again}")


def _load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take back what `trained` gave; another name or shape is an error."""
    if tensors.keys() != trained(model).keys():
        raise KeyError
    model.load_state_dict({**model.state_dict(), **tensors})
