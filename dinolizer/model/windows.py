"""Sliding windows: where they lie, and how their logits become one map of the image."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
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


def strips(
    logits: Iterable[Tensor],
    positions: Sequence[tuple[int, int]],
    size: tuple[int, int],
    window: int,
    reduce: Reduce = "sum",
) -> Iterator[Tensor]:
    """Bring the logits of all windows to the pixels of the image and add them up, top to bottom.

    Each window is upsampled bicubically with ``align_corners=False``. That is linear and separable,
    ``U L U^T`` with one small matrix: windows of one row are put together at the height of their
    patches, and only the row is brought to full height. So no window ever has a copy at full
    resolution, and of the image there are never more rows than those of a window and a stride.

    Parameters
    ----------
    logits
        ``(n, C, h, w)`` at patch resolution, any number at a time: those of N windows in all.
    positions
        ``(top, left)`` of the N windows, in pixels, row by row as `grid` gives them.
    size
        ``(H, W)`` of the image.
    window
        Side of a window, in pixels.
    reduce
        ``"sum"``, or ``"mean"``: the sum divided by the number of windows over the pixel.

    Yields
    ------
    Tensor
        ``(C, n, W)`` float32, on the device of the logits: the next n rows, H in all; 0 where no
        window lies.
    """
    if reduce not in REDUCTIONS:
        raise InputError(f"The reduction is {reduce!r}, but it must be one of {list(REDUCTIONS)}.")
    height, width = size
    first, pending = 0, None  # (C + 1, window, W), from that row of the image on
    for top, row in _rows(logits, positions, width, window):
        pending = torch.zeros_like(row) if pending is None else pending
        if top > first:
            done, pending = _split(pending, top - first)
            yield _reduced(done, reduce)
            first = top
        pending += row
    if pending is not None:
        yield _reduced(_split(pending, height - first)[0], reduce)


def accumulate(
    logits: Tensor,
    positions: Sequence[tuple[int, int]],
    size: tuple[int, int],
    window: int,
    reduce: Reduce = "sum",
) -> Tensor:
    """The whole of what `strips` yields, ``(C, H, W)``, of the logits of all windows together."""
    return torch.cat(list(strips([logits], positions, size, window, reduce)), dim=1)


def _rows(
    logits: Iterable[Tensor], positions: Sequence[tuple[int, int]], width: int, window: int
) -> Iterator[tuple[int, Tensor]]:
    """Top and sum, ``(C + 1, window, W)``, of each row of windows; the last channel counts them."""
    each = (of_one for some in logits for of_one in some)  # (C, h, w)
    for top, members in groupby(positions, key=itemgetter(0)):
        lefts = [left for _, left in members]
        of_row = torch.stack(list(islice(each, len(lefts)))).float()
        upsample_rows, upsample_columns = (
            _upsampling(patches, window, of_row.device) for patches in of_row.shape[2:]
        )
        row = of_row.new_zeros(*of_row.shape[1:3], width)  # (C, h, W)
        count = of_row.new_zeros(width)
        for left, wide in zip(lefts, of_row @ upsample_columns.T, strict=True):
            row[..., left : left + window] += wide  # (C, h, window)
            count[left : left + window] += 1
        yield top, torch.cat([upsample_rows @ row, count.expand(1, window, -1)])


def _split(pending: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The first rows, and as many as there were from there on, of which the new ones are 0."""
    longer = F.pad(pending, (0, 0, 0, rows))
    return longer[:, :rows], longer[:, rows:]


def _reduced(sums: Tensor, reduce: Reduce) -> Tensor:
    total, count = sums[:-1], sums[-1]
    # A copy, which does not hold on to the rows that follow.
    return total.clone() if reduce == "sum" else total / count.clamp(min=1)


@cache
def _upsampling(patches: int, window: int, device: torch.device) -> Tensor:
    """Matrix ``(window, patches)`` of torch's own bicubic upsampling of one axis."""
    identity = torch.eye(patches, device=device)[None, None]
    return F.interpolate(identity, size=(window, patches), mode="bicubic")[0, 0]
