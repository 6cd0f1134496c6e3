"""Sliding windows: where they lie, and how their logits become one map of the image."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from dinolizer.errors import InputError

Reduce = Literal["sum", "mean"]
REDUCTIONS: tuple[Reduce, ...] = get_args(Reduce)


def origins(length: int, window: int, stride: int) -> list[int]:
    """First pixel of every window along one side; the last window is flush with the end.

    Parameters
    ----------
    length, window, stride
        Pixels, with ``0 < stride <= window <= length``, so that every pixel is covered.

    Raises
    ------
    InputError
        Where that does not hold.
    """
    if not 0 < stride <= window:
        raise InputError(
            f"The stride is {stride}, but it must be from 1 to the window's {window} pixels: "
            "choose a smaller one."
        )
    if length < window:
        raise InputError(
            f"A side has {length} pixels, but a window needs {window}: resize or pad the image."
        )
    return [*range(0, length - window, stride), length - window]


def grid(height: int, width: int, window: int, stride: int) -> list[tuple[int, int]]:
    """``(top, left)`` of every window of an image, row by row; see `origins`."""
    return [
        (top, left)
        for top in origins(height, window, stride)
        for left in origins(width, window, stride)
    ]


def accumulate(
    logits: Tensor,
    positions: Sequence[tuple[int, int]],
    size: tuple[int, int],
    window: int,
    reduce: Reduce = "sum",
) -> Tensor:
    """Bring the logits of all windows to the pixels of the image and add them up.

    Only one window at a time is upsampled, bicubically with ``align_corners=False``: a large image
    costs its own ``C * H * W`` numbers and not those of all of its windows.

    Parameters
    ----------
    logits
        ``(N, C, h, w)``, at patch resolution.
    positions
        ``(top, left)`` of the N windows, in pixels.
    size
        ``(H, W)`` of the image.
    window
        Side of a window, in pixels.
    reduce
        ``"sum"``, or ``"mean"``: the sum divided by the number of windows over the pixel.

    Returns
    -------
    Tensor
        ``(C, H, W)`` float32, on the device of ``logits``; 0 where no window lies.
    """
    if reduce not in REDUCTIONS:
        raise InputError(f"The reduction is {reduce!r}, but it must be one of {list(REDUCTIONS)}.")
    total = torch.zeros(logits.shape[1], *size, device=logits.device)
    count = torch.zeros(size, device=logits.device)
    for patch_logits, (top, left) in zip(logits.float(), positions, strict=True):
        place = (..., slice(top, top + window), slice(left, left + window))
        total[place] += F.interpolate(
            patch_logits[None], size=(window, window), mode="bicubic", align_corners=False
        )[0]
        count[place] += 1
    return total if reduce == "sum" else total / count.clamp(min=1)
