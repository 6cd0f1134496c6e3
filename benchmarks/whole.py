"""Whole runs against the backbone alone on as many windows, in turns: a picture of 12 megapixels,
and a bulk run from files to files."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from dinolizer import Localizer
from dinolizer.bulk.run import Listing, scan
from dinolizer.pocket.photos import load_photo

TURNS, PICTURES = 10, 50
"""Of the bulk run: turns, and pictures in each."""
MANY = 2000
"""Small pictures of the run whose memory is watched."""


def clock() -> Callable[[], float]:
    """Of the wall; with one thread of the processor, which other programs do not disturb."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def whole_runs(localizer: Localizer, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows, see `speed.py`."""
    wide = localizer.with_settings(stride=localizer.window)
    yield large(wide)
    yield bulk(wide, folder / "bulk")
    yield memory(wide, folder / "memory")


def alone(localizer: Localizer, windows: int) -> float:
    """Seconds of the backbone for so many windows, in the localizer's batches."""
    side, size = localizer.window, localizer.batch
    batch = torch.rand(size, 3, side, side).to(localizer.backbone.device)
    start = clock()()
    with torch.inference_mode():
        for _ in range(0, windows, size):
            localizer._tokens(batch)
    return (clock()() - start) * windows / (-(-windows // size) * size)


def beside(localizer: Localizer, run: Callable[[], object], windows: int) -> tuple[float, float]:
    """Seconds of a run, and of the backbone alone on as many windows: by the rate at which it does
    a quarter of them before it, and another after."""
    quarter = -(-windows // 4)
    first = alone(localizer, quarter)
    start = clock()()
    run()
    seconds = clock()() - start
    return seconds, (first + alone(localizer, quarter)) * windows / (2 * quarter)


def row(what: str, windows: int, turns: list[tuple[float, float]]) -> dict[str, Any]:
    each = median(seconds / windows for seconds, _ in turns)
    return {
        "what": what,
        "windows": windows * len(turns),
        "seconds": each,
        "low": min(seconds for seconds, _ in turns) / windows,
        "high": max(seconds for seconds, _ in turns) / windows,
        "windows_per_second": 1 / each,
        "speed": sum(b for _, b in turns) / sum(a for a, _ in turns),
    }


def write(path: Path, height: int, width: int) -> None:
    """A photograph as a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load_photo("astronaut")).resize((width, height)).save(path, quality=90)


def large(localizer: Localizer) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    windows = localizer.plan(3000, 4000).passes
    turn = beside(localizer, lambda: localizer(image), windows)
    what = f"4000 x 3000 by {localizer.engine}, stride {localizer.stride}"
    return row(what, windows, [turn]) | {"seconds_12mp": turn[0]}


def bulk(localizer: Localizer, folder: Path) -> dict[str, Any]:
    """JPEG files of one to four windows, masks and maps written."""
    turns, side = [], localizer.window
    for turn in range(TURNS):
        photos = folder / f"{turn}"
        names = [f"{number}.jpg" for number in range(PICTURES)]
        # Every turn has the same sizes, so as many windows.
        sizes = np.random.default_rng(1).integers(side, 2 * side, (PICTURES, 2))
        for name, size in zip(names, sizes, strict=True):
            write(photos / name, *size)
        windows = sum(localizer.plan(*size).passes for size in sizes.tolist())
        listing = Listing(photos, tuple(sorted(names)))

        def run(listing: Listing = listing, out: Path = folder / f"out-{turn}") -> None:
            scan(localizer, listing, out, masks=True, maps=True)

        turns.append(beside(localizer, run, windows))
    what = f"bulk run by {localizer.engine}: {TURNS * PICTURES} pictures, 224 to 448 pixels"
    return row(what, windows, turns)


def memory(localizer: Localizer, folder: Path) -> dict[str, Any]:
    """Growth of the program after the first tenth of a run of small pictures."""
    card = replace(localizer.card, window=localizer.window // 2, stride=localizer.window // 2)
    small = Localizer(localizer.backbone, localizer.head, card, engine=localizer.engine)
    names = [f"{number:04}.jpg" for number in range(MANY)]
    for name in names:
        write(folder / "photos" / name, small.window, small.window)
    used: list[float] = []

    def watched(*given: Any) -> Any:
        used.append(psutil.Process().memory_info().rss / 2**20)
        return localization(*given)

    localization = small.localization
    small.localization = watched  # type: ignore[method-assign]
    start = clock()()
    scan(small, Listing(folder / "photos", tuple(names)), folder / "out")
    seconds = clock()() - start
    assert len(used) == MANY
    what = f"bulk run by {small.engine}: growth over {MANY} pictures of {small.window} pixels"
    growth = max(used[MANY // 10 :]) - used[MANY // 10]
    return {"what": what, "windows": MANY, "seconds": seconds / MANY, "memory_mb": growth}
