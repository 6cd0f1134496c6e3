"""Windows as batches for a backbone: how many at once, and fewer where memory runs out."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from dinolizer.errors import InputError, say
from dinolizer.model.windows import Pixels

BYTES_PER_PIXEL = 512
"""Of a window, in a pass: measured were 330 with pocket, 260 and 170 with DINOv2's and 3's base."""
RAN_OUT = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What other errors of torch say of memory."""

In = TypeVar("In")
Out = TypeVar("Out")


def batch_size(device: torch.device, side: int = 0) -> int:
    """Windows given to a backbone at once: few on a CPU, so that they stay in its caches (one core
    does 22 of the pocket backbone's per second by fours, 12 by sixteens). With ``side``, the
    window's in pixels, fewer where half of the free memory would not hold them; a line says so."""
    size = most = 32 if device.type == "cuda" else 4
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
    else:
        free = psutil.virtual_memory().available
    while size > 1 and size * BYTES_PER_PIXEL * side**2 > free // 2:
        size //= 2
    if size < most:
        say(f"Memory is short: batches of {size} windows and not of {most}.")
    return size


class Batches:
    """Run a function on batches of windows, on smaller ones from when memory has run out."""

    def __init__(self) -> None:
        self.most = sys.maxsize

    def run(self, function: Callable[[Sequence[In]], Out], windows: Sequence[In]) -> list[Out]:
        """What a function gives for all windows at once or, where memory is short, for halves."""
        results: list[Out] = []
        first = 0
        while first < len(windows):
            batch = windows[first : first + self.most]
            try:
                results.append(function(batch))
                first += len(batch)
                continue
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
                    phrase in str(error) for phrase in RAN_OUT
                ):
                    raise
                if len(batch) == 1:
                    advice = "end other programs, or choose a smaller backbone or another device"
                    raise InputError(f"Memory is not enough for one window; {advice}.") from error
            # Here, where the error no longer holds on to what the function had made.
            torch.cuda.empty_cache()
            self.most = len(batch) // 2
            say(f"Memory ran out with {len(batch)} windows: from here on batches of {self.most}.")
        return results


def as_batch(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Stack uint8 ``(H, W, 3)`` images of one size to float32 ``(N, 3, H, W)`` in [0, 1]."""
    if isinstance(images[0], Tensor):
        stacked = torch.stack([torch.as_tensor(image) for image in images])
    else:
        stacked = torch.from_numpy(np.stack(images))
    return stacked.to(device).permute(0, 3, 1, 2).float() / 255
