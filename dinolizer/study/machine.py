"""The most that a machine does in a second, measured, and what a window asks of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dinolizer.model.localizer import Localizer

SIDES = {"cpu": (512, 1024), "cuda": (8192, 16384)}
"""Of the square matrices that are multiplied to find the peak."""
COPIED = {"cpu": 2**28, "cuda": 2**31}
"""Bytes that are copied to find the bandwidth: many times what a cache holds."""
TRIES, SECONDS = 3, 0.5
"""The fastest is looked for in so many tries at least, and until they have taken so long."""


@dataclass(frozen=True)
class Demand:
    """What one window asks of a machine, through the backbone and the head.

    Attributes
    ----------
    flops
        Floating-point operations, a multiply-add as two.
    least_bytes
        Weights, pixels and logits, each once: what must move even if all else stays in caches.
    most_bytes
        What moves where every operation reads its inputs from memory and writes its result there.
    """

    flops: int
    least_bytes: int
    most_bytes: int


def synchronise() -> None:
    """Wait until the GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock seconds of a run, up to when its results are there."""
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of the fastest of some products of square matrices."""
    return max(_product_flops(side, device, dtype) for side in SIDES[device.type])


def bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by the copy of a large array."""
    source = torch.zeros(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _product_flops(side: int, device: torch.device, dtype: torch.dtype) -> float:
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(one)
    return 2 * side**3 / _fastest(lambda: torch.mm(one, other, out=result))


def _fastest(run: Callable[[], object]) -> float:
    tries: list[float] = []
    while len(tries) < TRIES or sum(tries) < SECONDS:
        tries.append(seconds_of(run))
    return min(tries)


@torch.no_grad()
def demand(localizer: Localizer) -> Demand:
    """Count what one window asks, by running one."""
    side = localizer.window
    window = torch.zeros(1, 3, side, side, device=localizer.backbone.device)
    with FlopCounterMode(display=False) as operations, Traffic() as traffic:
        logits = localizer.head(localizer.backbone(window))
    modules: tuple[nn.Module, ...] = (localizer.backbone, localizer.head)
    weights = sum(value.nbytes for module in modules for value in module.parameters())
    # The pixels come as bytes and become floats on the device.
    least = weights + window.numel() + logits.nbytes
    return Demand(operations.get_total_flops(), least, traffic.bytes)


class Traffic(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = tree_leaves((args, kwargs, result))
            self.bytes += sum(value.nbytes for value in tensors if isinstance(value, Tensor))
        return result
