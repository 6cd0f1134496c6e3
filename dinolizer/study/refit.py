"""What cached tokens are worth: a head fitted on them, and one that runs the backbone each time."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinolizer.model.batches import as_batch
from dinolizer.model.localizer import Localizer
from dinolizer.study.heads import Windows
from dinolizer.study.loops import backbone_alone, cut
from dinolizer.study.timing import ALONE, REPEATS, Line, measure
from dinolizer.training.heads import Fit, fit_head
from dinolizer.training.tokens import extract

RERUN = "fit a head, backbone re-run"
EXTRACT = "extract tokens"
CACHED = "fit a head, tokens cached"
EPOCHS, FIT_BATCH = 10, 8
HELD_OUT = 2
"""Photographs whose windows are only measured when a head is fitted."""


def training(
    localizer: Localizer,
    images: list[NDArray[np.uint8]],
    windows: Windows,
    peaks: Mapping[str, float],
    repeats: int = REPEATS,
    epochs: int = EPOCHS,
) -> pd.DataFrame:
    """Measure the fit of a head on cached tokens against one that runs the backbone each time.

    Both see the same windows in the same order, from the same start; the cached tokens are float16.

    Parameters
    ----------
    localizer
        Its backbone is used.
    images, windows
        As `dinolizer.study.heads.read_windows` cut them; the windows of the last `HELD_OUT`
        photographs are only measured.
    peaks, repeats
        As in `measure`.
    epochs
        Of each fit.

    Returns
    -------
    DataFrame
        As `measure`, with the validation ``dice`` of both fits. A line counts the windows that
        pass through the backbone: none where the tokens are cached.
    """
    backbone = localizer.backbone
    pixels = [window for image in images for window in cut(localizer, image)]
    batch = as_batch(pixels, backbone.device)
    held = np.isin(windows.group, list(dict.fromkeys(windows.group))[-HELD_OUT:])
    fits: dict[str, Fit] = {}

    def fit(name: str, tokens: Tensor) -> None:
        fits[name] = fit_head(
            tokens,
            windows.targets.to(tokens.device),
            validation=torch.from_numpy(held),
            epochs=epochs,
            batch_size=FIT_BATCH,
        )

    def anew() -> None:
        with _empty_cache():
            extract(backbone, pixels)

    asked = Rerun(localizer, batch)
    fit(RERUN, cast(Tensor, asked))  # once, to count the windows it takes
    size = localizer.batch
    lines = {
        ALONE: Line(lambda: backbone_alone(localizer, batch), ALONE, len(batch), size),
        EXTRACT: Line(anew, ALONE, len(batch), size),
        RERUN: Line(
            lambda: fit(RERUN, cast(Tensor, Rerun(localizer, batch))), RERUN, asked.passed, size
        ),
        CACHED: Line(lambda: fit(CACHED, windows.tokens.to(backbone.device)), RERUN, 0, FIT_BATCH),
    }
    table = measure(localizer, lines, peaks, repeats)
    dice = {name: made.history["validation_dice"].iloc[-1] for name, made in fits.items()}
    return table.assign(dice=table["what"].map(dice))


class Rerun:
    """Stands for the tokens of windows, ``(N, D, h, w)``, and keeps none of them.

    Attributes
    ----------
    passed
        Windows that have gone through the backbone so far.
    """

    def __init__(self, localizer: Localizer, batch: Tensor) -> None:
        self.localizer, self.batch, self.passed = localizer, batch, 0
        side = localizer.window // localizer.backbone.spec.patch
        self.shape = (len(batch), localizer.backbone.dim, side, side)
        self.ndim, self.device = len(self.shape), batch.device

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.batch)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Tokens of the chosen windows, from the backbone."""
        return self._tokens(self.batch[chosen])

    def split(self, size: int) -> Iterator[Tensor]:
        """Tokens of all windows, so many at a time."""
        return map(self._tokens, self.batch.split(size))

    def _tokens(self, some: Tensor) -> Tensor:
        self.passed += len(some)
        parts = some.split(self.localizer.batch)
        return torch.cat([self.localizer.backbone(part) for part in parts])


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Let the cache be an empty folder for a while."""
    name = "DINOLIZER_CACHE"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before
