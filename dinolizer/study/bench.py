"""Speed, measured in one run on one machine: what is compared is compared side by side."""

import os
import platform
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinolizer.data.manifest import read_pair
from dinolizer.data.photos import load_photo
from dinolizer.model.backbones import load_backbone
from dinolizer.model.features import as_batch, extract
from dinolizer.model.head import make_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.training import Fit, fit_head
from dinolizer.study.crossfit import Windows, card_for, read_windows
from dinolizer.study.loops import (
    BATCH,
    MONAI_INSTALLED,
    backbone_alone,
    cut,
    monai_sliding_window,
    published_loop,
)
from dinolizer.study.machine import demand, peak_flops, seconds_of
from dinolizer.study.material import gather
from dinolizer.study.results import Results

REPEATS = 5
ALONE = "backbone alone"
HALF = "backbone alone, bfloat16"
LOCALIZER = "localizer, exact"
LOOP = "loop as published"
MONAI = "MONAI sliding window"
WITHOUT_MONAI = f"{MONAI}: not installed, left out (pip install monai)"
RERUN = "fit a head, backbone re-run"
EXTRACT = "extract tokens"
CACHED = "fit a head, tokens cached"
EPOCHS, FIT_BATCH = 10, 8
HELD_OUT = 2
"""Photographs whose windows are only measured when a head is fitted."""
BIG = "untrained-bfree"
"""The paper's architecture, with random weights: they are as fast as trained ones."""
COLUMNS = (
    *("what", "model", "device", "dtype", "batch", "windows", "seconds", "windows_per_second"),
    *("share_of_peak", "ratio", "ratio_low", "ratio_high", "of"),
)


@dataclass(frozen=True)
class Line:
    """One thing that is timed.

    Attributes
    ----------
    run
        Does it once.
    of
        Name of the line that it is held against.
    windows, batch
        How many windows pass through the backbone in one run, and how many at once.
    dtype
        torch's name of the type that most of the arithmetic is done in.
    """

    run: Callable[[], object]
    of: str
    windows: int
    batch: int
    dtype: str = "float32"


def interleaved_seconds(
    runs: Mapping[str, Callable[[], object]], repeats: int = REPEATS
) -> pd.DataFrame:
    """Time runs in turn, ``repeats`` times after one round that is not counted.

    In turn, so that whatever else the machine does meets all of them alike.

    Returns
    -------
    DataFrame
        A row per round, a column per run, in seconds.
    """
    rounds = [{name: seconds_of(run) for name, run in runs.items()} for _ in range(repeats + 1)]
    return pd.DataFrame(rounds[1:])


def measured_peaks(device: torch.device) -> dict[str, float]:
    """Floating-point operations a second, see `dinolizer.study.machine.peak_flops`, by type."""
    return {name: peak_flops(device, getattr(torch, name)) for name in ("float32", "bfloat16")}


def measure(
    localizer: Localizer,
    lines: Mapping[str, Line],
    peaks: Mapping[str, float],
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """Time lines in turn and put them side by side.

    Parameters
    ----------
    localizer
        Whose backbone and head are timed.
    lines
        By their names.
    peaks
        Of `measured_peaks`.
    repeats
        Rounds.

    Returns
    -------
    DataFrame
        The columns `COLUMNS`: medians over the rounds. ``ratio`` is of the seconds to those of the
        line ``of`` in the same round, with the lowest and the highest of all rounds;
        ``share_of_peak`` counts the operations of the windows alone.
    """
    seconds = interleaved_seconds({name: line.run for name, line in lines.items()}, repeats)
    flops = demand(localizer).flops
    rows = []
    for name, line in lines.items():
        median = seconds[name].median()
        rate = line.windows / median if line.windows else float("nan")
        ratios = seconds[name] / seconds[line.of]
        rows.append(
            (
                *(name, localizer.backbone.spec.name, localizer.backbone.device.type),
                *(line.dtype, line.batch, line.windows, median),
                *(rate, rate * flops / peaks[line.dtype]),
                *(ratios.median(), ratios.min(), ratios.max(), line.of),
            )
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def side_by_side(
    localizer: Localizer,
    image: NDArray[np.uint8],
    peaks: Mapping[str, float],
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """Measure all ways to put the windows of one image through one model.

    The backbone alone, on windows that are already on the device, also in bfloat16; the localizer,
    from the image to its map, mask and score; the others from the image to its logits.

    Parameters
    ----------
    localizer
        In the exact mode.
    image
        uint8 ``(H, W, 3)`` RGB, no side under the window.
    peaks, repeats
        As in `measure`, whose table is returned.
    """
    batch = as_batch(cut(localizer, image), localizer.backbone.device)
    count, own = len(batch), min(len(batch), localizer.batch)

    def half() -> None:
        with torch.autocast(batch.device.type, torch.bfloat16):
            backbone_alone(localizer, batch)

    lines = {
        ALONE: Line(lambda: backbone_alone(localizer, batch), ALONE, count, own),
        HALF: Line(half, ALONE, count, own, "bfloat16"),
        LOCALIZER: Line(lambda: localizer(image), ALONE, count, own),
        LOOP: Line(lambda: published_loop(localizer, image), ALONE, count, min(count, BATCH)),
    }
    if MONAI_INSTALLED:
        lines[MONAI] = Line(lambda: monai_sliding_window(localizer, image), ALONE, count, own)
    return measure(localizer, lines, peaks, repeats)


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
        As `dinolizer.study.crossfit.read_windows` cut them; the windows of the last `HELD_OUT`
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


def bench() -> pd.DataFrame:
    """Measure the pocket model and the paper's architecture, and the training of the former.

    Returns
    -------
    DataFrame
        As `measure`; ``dice`` is nan but where `training` gives it.
    """
    pocket = Localizer.from_pretrained("pocket")
    peaks = measured_peaks(pocket.backbone.device)
    tables = [side_by_side(pocket, load_photo("astronaut"), peaks)]
    edited = gather(pocket.window).test
    edited = edited[
        edited["kind"].eq("sp")
        & edited["generator"].eq("autoencoder")
        & edited["condition"].eq("clean")
        & ~edited["grain"]
    ]
    images = [read_pair(row)[0] for row in edited.to_dict("records")]
    windows = read_windows(pocket.backbone, edited)
    tables.append(training(pocket, images, windows, peaks, repeats=2))
    large = load_backbone(BIG)
    card = card_for(large, about="")
    big = Localizer(large, make_head(large.dim), card)
    side = card.window + card.stride  # four windows: one batch on a CPU
    photo = np.tile(load_photo("astronaut"), (2, 2, 1))[:side, :side]
    tables.append(side_by_side(big, photo, peaks, repeats=3))
    return pd.concat(tables, ignore_index=True)


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


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    table = bench()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        machine = f"{torch.cuda.get_device_name()}; {machine}"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    caption = (
        f"Speed in one run ({machine}; peak memory {memory:.1f} GB): medians; ratio: to the line "
        "'of' of the same model, round by round, with the lowest and the highest"
    )
    Results("bench", {"machine": machine}).save_table(table, "speed", caption)
    if not MONAI_INSTALLED:
        print(WITHOUT_MONAI)
    print(f"{caption}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
