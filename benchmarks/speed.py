"""Speed on this machine: what is compared is timed in turns, in one run (``make bench``).

For the pocket model, and for the architectures of DINOv2's small and base (the paper's), one
photograph goes through the localizer, down to mask and score, by every engine and precision that
can be had here; through the backbone alone; through a loop as the published code is described; and
through MONAI's sliding window, where it is installed. The large models have random weights with a
LayerScale of 1, as large as trained ones: with the 1e-5 that training starts from, their blocks
would be all but the identity, and the maps of all engines equal.

On a machine that others use, ``OMP_NUM_THREADS=1 python benchmarks/speed.py``: with one thread, all
seconds are the processor's for this program, which others hardly change. Threads that wait for one
another wait for the other programs as well.

Writes ``results/bench/<machine and versions>.csv``, whose first line says what the machine is:

- ``seconds`` of a window, the median of the rounds, with ``low`` and ``high``; ``speed``, how many
  times as fast as torch in float32 (the median of the rounds' ratios).
- ``gflops``, and ``share_of_peak`` of the fastest library's product of large matrices in that
  precision (the rows ``matrix product``), measured in the same rounds.
- ``seconds_512`` and ``seconds_12mp`` of pictures of 512 x 512 and 4000 x 3000 pixels: windows
  times a window's. The rows ``4000 x 3000`` and ``bulk run`` say what of that holds for whole runs:
  their ``speed`` is to the backbone alone on as many windows, by the same engine, before and after.
- ``memory_mb``: the most that a fresh program has in memory that maps one picture, libraries and
  weights included; of the second row of a bulk run, how much it grew.
- Against torch in float32 on photographs: ``largest_difference`` of a pixel's probability,
  ``pixels_changed`` to the other side of the threshold, and ``iou_change_at_most``, one less the
  IoU of both masks: by the triangle inequality of the Jaccard distance, the IoU with no truth
  changes by more.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from loops import backbone_alone, monai_sliding_window, published_loop, windows
from numpy.typing import NDArray
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode
from whole import clock, whole_runs

from dinolizer import InputError, Localizer
from dinolizer.model import engines
from dinolizer.model.backbones import Backbone, pick_device
from dinolizer.model.head import card_for, make_head
from dinolizer.model.localization import Localization
from dinolizer.model.specs import BACKBONES, build
from dinolizer.paths import ROOT, atomic
from dinolizer.pocket.photos import PHOTOS, load_photo

ROUNDS = 3
SIDE = {"cpu": 1536, "cuda": 8192}
"""Of the square matrices whose product gives the peak."""
PICTURES = {"pocket": 512, "untrained-dinov2-small": 504, "untrained-bfree": 504}
"""Models, and the side of the picture that is timed: 16 windows of the pocket model, else one."""
WITHOUT_PEERS = ("untrained-bfree",)
"""Models that other loops, which are torch's in float32 as well, would take minutes with."""
CALIBRATION, PROOF = [*PHOTOS][5:], [*PHOTOS][:3]
"""Photographs that integers are calibrated on, and those that maps are compared on."""
SIZES = {"seconds_512": (512, 512), "seconds_12mp": (3000, 4000)}
TORCH = ("torch", "float32")
SHOWN = ("model", "what", "precision", "seconds", "speed", "gflops", "memory_mb")
"""Columns, of a row that has just been measured."""

Runs = dict[tuple[str, str], Callable[[], object]]
"""What is timed, by what runs it and its precision."""


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of a run, by torch's benchmark timer."""
    threads = torch.get_num_threads()
    return Timer("run()", globals={"run": run}, num_threads=threads, timer=clock()).timeit(1).mean


def in_turns(runs: Runs) -> pd.DataFrame:
    """Seconds of each run (columns) in each round."""
    return pd.DataFrame([{k: seconds_of(run) for k, run in runs.items()} for _ in range(ROUNDS)])


def ways(device: torch.device) -> list[tuple[str, str]]:
    """Engines and precisions that can be had, torch in float32 first."""
    precisions = ["float32"]
    if device.type == "cuda":
        precisions += ["bfloat16", "float16"]
    elif engines.has_bfloat16():
        precisions += ["bfloat16"]
    found = []
    for engine in engines.NEEDS:
        for precision in precisions:
            try:
                engines.check_engine(engine, precision, device)
            except InputError as error:
                print(error)
                continue
            found.append((engine, precision))
    return found


def load(name: str) -> Localizer:
    """A model with its head, or one of random weights and a LayerScale of 1."""
    if name == "pocket":
        return Localizer.from_pretrained(name)
    spec = BACKBONES[name]
    torch.manual_seed(0)
    model = build(spec)
    for parameter, values in model.named_parameters():
        if parameter.endswith("gamma"):
            nn.init.ones_(values)
    backbone = Backbone(spec, model).to(pick_device())
    head = make_head(backbone.dim)
    nn.init.normal_(head.weight, std=backbone.dim**-0.5)
    return Localizer(backbone, head, card_for(backbone))


def photo(name: str, side: int) -> NDArray[np.uint8]:
    """A photograph's middle, continued by reflection where it is smaller."""
    image = load_photo(name)
    below, right = (max(side - length, 0) for length in image.shape[:2])
    image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def window_flops(localizer: Localizer) -> int:
    """Floating-point operations of one window, a multiply-add as two."""
    side = localizer.window
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        localizer.backbone(torch.zeros(1, 3, side, side, device=localizer.backbone.device))
    return counter.get_total_flops()


def products(device: torch.device, folder: Path) -> Runs:
    """The product of two square matrices, by every library in every precision."""
    side = SIDE[device.type]
    one = torch.rand(side, side, device=device)

    def by_torch(precision: str) -> Callable[[], object]:
        lower = one.to(getattr(torch, precision))
        return lambda: (lower @ lower).sum().item()

    runs = {way: by_torch(way[1]) for way in ways(device) if way[0] == "torch"}
    others = [way for way in ways(device) if way[0] != "torch"]
    path = folder / "product.onnx"
    if others:
        layer, names = nn.Linear(side, side, bias=False).eval(), ["windows"]
        torch.onnx.export(layer, (one,), path, dynamo=True, verbose=False, input_names=names)
        files = dict.fromkeys(others, path)
        if find_spec("onnxruntime"):
            from int8 import quantized

            files |= dict.fromkeys(
                dict.fromkeys([(w[0], "int8") for w in others]), quantized(path, [one])
            )
        for (engine, precision), file in files.items():
            threads, lower = torch.get_num_threads(), precision.replace("int8", "float32")
            infer = engines.compiled(engine, file, lower, threads)
            runs[engine, precision] = partial(infer, {"windows": one.numpy()})
    return runs


def localizers(localizer: Localizer) -> dict[tuple[str, str], Localizer]:
    """The localizer by every engine in every precision, and in integers where that can be had."""
    made = {
        (engine, precision): localizer.with_settings(engine=engine, precision=precision)
        for engine, precision in ways(localizer.backbone.device)
    }
    if ("onnx", "float32") in made:
        from int8 import in_int8

        made["onnx", "int8"] = in_int8(localizer, "onnx", map(load_photo, CALIBRATION))
    return made


def agreement(
    made: Mapping[tuple[str, str], Localizer], name: str
) -> dict[tuple[str, str], dict[str, float]]:
    """Of the maps of photographs, see above: of one photograph where a window takes seconds. For
    random weights the threshold is one that a fifth of torch's map is over."""
    names = PROOF if name == "pocket" else PROOF[:1]
    images = [photo(one, PICTURES[name]) for one in names]
    expected = [made[TORCH](image) for image in images]
    if name != "pocket":
        threshold = float(np.quantile(expected[0].probability, 0.8))
        expected = [cut(map, threshold) for map in expected]
    agreed = {}
    for way, one in made.items():
        results = [
            cut(one(image), wanted.threshold)
            for image, wanted in zip(images, expected, strict=True)
        ]
        pairs = [*zip(results, expected, strict=True)]
        moved, changed = engines.disagreement(pairs)
        both = [(a.mask & b.mask).sum() / max((a.mask | b.mask).sum(), 1) for a, b in pairs]
        agreed[way] = {
            "largest_difference": moved,
            "pixels_changed": changed,
            "iou_change_at_most": 1 - float(min(both)),
        }
    return agreed


def cut(result: Localization, threshold: float) -> Localization:
    """A result at another threshold."""
    settings = result.settings | {"threshold": threshold}
    return replace(result, mask=result.probability > threshold, settings=settings)


def memory_mb(name: str, engine: str, precision: str) -> float:
    """Most megabytes of a fresh program that maps a picture."""
    words = [sys.executable, __file__, name, engine, precision]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def most_mb() -> float:
    """Most megabytes that this program has had in memory so far; NaN where Linux does not say."""
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else None
    return int(peak[1]) / 1024 if peak else float("nan")


def measure(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a model."""
    localizer, side = load(name), PICTURES[name]
    image = photo(PROOF[0], side)
    batch = windows(localizer, image)
    made = localizers(localizer)
    agreed = agreement(made, name)
    runs: Runs = {way: partial(one, image) for way, one in made.items()}
    if name not in WITHOUT_PEERS:
        runs["backbone alone", "float32"] = lambda: backbone_alone(localizer, batch)
        runs["loop as published", "float32"] = lambda: published_loop(localizer, image)
        if find_spec("monai"):
            runs["MONAI sliding window", "float32"] = lambda: monai_sliding_window(localizer, image)
    multiplied = products(localizer.backbone.device, folder)
    peaks = {("matrix product", *way): run for way, run in multiplied.items()}
    rounds = in_turns(runs | peaks)  # type: ignore[operator, arg-type]
    flops = 2 * SIDE[localizer.backbone.device.type] ** 3
    rates = {way: flops / rounds["matrix product", *way].median() / 1e9 for way in multiplied}
    for way, rate in rates.items():
        row = {"model": "matrix product", "what": way[0], "precision": way[1], "gflops": rate}
        yield row | {"beside": name}
    gflop = window_flops(localizer) / 1e9
    for way in runs:
        each = rounds[way] / len(batch)
        peak = max((rate for (_, lower), rate in rates.items() if lower == way[1]), default=np.nan)
        yield {
            "model": name,
            "what": way[0],
            "precision": way[1],
            "windows": len(batch),
            **times(each),
            "speed": (rounds[TORCH] / rounds[way]).median(),
            "gflops": gflop / each.median(),
            "share_of_peak": gflop / each.median() / peak,
            **{k: localizer.plan(*size).passes * each.median() for k, size in SIZES.items()},
            "memory_mb": memory_mb(name, *way) if way in made and way[1] != "int8" else np.nan,
            **agreed.get(way, {}),
        }


def measure_whole(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of whole runs, by the engine that `auto` takes."""
    localizer = load(name)
    localizer = localizer.with_settings(engine="auto", precision="float32")
    for row in whole_runs(localizer, folder):
        yield {"model": name, "precision": localizer.precision, **row}


def times(seconds: pd.Series) -> Mapping[str, float]:
    median, low, high = seconds.median(), seconds.min(), seconds.max()
    return {"seconds": median, "low": low, "high": high, "windows_per_second": 1 / median}


def machine() -> str:
    """What the results depend on, as a file's name."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{torch.cpu.get_capabilities().get('cpu_name') or platform.machine()}"
        device += f" {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    packages = [name for name in ("torch", "timm", "openvino", "onnxruntime") if find_spec(name)]
    words = [device.strip(), *(f"{name}-{version(name)}" for name in packages)]
    return "_".join(words).replace(" ", "-")


def note() -> str:
    """The machine in words: what it can do, and what else ran on it."""
    has, loads = torch.cpu.get_capabilities(), psutil.getloadavg()
    wanted = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    able = ", ".join(f"{name}: {'yes' if has.get(name) else 'no'}" for name in wanted)
    only = " Seconds are the processor's." if torch.get_num_threads() == 1 else ""
    return (
        f"# {machine()}; {able}; load average over the last 15 minutes {loads[2]:.1f}, of "
        f"{os.cpu_count()} cores.{only} What exceeds these is of other programs: then seconds are "
        "too many, but ratios of what was timed in turns hold."
    )


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    if given := sys.argv[1:]:  # see `memory_mb`
        name, engine, precision = given
        load(name).with_settings(engine=engine, precision=precision)(
            photo(PROOF[0], PICTURES[name])
        )
        print(most_mb())
        return
    rows: list[dict[str, Any]] = []
    path = ROOT / "results" / "bench" / f"{machine()}.csv"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DINOLIZER_CACHE"] = f"{folder}/cache"
        parts = [measure(name, Path(folder)) for name in PICTURES]
        for part in (*parts, measure_whole("pocket", Path(folder))):
            for row in part:
                rows.append(row)
                print({k: v for k, v in row.items() if k in SHOWN}, flush=True)
            table = pd.DataFrame(rows)
            with atomic(path) as draft, draft.open("w") as file:
                file.write(f"{note()}\n")
                table.to_csv(file, index=False, float_format="%.4g")
    print(f"{path}\n{table.to_string(index=False, float_format='{:.4g}'.format)}")


if __name__ == "__main__":
    main()
