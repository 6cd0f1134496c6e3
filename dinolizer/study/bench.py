"""Speed, measured in one run on one machine: what is compared is compared side by side."""

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch

from dinolizer.data.photos import load_photo
from dinolizer.model.backbones import Backbone
from dinolizer.model.features import as_batch, batch_size
from dinolizer.model.localizer import Localizer
from dinolizer.model.training import fit_head
from dinolizer.model.windows import grid
from dinolizer.study.results import Results

REPEATS = 5
WINDOWS = 500
EPOCHS = 20


def interleaved_seconds(runs: Mapping[str, Callable[[], object]]) -> pd.DataFrame:
    """Time runs in turn, `REPEATS` times after one round that is not counted.

    In turn, so that whatever else the machine does meets all of them alike.

    Returns
    -------
    DataFrame
        A row per round, a column per run, in seconds.
    """
    rounds = []
    for _ in range(REPEATS + 1):
        seconds = {}
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start
        rounds.append(seconds)
    return pd.DataFrame(rounds[1:])


def bench() -> pd.DataFrame:
    """Measure the localizer on a 512 x 512 photograph, and the fit of a head.

    Returns
    -------
    DataFrame
        ``what, seconds, ratio, of``: medians over the rounds; the ratio is to the line named in
        ``of``, in the same round.
    """
    localizer = Localizer.from_pretrained("pocket")
    photo = load_photo("astronaut")
    windows = grid(photo.shape[0], photo.shape[1], localizer.window, localizer.stride)
    crops = [
        photo[top : top + localizer.window, left : left + localizer.window] for top, left in windows
    ]
    batch = as_batch(crops, localizer.backbone.device)
    generator = torch.Generator().manual_seed(0)
    side = localizer.window // localizer.backbone.spec.patch
    tokens = torch.randn((WINDOWS, localizer.backbone.dim, side, side), generator=generator).half()
    targets = torch.rand((WINDOWS, side, side), generator=generator)
    alone = f"backbone, {len(windows)} windows"
    photo_line = "localize a photograph of 512 x 512"
    fit_line = f"fit a head on {WINDOWS} cached windows, {EPOCHS} epochs"
    again = f"backbone, {WINDOWS} windows in {EPOCHS} epochs (extrapolated)"
    seconds = interleaved_seconds(
        {
            alone: lambda: forward(localizer.backbone, batch),
            photo_line: lambda: localizer(photo),
            fit_line: lambda: fit_head(tokens, targets, epochs=EPOCHS),
        }
    )
    seconds[again] = seconds[alone] * EPOCHS * WINDOWS / len(windows)
    pairs = [(alone, alone), (photo_line, alone), (again, again), (fit_line, again)]
    rows = [
        (what, seconds[what].median(), (seconds[what] / seconds[of]).median(), of)
        for what, of in pairs
    ]
    return pd.DataFrame(rows, columns=["what", "seconds", "ratio", "of"])


def forward(backbone: Backbone, batch: torch.Tensor) -> None:
    """Run a backbone alone, in the localizer's batches."""
    with torch.inference_mode():
        for part in batch.split(batch_size(batch.device)):
            backbone(part)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    table = bench()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    caption = f"Median seconds in one run ({machine}; peak memory {peak:.1f} GB)"
    Results("bench", {"machine": machine}).save_table(table, "speed", caption)
    print(f"{caption}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
