"""Speed, measured in one run on one machine: what is compared is compared side by side."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable

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


def median_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median over repeats, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def bench() -> pd.DataFrame:
    """Measure the localizer on a 512 x 512 photograph, and the fit of a head.

    Returns
    -------
    DataFrame
        ``what, seconds, ratio, of``: the ratio is to the line named in ``of``.
    """
    localizer = Localizer.from_pretrained("pocket")
    photo = load_photo("astronaut")
    windows = grid(photo.shape[0], photo.shape[1], localizer.window, localizer.stride)
    crops = [
        photo[top : top + localizer.window, left : left + localizer.window] for top, left in windows
    ]
    batch = as_batch(crops, localizer.backbone.device)
    backbone = median_seconds(lambda: forward(localizer.backbone, batch))
    localize = median_seconds(lambda: localizer(photo))
    generator = torch.Generator().manual_seed(0)
    side = localizer.window // localizer.backbone.spec.patch
    shape = (WINDOWS, localizer.backbone.dim, side, side)
    tokens = torch.randn(shape, generator=generator).half()
    targets = torch.rand((WINDOWS, side, side), generator=generator)
    fit = median_seconds(lambda: fit_head(tokens, targets, epochs=EPOCHS), repeats=1)
    rerun = EPOCHS * WINDOWS * backbone / len(windows)
    alone = f"backbone, {len(windows)} windows"
    each = f"backbone, {WINDOWS} windows in {EPOCHS} epochs"
    return pd.DataFrame(
        [
            (alone, backbone, 1.0, alone),
            ("localize a photograph of 512 x 512", localize, localize / backbone, alone),
            (f"{each} (extrapolated)", rerun, 1.0, each),
            (f"fit a head on their cached tokens, {EPOCHS} epochs", fit, fit / rerun, each),
        ],
        columns=["what", "seconds", "ratio", "of"],
    )


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
