"""One training loop for whatever is pre-trained here: resumable, with progress."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from dinolizer.paths import atomic

Batch = tuple[Tensor, ...]


class Steps(Dataset[Batch]):
    """Batches drawn by the number of their step, so that a resumed run sees the same ones."""

    def __init__(self, draw: Callable[[int], Batch], first: int, last: int) -> None:
        self.draw, self.first, self.last = draw, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.draw(self.first + index)


def optimise(
    model: nn.Module,
    draw: Callable[[int], Batch],
    loss_of: Callable[..., Tensor],
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    label: str,
    workers: int = 0,
    save_every: int = 250,
) -> list[float]:
    """Minimise a loss with AdamW and a one-cycle learning rate, saving as it goes.

    Parameters
    ----------
    model
        Trained in place, on the device it is on.
    draw
        From the number of a step to its batch on the CPU; a function of nothing else.
    loss_of
        From the tensors of a batch, on the model's device, to a scalar.
    steps, learning_rate
        Steps in all, and the highest learning rate.
    checkpoint
        File that holds the state, the losses and the seconds so far; where it exists the run goes
        on from there, and a finished run is only loaded.
    label
        What the progress bar says.
    workers
        Processes that draw batches ahead.
    save_every
        Steps between two checkpoints.

    Returns
    -------
    list of float
        The loss of every step, the earlier part of a resumed run included.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=learning_rate, total_steps=steps, pct_start=0.1
    )
    losses: list[float] = []
    start = time.monotonic()
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        losses = state["losses"]
        start -= state["seconds"]
    remaining = Steps(draw, len(losses), steps)
    if not len(remaining):
        return losses
    model.train()
    loader = DataLoader(remaining, batch_size=None, num_workers=workers)
    with tqdm(total=steps, initial=len(losses), desc=label, unit="step", mininterval=5) as bar:
        for batch in loader:
            loss = loss_of(*(tensor.to(device) for tensor in batch))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
            if len(losses) % save_every == 0 or len(losses) == steps:
                state = {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "losses": losses,
                    "seconds": time.monotonic() - start,
                }
                with atomic(checkpoint) as draft:
                    torch.save(state, draft)
    return losses
