"""The state of an interrupted training, in a file that is taken up by the same training only."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dinolizer.errors import InputError
from dinolizer.paths import atomic


@dataclass
class Progress:
    """How far a training is: steps done, the losses of this epoch added up, a row for each past
    epoch, and the tensors of the best one."""

    step: int = 0
    loss: float = 0.0
    rows: list[tuple[int, float, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, of the highest validation Dice; 0 before there is one."""
        return max(self.rows, key=lambda row: row[2])[0] if self.rows else 0

    def history(self) -> pd.DataFrame:
        """As in `dinolizer.training.heads.Fit`."""
        return pd.DataFrame(self.rows, columns=["epoch", "loss", "validation_dice"])


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state whole or not at all.

    Parameters
    ----------
    path
        A file there is replaced.
    state
        Tensors, numbers, text, and lists and dicts of them; under ``"settings"`` a dict of what
        the training's result depends on.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        with atomic(path) as draft:
            torch.save(state, draft)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError when the disk is full
        raise InputError(
            f"The checkpoint {path} cannot be written ({str(error).splitlines()[0]}); make room "
            "there or choose another folder."
        ) from None


def read_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read a state, with its tensors on the CPU, after a check that it is of the same training.

    Raises
    ------
    InputError
        If it is damaged, or its settings differ from ``settings``, of which the first is named.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["settings"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        raise InputError(
            f"The checkpoint {path} cannot be read; delete it to train from the start."
        ) from None
    for name, value in settings.items():
        if found.get(name) != value:
            raise InputError(
                f"The checkpoint {path} was made with {name} = {found.get(name)!r}, but this run "
                f"has {value!r}: give the same settings, or delete it to train from the start."
            )
    return state
