"""One image's plan: where its windows lie, and how their logits become those of its pixels."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise, product
from math import prod
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dinolizer.data.images import MAX_PIXELS
from dinolizer.errors import InputError
from dinolizer.model.specs import Reduce, Small

REDUCTIONS: tuple[Reduce, ...] = get_args(Reduce)
Restore = Literal["bilinear", "bicubic"]
SMALL_AREA, SMALL_AREA_WINDOW = 1016 * 1016, 504
"""Area that small images are resized to for windows of 504 pixels, as the official code is reported
to do; for another window it is scaled with the window's own area."""
THIN = 32
"""How many times as long as wide an image may be that is resized: it takes some 120 windows."""

Pair = tuple[int, int]
Pixels = NDArray[np.uint8] | Tensor


@dataclass(frozen=True)
class Plan:
    """What is done to an image of a size, decided by that size and the settings alone; in pixels.
    The map of a resized image is restored to its size ``"bilinear"``: as logits, averaged where
    they shrink, as in this project; or ``"bicubic"``: as probabilities, clipped to [0, 1], as in
    the authors' release by a third party's adapter. What the paper's own model did is not known."""

    size: Pair  # (H, W) of the image
    fitted: Pair  # (H, W) of what the windows are laid on
    resized: bool  # a small image is, to that, and not continued below and to the right
    window: int  # side of every window
    tops: tuple[int, ...]  # first rows of the windows, ascending: each with all of the lefts
    lefts: tuple[int, ...]
    patch: int  # side of a patch
    reduce: Reduce  # what the logits of overlapping windows become
    restore: Restore = "bilinear"

    @property
    def positions(self) -> list[Pair]:
        """``(top, left)`` of every window, row by row."""
        return list(product(self.tops, self.lefts))

    @property
    def assembled(self) -> Pair:
        """``(H, W)`` of what `strips` give: that of the image, unless its map is restored after."""
        return self.fitted if self.resized and self.restore == "bicubic" else self.size

    @property
    def passes(self) -> int:
        """Number of windows."""
        return len(self.tops) * len(self.lefts)

    @property
    def tokens(self) -> int:
        """Number of patches in all windows."""
        return self.passes * (self.window // self.patch) ** 2

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image ``(H, W, 3)`` to the fitted size; it is returned as it is if it has it."""
        if self.fitted == self.size:
            return image
        if self.resized:
            shape = self.fitted[::-1]
            return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))
        below, right = self.fitted[0] - self.size[0], self.fitted[1] - self.size[1]
        # NumPy reflects again and again where the image is smaller than what is added.
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")

    def cut(self, fitted: Pixels, position: Pair) -> Pixels:
        """The window at a position of a fitted image."""
        top, left = position
        return fitted[top : top + self.window, left : left + self.window]

    def windows(self, image: NDArray[np.uint8], device: torch.device) -> list[Pixels]:
        """All windows of an image ``(H, W, 3)``, row by row, none of them copied; for a GPU they
        are views of the image there: they overlap, and so no pixel moves twice."""
        fitted: Pixels = self.fit(image)
        if device.type != "cpu":
            fitted = torch.tensor(fitted, device=device)
        return [self.cut(fitted, position) for position in self.positions]


def make_plan(
    size: Pair,
    *,
    window: int,
    stride: int,
    patch: int,
    small: Small = "pad",
    reduce: Reduce = "sum",
    restore: Restore = "bilinear",
) -> Plan:
    """Plan the windows of an image of ``size``, ``(H, W)``; it and the first three are in pixels.
    An image with a side under the window is continued to it by reflection (``small="pad"``), or
    both sides are scaled alike (``"resize"``), bicubically, to `SMALL_AREA`, and further up if the
    short side is still under the window; one too thin for that (see `THIN`) is an `InputError`."""
    resized = small == "resize" and min(size) < window
    fitted = _enlarged(size, window) if resized else (max(size[0], window), max(size[1], window))
    tops, lefts = (tuple(origins(length, window, stride)) for length in fitted)
    return Plan(size, fitted, resized, window, tops, lefts, patch, reduce, restore)


def origins(length: int, window: int, stride: int) -> list[int]:
    """First pixel of every window along a side of ``length`` pixels, the last one flush with the
    end so that all is covered; an `InputError` unless ``0 < stride <= window <= length``."""
    if not 0 < stride <= window <= length:
        sides = f"{stride}, the window {window} and the side {length} pixels"
        raise InputError(f"The stride is {sides}, but each must be from 1 to the next.")
    return [*range(0, length - window, stride), length - window]


def assemble(plan: Plan, logits: Iterable[Tensor]) -> Tensor:
    """All `strips` together, float32 ``(C, H, W)``."""
    return torch.cat([*strips(plan, logits)], dim=1)


def strips(plan: Plan, logits: Iterable[Tensor]) -> Iterator[Tensor]:
    """Logits of the image from those of its windows, as strips from top to bottom.

    ``logits`` are ``(n, C, h, w)`` at patch resolution, any number at a time, row by row. A strip
    is float32 ``(C, n, W)``: the next n rows of `Plan.assembled`; a resized image is one.

    Each window is upsampled bicubically with ``align_corners=False``. That is linear and separable,
    ``U L V^T``: windows of one row are put together at the height of their patches, and only the
    row is brought to full height: never more rows than of a window and a stride are in memory."""
    added = _added(plan, logits)
    if plan.assembled != plan.size:
        yield torch.cat([*added], dim=1)
        return
    if plan.resized:
        whole = torch.cat([*added], dim=1)[None]
        yield F.interpolate(whole, size=plan.size, mode="bilinear", antialias=True)[0]
        return
    left = plan.size[0]
    for strip in added:
        yield strip[:, :left, : plan.size[1]]
        left = max(left - strip.shape[1], 0)


def restored(plan: Plan, probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a map of the size `Plan.assembled`, ``(H, W)`` in [0, 1], to the image's size."""
    if plan.assembled == plan.size:
        return probability
    values = F.interpolate(torch.from_numpy(probability)[None, None], plan.size, mode="bicubic")
    return np.asarray(values[0, 0].clamp(0, 1).numpy())


def _added(plan: Plan, logits: Iterable[Tensor]) -> Iterator[Tensor]:
    """Strips of the fitted image."""
    each = (of_window for batch in logits for of_window in batch)  # (C, h, w)
    down, across = (
        torch.bincount(torch.tensor(starts)[:, None].add(torch.arange(plan.window)).ravel())
        for starts in (plan.tops, plan.lefts)
    )  # how many windows lie over each pixel of an axis
    pending = torch.zeros(())  # then (C, window, W), from the next row on
    for top, following in pairwise([*plan.tops, plan.fitted[0]]):
        logits_of_row = torch.stack([*islice(each, len(plan.lefts))]).float()  # (n, C, h, w)
        upsampling = _upsampling(logits_of_row.shape[-1], plan.window, logits_of_row.device)
        row = logits_of_row.new_zeros(*logits_of_row.shape[1:3], plan.fitted[1])  # (C, h, W)
        for left, wide in zip(plan.lefts, logits_of_row @ upsampling.T, strict=True):
            row[..., left : left + plan.window] += wide
        pending = pending + upsampling @ row
        step = following - top
        done = pending[:, :step]
        if plan.reduce == "mean":
            yield done / (down[top:following, None] * across).to(done.device)
        else:
            yield done.clone()  # which does not hold on to the rows that follow
        pending = F.pad(pending[:, step:], (0, 0, 0, step))


@lru_cache(maxsize=16)
def _upsampling(patches: int, window: int, device: torch.device) -> Tensor:
    """Matrix ``(window, patches)`` of torch's own bicubic upsampling of one axis."""
    identity = torch.eye(patches, device=device)[None, None]
    return F.interpolate(identity, size=(window, patches), mode="bicubic")[0, 0]


def _enlarged(size: Pair, window: int) -> Pair:
    area = SMALL_AREA * (window / SMALL_AREA_WINDOW) ** 2
    scale = max((area / prod(size)) ** 0.5, window / min(size))
    height, width = (max(round(side * scale), window) for side in size)
    if max(size) > THIN * min(size) or height * width > MAX_PIXELS:
        thin = f"{size[1]}x{size[0]} pixels is too thin to be resized to windows of {window}"
        raise InputError(f"The image of {thin}; choose small='pad' for it.")
    return height, width
