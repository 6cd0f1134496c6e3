"""Times of what is run in turns, and all ways to put one image's windows through one model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dinolizer.model.batches import as_batch
from dinolizer.model.localizer import Localizer
from dinolizer.study.loops import (
    BATCH,
    MONAI_INSTALLED,
    backbone_alone,
    cut,
    monai_sliding_window,
    published_loop,
)
from dinolizer.study.machine import demand, peak_flops, seconds_of

REPEATS = 5
ALONE = "backbone alone"
HALF = "backbone alone, bfloat16"
LOCALIZER = "localizer, exact"
LOOP = "loop as published"
MONAI = "MONAI sliding window"
WITHOUT_MONAI = f"{MONAI}: not installed, left out (pip install monai)"
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
