"""Modes of the localizer: of how few passes of the backbone an image's map is made.

But for the exact one, every mode lays its windows on one grid of patches, that of the image's first
pixel: their logits are added at the resolution of the patches and upsampled once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import Pixels
from dinolizer.model.head import probabilities
from dinolizer.model.windows import Reduce, grid, origins, strips

REACH = 2
"""Patches on either side that a bicubically interpolated pixel depends on."""
BAND = 32
"""Rows of patches that are upsampled at once."""
WHOLE_TOKENS = 2048
"""Patches of a pass of a whole image at most: some 630 x 630 pixels. More were not measured."""
UNDECIDED = (0.25, 0.75)
"""Between these a patch is undecided, by the mean of its logits; a window in between is added where
over a share of `UNDECIDED_SHARE` of its patches are. Chosen on forgeries of other photographs than
the study's, where they lose nothing against adding every window."""
UNDECIDED_SHARE = 0.02


@dataclass(frozen=True)
class Mode:
    """A named way to lay windows on an image.

    Attributes
    ----------
    name
        The key in `MODES`.
    description
        One sentence.
    step
        From a window to the next on the grid of patches, as a share of the window; None for the
        head's own stride in pixels.
    tokens
        Where windows are as large as the image allows: patches of one at most. None where they are
        the head's own.
    undecided
        Two probabilities: where a patch's lies between them, windows with half the step are added;
        None for no such windows.
    """

    name: str
    description: str
    step: float | None
    tokens: int | None = None
    undecided: tuple[float, float] | None = None


MODES = {
    mode.name: mode
    for mode in (
        Mode("exact", "Windows at the head's stride, the last ones flush with the edges.", None),
        Mode("half", "Windows that overlap by one half.", 0.5),
        Mode(
            "refine",
            "Windows side by side, then those in between where the map is undecided.",
            1.0,
            undecided=UNDECIDED,
        ),
        Mode("tiles", "Windows side by side.", 1.0),
        Mode("whole", "The whole image in one pass, or a few if it is large.", 1.0, WHOLE_TOKENS),
    )
}


@dataclass(frozen=True)
class Layout:
    """Where the windows of an image lie.

    Attributes
    ----------
    size
        ``(H, W)`` of the image, in pixels.
    window
        ``(H, W)`` of every window, in pixels.
    positions
        ``(top, left)`` of each window, in pixels, row by row.
    patch
        Side of a patch, in pixels.
    on_grid
        Whether every window begins at a multiple of the patch.
    between
        Positions of windows that `refined` may add.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    positions: list[tuple[int, int]]
    patch: int
    on_grid: bool
    between: tuple[tuple[int, int], ...] = ()

    @property
    def passes(self) -> int:
        """Number of windows."""
        return len(self.positions)

    @property
    def tokens(self) -> int:
        """Number of patches in all windows."""
        return self.passes * self.window[0] * self.window[1] // self.patch**2

    def cut(self, image: Pixels, position: tuple[int, int]) -> Pixels:
        """The window at a position, of an image ``(H, W, 3)``."""
        (top, left), (height, width) = position, self.window
        return image[top : top + height, left : left + width]

    def strips(self, logits: Iterable[Tensor], reduce: Reduce) -> Iterator[Tensor]:
        """Put the logits of the windows together to those of the image.

        Parameters
        ----------
        logits
            ``(n, C, h, w)`` at patch resolution, any number at a time: of all windows in order.
        reduce
            As in `dinolizer.model.windows.accumulate`.

        Yields
        ------
        Tensor
            ``(C, n, W)`` float32: the next n rows of the image from top to bottom, H in all.
        """
        if self.on_grid:
            yield from self._upsampled(self._added(torch.cat(list(logits)), reduce))
        else:
            yield from strips(logits, self.positions, self.size, self.window[0], reduce)

    def refined(self, logits: Tensor, undecided: tuple[float, float]) -> "Layout":
        """Add the windows in between that lie over undecided patches, behind the others.

        Parameters
        ----------
        logits
            ``(N, C, h, w)``, of all windows so far.
        undecided
            As in `Mode`.
        """
        probability = probabilities(self._added(logits, "mean"))[-1]
        low, high = undecided
        doubtful = ((probability > low) & (probability < high)).float()
        height, width = (side // self.patch for side in self.window)

        def share(position: tuple[int, int]) -> float:
            row, column = (pixels // self.patch for pixels in position)
            return float(doubtful[row : row + height, column : column + width].mean())

        added = [position for position in self.between if share(position) > UNDECIDED_SHARE]
        return replace(self, positions=[*self.positions, *added], between=())

    def _added(self, logits: Tensor, reduce: Reduce) -> Tensor:
        """Logits of the whole patches of the image, ``(C, rows, columns)``."""
        rows, columns = (side // self.patch for side in self.size)
        total = torch.zeros(logits.shape[1], rows, columns, device=logits.device)
        count = torch.zeros(rows, columns, device=logits.device)
        height, width = logits.shape[2:]
        for (top, left), of_window in zip(self.positions, logits, strict=True):
            row, column = top // self.patch, left // self.patch
            place = (..., slice(row, row + height), slice(column, column + width))
            total[place] += of_window
            count[place] += 1
        return total if reduce == "sum" else total / count

    def _upsampled(self, logits: Tensor) -> Iterator[Tensor]:
        """Pixels of patches, band by band; what is left of the image is as the pixel next to it."""
        rows, columns = logits.shape[1:]
        below, right = (side % self.patch for side in self.size)
        for first in range(0, rows, BAND):
            last = min(first + BAND, rows)
            start, stop = max(first - REACH, 0), min(last + REACH, rows)
            size = ((stop - start) * self.patch, columns * self.patch)
            pixels = F.interpolate(logits[None, :, start:stop], size=size, mode="bicubic")
            pixels = pixels[:, :, (first - start) * self.patch : (last - start) * self.patch]
            rim = (0, right, 0, below if last == rows else 0)
            yield F.pad(pixels, rim, mode="replicate")[0]


def pick_mode(name: str, backbone: Backbone) -> Mode:
    """Mode of that name, if the backbone can take its windows.

    Raises
    ------
    InputError
        For an unknown name, and for windows of any shape where the backbone takes only its own.
    """
    if name not in MODES:
        raise InputError(f"The mode is {name!r}, but it must be one of {list(MODES)}.")
    if MODES[name].tokens and not backbone.model.dynamic_img_size:
        others = [mode.name for mode in MODES.values() if not mode.tokens]
        raise InputError(
            f"The mode is {name!r}, but the position embedding of {backbone.spec.name!r} is made "
            f"for windows of {backbone.spec.window} pixels only: choose one of {others}."
        )
    return MODES[name]


def lay_out(mode: Mode, size: tuple[int, int], window: int, stride: int, patch: int) -> Layout:
    """Lay the windows of a mode on an image.

    Parameters
    ----------
    size
        ``(H, W)`` of the image, in pixels, no side under the window.
    window, stride
        Of the head, in pixels.
    patch
        Of the backbone, in pixels.
    """
    if mode.step is None:
        return Layout(size, (window, window), grid(*size, window, stride), patch, on_grid=False)
    sides = [window // patch] * 2 if mode.tokens is None else _parts(size, patch, mode.tokens)
    tops, lefts = (
        [patch * place for place in origins(pixels // patch, side, max(1, int(mode.step * side)))]
        for pixels, side in zip(size, sides, strict=True)
    )
    positions = [(top, left) for top in tops for left in lefts]
    layout = Layout(size, (sides[0] * patch, sides[1] * patch), positions, patch, on_grid=True)
    if mode.undecided is None:
        return layout
    finer = lay_out(replace(mode, step=mode.step / 2, undecided=None), size, window, stride, patch)
    return replace(layout, between=tuple(sorted({*finer.positions} - {*positions})))


def _parts(size: tuple[int, int], patch: int, tokens: int) -> list[int]:
    """Sides, in patches, of the equal parts of an image of so many patches at most: the longer side
    is parted until they fit."""
    lengths = [pixels // patch for pixels in size]
    sides, counts = lengths, [1, 1]
    while prod(sides) > tokens:
        counts[sides.index(max(sides))] += 1
        sides = [ceil(length / count) for length, count in zip(lengths, counts, strict=True)]
    return sides
