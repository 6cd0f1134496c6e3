"""From one photograph to a map of what was inpainted in it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.data.images import MAX_PIXELS, read_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, load_backbone, weights_hash
from dinolizer.model.batches import Batches, Pixels, as_batch, batch_size, placed
from dinolizer.model.head import HeadCard, load_head, probabilities
from dinolizer.model.localization import Localization, gathered
from dinolizer.model.modes import Layout, lay_out, pick_mode
from dinolizer.paths import ASSETS

__all__ = ["Localization", "Localizer"]

SMALL_AREA = 1016 * 1016
"""Area that small images are resized to for windows of 504 pixels, as the official code is reported
to do; for another window it is scaled with the window's own area."""
SMALL_AREA_WINDOW = 504
SETTINGS = ("stride", "threshold", "reduce", "small")
PRECISIONS = ("float32", "bfloat16", "float16")


class Localizer:
    """A backbone and a head, callable on a photograph.

    Parameters
    ----------
    backbone, head
        ``backbone(batch)`` gives tokens ``(N, D, h, w)``, ``head(tokens)`` logits ``(N, C, h, w)``;
        one channel is read with a sigmoid, of three (softmax) the last one, inpainted.
    card
        The settings. To change one: ``Localizer(l.backbone, l.head, replace(l.card, stride=56))``.
    mode
        Key in `dinolizer.model.modes.MODES`.
    precision
        Of the backbone's products, by torch's autocast: ``"float32"``, with which alone a map is
        that of a plain loop to 1e-4, or ``"bfloat16"`` or ``"float16"`` where the hardware is
        faster with it. Measured with the pocket backbone on one core that has AVX512-BF16: bfloat16
        took 0.6 of the time and moved 0.1 % of the pixels over the threshold, float16 took seven
        times as long.

    Raises
    ------
    InputError
        For a window that is not whole patches, for a mode that is unknown or that the backbone
        cannot take, and for another precision.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        card: HeadCard,
        *,
        mode: str = "exact",
        precision: str = "float32",
    ) -> None:
        if card.window % backbone.spec.patch:
            raise InputError(
                f"The window is {card.window} pixels, but it must be a multiple of the patch of "
                f"{backbone.spec.patch}."
            )
        if precision not in PRECISIONS:
            raise InputError(
                f"The precision is {precision!r}, but it must be one of {list(PRECISIONS)}."
            )
        self.precision = precision
        self.backbone = backbone
        self.head = head.eval().to(backbone.device)
        self.card = card
        self.mode = pick_mode(mode, backbone)
        self._batches = Batches()

    @classmethod
    def from_pretrained(
        cls,
        name: str = "pocket",
        head: str | Path | None = None,
        device: str | torch.device | None = None,
        weights: str | Path | None = None,
        *,
        mode: str = "exact",
        precision: str = "float32",
        **settings: Any,
    ) -> "Localizer":
        """Load a backbone and its head.

        Parameters
        ----------
        name
            Key in `dinolizer.model.backbones.BACKBONES`.
        head
            File of a head, with or without an adapter of the backbone; by default the one shipped
            for that backbone, if any is.
        device
            ``"cpu"``, ``"cuda"``; by default the GPU where there is one.
        weights
            Safetensors file to use in place of the backbone's own weights.
        mode
            Key in `dinolizer.model.modes.MODES`.
        precision
            See above.
        **settings
            ``stride``, ``threshold``, ``reduce``, ``small``: in place of what the head's card says.

        Raises
        ------
        InputError
            For an unknown model, mode or setting, for weights that are missing or another model's,
            and for a head that is missing or another backbone's.
        """
        unknown = [setting for setting in settings if setting not in SETTINGS]
        if unknown:
            raise InputError(
                f"The setting is {unknown[0]!r}, but it must be one of {list(SETTINGS)}."
            )
        backbone = load_backbone(name, None if weights is None else Path(weights), device)
        path = ASSETS / f"{name}-head.safetensors" if head is None else Path(head)
        if not path.is_file():
            raise InputError(
                f"There is no head {path} for the model {name!r}; train one on its tokens, as "
                "notebooks/02-train-head.ipynb does, and give its file with --head FILE."
            )
        backbone, trained, card = load_head(path, backbone)
        settled = replace(card, **settings)
        return cls(backbone, trained, settled, mode=mode, precision=precision)

    @property
    def window(self) -> int:
        """Side of a window, in pixels."""
        return self.card.window

    @property
    def stride(self) -> int:
        """Step from one window to the next, in pixels."""
        return self.card.stride

    def __call__(self, source: str | Path | Image.Image | NDArray[np.uint8]) -> Localization:
        """Localize what was inpainted in a photograph; for what can be read see `read_image`.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        image = read_image(source)
        start = time.perf_counter()
        name = str(source) if isinstance(source, str | Path) else ""
        layout, logits = self.patch_logits(image)
        found = map(self.probability, self.strips(logits, layout, image.shape[:2]))
        result = self.localization(image, found, layout, name)
        return replace(result, seconds=time.perf_counter() - start)

    @cached_property
    def batch(self) -> int:
        """Windows in a batch, see `batch_size`; 1 where those of two images may differ in size."""
        return 1 if self.mode.tokens else batch_size(self.backbone.device, self.window)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What a map depends on, the photograph apart: as in `Localization`, values of JSON."""
        return {
            "model": self.backbone.spec.name,
            "backbone_hash": self.backbone.hash,
            "head_hash": weights_hash(self.head),
            "mode": self.mode.name,
            "precision": self.precision,
        } | {name: getattr(self.card, name) for name in ("window", *SETTINGS)}

    def localization(
        self,
        image: NDArray[np.uint8],
        probability: Iterable[Tensor],
        layout: Layout,
        source: str,
        seconds: float = 0.0,
    ) -> Localization:
        """Put together what was found in an image: its map, in strips ``(n, W)`` from top to
        bottom, on any device."""
        array, mask, score = gathered(probability, image.shape[:2], self.card.threshold)
        return Localization(
            probability=array,
            mask=mask,
            score=score,
            image=image,
            source=source,
            working_size=layout.size,
            passes=layout.passes,
            tokens=layout.tokens,
            seconds=seconds,
            **self.settings,
        )

    def logits(self, image: NDArray[np.uint8]) -> Tensor:
        """Logits of an image, uint8 ``(H, W, 3)`` RGB: float32 ``(C, H, W)`` on the device."""
        layout, logits = self.patch_logits(image)
        return torch.cat([*self.strips(logits, layout, image.shape[:2])], dim=1)

    def patch_logits(self, image: NDArray[np.uint8]) -> tuple[Layout, Iterable[Tensor]]:
        """Where an image's windows lie, and their logits, ``(n, C, h, w)`` of each batch."""
        layout = self.layout(*image.shape[:2])
        pixels = placed(self.fit(image), self.backbone.device)

        def run(positions: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
            for start in range(0, len(positions), self.batch):
                batch = positions[start : start + self.batch]
                yield self.window_logits([layout.cut(pixels, position) for position in batch])

        first = run(layout.positions)
        if not layout.between:
            return layout, first
        found = list(first)
        refined = self.refined(layout, found)
        return refined, [*found, *run(refined.positions[layout.passes :])]

    @torch.inference_mode()
    def window_logits(self, windows: Sequence[Pixels]) -> Tensor:
        """Logits at patch resolution, ``(N, C, h, w)``, of windows uint8 ``(H, W, 3)`` of one
        size, in one batch if memory allows."""

        def logits(batch: Sequence[Pixels]) -> Tensor:
            with torch.autocast(device.type, lower, enabled=lower != torch.float32):
                tokens = self.backbone(as_batch(batch, device))
            return self.head(tokens.float())

        device, lower = self.backbone.device, getattr(torch, self.precision)
        return torch.cat(self._batches.run(logits, windows))

    @torch.inference_mode()
    def strips(
        self, patch_logits: Iterable[Tensor], layout: Layout, size: tuple[int, int]
    ) -> Iterator[Tensor]:
        """Logits of an image of ``size`` from those of all of its windows in their order,
        ``(n, C, h, w)`` as they come: ``(C, n, W)`` from top to bottom, whole for an image that
        was resized."""
        found = layout.strips(patch_logits, self.card.reduce)
        if layout.size != size and self.card.small == "resize":
            whole = torch.cat([*found], dim=1)[None]
            yield F.interpolate(whole, size=size, mode="bilinear", antialias=True)[0]
            return
        left = size[0]  # rows; what was padded is below them and to the right
        for strip in found:
            yield strip[:, :left, : size[1]]
            left = max(left - strip.shape[1], 0)

    @torch.inference_mode()
    def probability(self, logits: Tensor) -> Tensor:
        """Probability ``(H, W)`` of generation from logits ``(C, H, W)``, on the same device."""
        return probabilities(logits)[-1]

    def layout(self, height: int, width: int) -> Layout:
        """Where windows lie on a photograph of that size, which is fitted to its `working_size`."""
        size = self.working_size(height, width)
        return lay_out(self.mode, size, self.window, self.stride, self.backbone.spec.patch)

    @torch.inference_mode()
    def refined(self, layout: Layout, patch_logits: Iterable[Tensor]) -> Layout:
        """The layout with the windows in between that its mode adds, by the logits so far."""
        if self.mode.undecided is None or not layout.between:
            return layout
        return layout.refined(torch.cat([*patch_logits]), self.mode.undecided)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """``(H, W)`` that the windows are laid on, for a photograph of that height and width.

        The photograph's own where both sides reach the window. Else, with ``small="pad"``, the
        sides are brought to the window; with ``small="resize"`` both are scaled alike to
        `SMALL_AREA`, and further up if the short side is still under the window.

        Raises
        ------
        InputError
            If a long and thin image would have to be made too large.
        """
        if min(height, width) >= self.window:
            return height, width
        if self.card.small == "pad":
            return max(height, self.window), max(width, self.window)
        area = SMALL_AREA * (self.window / SMALL_AREA_WINDOW) ** 2
        scale = max((area / (height * width)) ** 0.5, self.window / min(height, width))
        new_height, new_width = (max(round(side * scale), self.window) for side in (height, width))
        if new_height * new_width > MAX_PIXELS:
            raise InputError(
                f"The image of {height}x{width} pixels is too thin to be resized to windows of "
                f"{self.window}; choose small='pad' for it."
            )
        return new_height, new_width

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image to its `working_size`; it is returned as it is where it has that."""
        size = self.working_size(*image.shape[:2])
        if size == image.shape[:2]:
            return image
        if self.card.small == "resize":
            return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
        below, right = size[0] - image.shape[0], size[1] - image.shape[1]
        # NumPy reflects again and again where the image is smaller than what is added.
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
