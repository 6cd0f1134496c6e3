"""A backbone run by OpenVINO or ONNX Runtime, perhaps faster on a CPU; a model as an ONNX file."""

import copy
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinolizer.errors import InputError, check_choice, say
from dinolizer.model.backbones import Backbone
from dinolizer.model.localization import Localization
from dinolizer.paths import atomic, cache_dir, write_file

if TYPE_CHECKING:
    from dinolizer.model.localizer import Localizer

EXPORT = ("onnx", "onnxscript")
NEEDS = {"torch": (), "openvino": ("openvino", *EXPORT), "onnx": ("onnxruntime", *EXPORT)}
"""Engines, and the packages that each needs."""
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
ABLE = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
"""Precisions by OpenVINO's names: to ask for one, and of those that a processor has."""
DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""From torch's probabilities in float32, which a self-check allows at most, by precision."""
CHANGED = 2e-3
"""Share of the pixels of a picture that may be on the other side of the threshold."""
ROUNDS = 3


def check_engine(engine: str, precision: str, device: torch.device) -> None:
    """Refuse an engine that cannot run here in a precision, on a device."""
    check_choice("engine", engine, (*NEEDS, "auto"))
    if engine in ("torch", "auto"):
        return
    if device.type != "cpu":
        advice = "choose the device 'cpu', or the engine 'torch'"
        wrong = f"runs on a CPU, but the device is {str(device)!r}"
        raise InputError(f"The engine {engine!r} {wrong}; {advice}.")
    _check_installed(engine, NEEDS[engine])
    known = _openvino_precisions() if engine == "openvino" else ["float32"]
    if precision not in known:
        has = f"the engine {engine!r} has {known} on this machine"
        raise InputError(f"The precision is {precision!r}, but {has}; choose one, or 'torch'.")


@cache
def _openvino_precisions() -> list[str]:
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name in ABLE if ABLE[name] in able]


def _check_installed(extra: str, packages: tuple[str, ...]) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        command = f"pip install 'dinolizer[{extra}]'"
        raise InputError(f"This needs {' and '.join(missing)}, not installed here; run: {command}")


def tokens_by(
    engine: str, backbone: Backbone, window: int, precision: str
) -> Callable[[Tensor], Tensor]:
    """A function that gives a backbone's tokens of windows of that side, on the CPU, by another
    engine. Their input is normalised here: the pocket stem counts values under one grey level, and
    engines fold constants, so that ties would fall another way."""
    infer = compiled(engine, exported(backbone, window), precision, torch.get_num_threads())

    def tokens(batch: Tensor) -> Tensor:
        windows = ((batch - backbone.mean) / backbone.std).contiguous().numpy()
        return torch.from_numpy(infer({"windows": windows})[0])

    return tokens


@lru_cache(maxsize=1)  # a localizer with another threshold or stride takes it over
def compiled(
    engine: str, path: Path, precision: str, threads: int
) -> Callable[[dict[str, NDArray[np.float32]]], Any]:
    if engine == "openvino":
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": threads}
        return openvino.Core().compile_model(path, "CPU", hints)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None)


def exported(backbone: Backbone, window: int) -> Path:
    """The ONNX file of a backbone without its normalisation, made if it is not in the cache."""
    key = _key(window=window, weights=backbone.hash, packages=("timm", *EXPORT))
    path = cache_dir() / "engines" / f"{backbone.spec.name}-{key}.onnx"
    if not path.is_file():
        plain = copy.deepcopy(backbone)
        plain.mean.zero_()
        plain.std.fill_(1)
        _write(path, nn.Sequential(plain), window, "tokens", {})
    return path


def _write(path: Path, model: nn.Module, window: int, output: str, card: Mapping[str, str]) -> None:
    batch = torch.zeros(2, 3, window, window)
    with torch.inference_mode(False):  # which cannot be traced
        program = torch.onnx.export(
            model.cpu().eval(),
            (batch,),
            dynamo=True,
            verbose=False,
            input_names=["windows"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=1024)},),
        )
    assert program is not None
    program.model.metadata_props.update(card)
    with atomic(path) as draft:
        program.save(draft, external_data=False)


def export(localizer: "Localizer", out: Path) -> None:
    """Write a backbone and its head as one ONNX file, for other tools. Its metadata are the card,
    as JSON: `Localizer.settings`, and what it takes and gives."""
    _check_installed("onnx", EXPORT)
    spec, chosen = localizer.backbone.spec, localizer.settings
    card = {name: chosen[name] for name in chosen if name not in ("engine", "precision")} | {
        "patch": spec.patch,
        "mean": spec.mean,
        "std": spec.std,
        "citation": spec.citation,
        "input": "windows: float32 (N, 3, window, window), RGB in [0, 1]; mean and std are inside",
        "output": "logits: float32 (N, C, h, w) of patches; the probability is the sigmoid of one "
        "channel, or the last of the softmax over three",
    }
    model = nn.Sequential(copy.deepcopy(localizer.backbone), copy.deepcopy(localizer.head))
    texts = {name: json.dumps(value) for name, value in card.items()}
    _write(out, model, localizer.window, "logits", texts)


def fastest(localizer: "Localizer", any_precision: bool = False) -> tuple[str, str]:
    """The engine, and precision, that are fastest on this machine, of those installed that pass a
    self-check: the localizer's precision, or any of it and bfloat16 where the CPU has that. The
    check compares the maps of three fixed pictures with torch's in float32, see `DIFFERENCE` and
    `CHANGED`; what fails is said. All are timed in turns. The result is cached."""
    device, current = localizer.backbone.device, localizer.precision
    precisions = [current, "bfloat16"] if any_precision and has_bfloat16() else [current]
    others: list[tuple[str, str]] = []
    for engine, precision in product(NEEDS, precisions if device.type == "cpu" else [current]):
        with suppress(InputError):
            check_engine(engine, precision, device)
            others.append((engine, precision))
    others.remove(("torch", current))
    if not others:
        return "torch", current
    key = _key(
        settings=localizer.settings,
        machine=[platform.node(), platform.processor(), torch.get_num_threads()],
        others=others,
        packages=sorted({"timm", *(name for engine, _ in others for name in NEEDS[engine])}),
    )
    path = cache_dir() / "engines" / f"{localizer.backbone.spec.name}-{key}.json"
    if not path.is_file():
        write_file(path, json.dumps(_compared(localizer, others), indent=1))
    compared = json.loads(path.read_text())
    for sentence in compared["refused"]:
        say(sentence)
    engine, precision = min(compared["seconds"], key=compared["seconds"].__getitem__).split()
    return engine, precision


def has_bfloat16() -> bool:
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _compared(localizer: "Localizer", others: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Seconds of torch and of those engines that pass, and sentences on the others."""
    pictures, refused = _pictures(localizer.window), []
    exact = localizer.with_settings(precision="float32")
    expected = [exact(picture) for picture in pictures]
    passed = {f"torch {localizer.precision}": localizer}
    for engine, precision in others:
        try:
            other = localizer.with_settings(engine=engine, precision=precision)
            pairs = list(zip(map(other, pictures), expected, strict=True))
        except Exception as error:  # whatever the other library raises
            refused.append(f"The engine '{engine}' is not used: it fails ({str(error)[:200]}).")
            continue
        moved, changed = disagreement(pairs)
        if moved <= DIFFERENCE[precision] and changed <= CHANGED:
            passed[f"{engine} {precision}"] = other
        else:
            refused.append(
                f"The engine '{engine}' is not used in {precision}: its maps differ from torch's "
                f"by up to {moved:.2g} (allowed: {DIFFERENCE[precision]}), and {changed:.2%} of "
                f"the pixels change sides (allowed: {CHANGED:.1%})."
            )
    rounds = [[one(pictures[0]).seconds for one in passed.values()] for _ in range(ROUNDS)]
    seconds = dict(zip(passed, map(median, zip(*rounds, strict=True)), strict=True))
    return {"refused": refused, "seconds": seconds}


def disagreement(pairs: Iterable[tuple[Localization, Localization]]) -> tuple[float, float]:
    """Of maps and what they should be: the largest difference of any pixel's probability, and the
    largest share of a map's pixels that are on another side of the threshold."""
    each = [
        (np.abs(a.probability - b.probability).max(), (a.mask != b.mask).mean()) for a, b in pairs
    ]
    moved, changed = np.max(each, axis=0)
    return float(moved), float(changed)


def _pictures(side: int) -> list[NDArray[np.uint8]]:
    """Noise, a ramp with little of it, and one over the other."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    ramp = np.linspace(0, 200, side)[:, None, None]
    soft = (ramp + noise % 24).astype(np.uint8)
    return [noise, soft, np.where(ramp < 100, noise, soft)]


def _key(packages: Any, **parts: Any) -> str:
    parts["versions"] = [torch.__version__, *(version(name) for name in packages)]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
