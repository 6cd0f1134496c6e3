"""Speed on this machine: what is compared is timed in turns, in one run (``make bench``).

For the pocket model and for the paper's architecture with random weights, on one picture: the
backbone alone, on windows that are already cut; the localizer, down to mask and score; a loop as
the published code is described; MONAI's sliding window, where it is installed. For the pocket model
also what cached tokens are worth: to extract them, and to fit a head on them.

Writes ``results/bench/<machine and versions>.csv``, a row for each of them: median ``seconds`` of
the rounds with ``low`` and ``high``; ``ratio``, of the median to that of the backbone alone;
``windows_per_second``; and ``share_of_peak``, of the windows' GFLOP to the rate of the fastest
product of square matrices in the same type.
"""

import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from loops import backbone_alone, monai_sliding_window, published_loop, windows
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from dinolizer import Localizer
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import card_for, make_head
from dinolizer.paths import ROOT, atomic
from dinolizer.training.heads import fit_head

ROUNDS = 3
SIDES = {"cpu": (512, 1024), "cuda": (8192, 16384)}
"""Of the square matrices whose product gives the peak."""
PICTURES = {"pocket": 512, "untrained-bfree": 632}
"""Models, and the side of the picture: 16 windows, and 4."""
ALONE, HALF = "backbone alone", "backbone alone, bfloat16"
EPOCHS = 10


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock seconds of a run, by torch's benchmark timer."""
    return Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads()).timeit(1).mean


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of the fastest product of square matrices."""

    def rate(side: int) -> float:
        one = torch.rand(side, side, device=device).to(dtype)
        timer = Timer("one @ one", globals={"one": one}, num_threads=torch.get_num_threads())
        return 2 * side**3 / min(timer.blocked_autorange(min_run_time=1).times)

    return max(rate(side) for side in SIDES[device.type])


def window_flops(localizer: Localizer) -> int:
    """Floating-point operations of one window, a multiply-add as two."""
    side = localizer.window
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        localizer.backbone(torch.zeros(1, 3, side, side, device=localizer.backbone.device))
    return counter.get_total_flops()


def load(name: str) -> Localizer:
    """A model with its head, or with one of random weights: they are as fast as trained ones."""
    if name == "pocket":
        return Localizer.from_pretrained(name)
    backbone = load_backbone(name)
    return Localizer(backbone, make_head(backbone.dim), card_for(backbone))


def runs_of(localizer: Localizer, side: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name, on a square picture of noise."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    batch = windows(localizer, image)
    runs: dict[str, Callable[[], object]] = {
        ALONE: lambda: backbone_alone(localizer, batch),
        HALF: lambda: backbone_alone(localizer, batch, lower=True),
        "localizer, exact": lambda: localizer(image),
        "loop as published": lambda: published_loop(localizer, image),
    }
    if find_spec("monai"):
        runs["MONAI sliding window"] = lambda: monai_sliding_window(localizer, image)
    if localizer.backbone.spec.name == "pocket":
        with torch.inference_mode():
            tokens = torch.cat([localizer.backbone(part) for part in batch.split(localizer.batch)])
        tokens = tokens.clone()  # an inference tensor cannot be trained on
        targets = (torch.rand(len(tokens), *tokens.shape[2:]) > 0.9).float().to(tokens.device)
        runs[f"fit a head on cached tokens, {EPOCHS} epochs"] = lambda: fit_head(
            tokens, targets, epochs=EPOCHS
        )
    return runs


def measure() -> Iterator[dict[str, object]]:
    """Rows of the table."""
    for name, side in PICTURES.items():
        localizer = load(name)
        device = localizer.backbone.device
        runs = runs_of(localizer, side)
        rounds = [{what: seconds_of(run) for what, run in runs.items()} for _ in range(ROUNDS)]
        seconds = pd.DataFrame(rounds)
        count = len(windows(localizer, np.zeros((side, side, 3), np.uint8)))
        flops = count * window_flops(localizer)
        for what, median in seconds.median().items():
            dtype = "bfloat16" if what == HALF else "float32"
            through = not str(what).startswith("fit")  # the windows pass through the backbone
            peak = peak_flops(device, getattr(torch, dtype)) if through else float("nan")
            yield {
                "model": name,
                "what": what,
                "dtype": dtype,
                "windows": count,
                "seconds": median,
                "low": seconds[what].min(),
                "high": seconds[what].max(),
                "ratio": median / seconds[ALONE].median(),
                "windows_per_second": count / median if through else float("nan"),
                "share_of_peak": flops / median / peak,
            }


def machine() -> str:
    """What the results depend on, as a file's name."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name().replace(" ", "-")
    else:
        device = f"{platform.machine()}-{torch.get_num_threads()}-threads"
    return f"{device}_torch-{torch.__version__}_timm-{version('timm')}"


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    table = pd.DataFrame(measure())
    path = ROOT / "results" / "bench" / f"{machine()}.csv"
    with atomic(path) as draft:
        table.to_csv(draft, index=False, float_format="%.3f")
    print(f"{path}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
