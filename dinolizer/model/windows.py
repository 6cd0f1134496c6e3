"""Sliding windows: where they lie, and how their logits become one map of the image."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
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

    Each window is upsampled bicubically with ``align_corners=False``. That is linear and separable,
    ``U L U^T`` with one small matrix: windows of one row are put together at the height of their
    patches, and only the row is brought to full height. So no window ever has a copy at full
    resolution.

    Parameters
    ----------
    logits
        ``(N, C, h, w)``, at patch resolution.
    positions
        ``(top, left)`` of the N windows, in pixels, row by row as `grid` gives them.
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
    upsample_rows, upsample_columns = (
        _upsampling(patches, window, logits.device) for patches in logits.shape[2:]
    )
    total = torch.zeros(logits.shape[1], *size, device=logits.device)
    count = torch.zeros(size, device=logits.device)
    first = 0
    for top, members in groupby(positions, key=lambda position: position[0]):
        lefts = [left for _, left in members]
        widened = logits[first : first + len(lefts)].float() @ upsample_columns.T
        first += len(lefts)
        row = torch.zeros(*logits.shape[1:3], size[1], device=logits.device)  # (C, h, W)
        covered = torch.zeros(size[1], device=logits.device)
        for left, wide in zip(lefts, widened, strict=True):  # wide: (C, h, window)
            row[..., left : left + window] += wide
            covered[left : left + window] += 1
        total[:, top : top + window] += upsample_rows @ row
        count[top : top + window] += covered
    return total if reduce == "sum" else total / count.clamp(min=1)


@cache
def _upsampling(patches: int, window: int, device: torch.device) -> Tensor:
    """Matrix ``(window, patches)`` of torch's own bicubic upsampling of one axis."""
    identity = torch.eye(patches, device=device)[None, None]
    return F.interpolate(identity, size=(window, patches), mode="bicubic")[0, 0]
