"""What was found in one photograph: a map that draws and saves itself, and knows its settings."""

import io
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.head import Small
from dinolizer.model.windows import Reduce
from dinolizer.paths import atomic

DRAWN_SIDE = 1000
"""Pixels a side is drawn with at most in a notebook."""


@dataclass(frozen=True, eq=False)
class Localization:
    """What was found in one photograph, and with which settings.

    Attributes
    ----------
    probability
        float32 ``(H, W)`` in [0, 1]: that the pixel was generated.
    mask
        bool ``(H, W)``: ``probability > threshold``.
    score
        99th percentile of the map, in [0, 1]: how likely there is an edit at all.
    image
        uint8 ``(H, W, 3)`` RGB, the photograph.
    source
        Its path, or empty.
    model, backbone_hash, head_hash
        Name of the backbone, and SHA-256 of its weights and of the head's.
    mode
        Key in `dinolizer.model.modes.MODES`.
    window, stride, threshold, reduce, small
        The settings, as in `HeadCard`.
    working_size
        ``(H, W)`` that the windows were laid on; another than the photograph's if it was small.
    passes, tokens
        Passes of the backbone that the map took, and patch tokens in all of them.
    seconds
        Time it took.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    score: float
    image: NDArray[np.uint8]
    source: str
    model: str
    backbone_hash: str
    head_hash: str
    mode: str
    window: int
    stride: int
    threshold: float
    reduce: Reduce
    small: Small
    working_size: tuple[int, int]
    passes: int
    tokens: int
    seconds: float

    @property
    def marked(self) -> float:
        """Share of the pixels that are marked, 0 to 1."""
        return float(self.mask.mean())

    def summary(self) -> dict[str, Any]:
        """Settings and score as they are saved; sizes are ``[height, width]``, in pixels."""
        settings = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("probability", "mask", "image")
        }
        return settings | {"marked": self.marked, "size": self.mask.shape}

    def save(self, directory: str | Path, stem: str) -> list[Path]:
        """Write ``<stem>.png`` (mask, 0 and 255), ``.npz`` (``probability`` float32 and ``mask``)
        and ``.json`` (`summary`), each whole or not at all; files of that name are replaced.

        Raises
        ------
        InputError
            If they cannot be written there.
        """
        png, npz, text = (Path(directory) / f"{stem}{end}" for end in (".png", ".npz", ".json"))
        try:
            write_image(png, self.mask.astype(np.uint8) * 255)
            with atomic(npz) as draft:
                np.savez_compressed(draft, probability=self.probability, mask=self.mask)
            with atomic(text) as draft:
                draft.write_text(json.dumps(self.summary(), indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"The result cannot be written to {directory} ({error.strerror or error}); give a "
                "folder that you may write to."
            ) from None
        return [png, npz, text]

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return buffer.getvalue()

    def figure(self) -> Figure:
        """Draw the photograph, the map, and the outline of the mask, side by side."""
        step = -(-max(self.mask.shape) // DRAWN_SIDE)
        image, probability, mask = (
            array[::step, ::step] for array in (self.image, self.probability, self.mask)
        )
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        axes = figure.subplots(1, 3)
        axes[0].imshow(image)
        axes[0].set_title("photograph")
        drawn = axes[1].imshow(probability, cmap="gray", vmin=0, vmax=1)
        axes[1].set_title("probability of generation")
        figure.colorbar(drawn, ax=axes[1], shrink=0.8)
        axes[2].imshow(image)
        axes[2].set_title(f"marked: {self.marked:.1%} (over {self.threshold:g})")
        if mask.any() and not mask.all() and min(mask.shape) > 1:
            # White under dashed black is seen on any photograph, and in grey.
            axes[2].contour(mask, levels=[0.5], colors="white", linewidths=2.5)
            axes[2].contour(mask, levels=[0.5], colors="black", linewidths=1, linestyles="dashed")
        for ax in axes:
            ax.set_axis_off()
        figure.suptitle(f"{self.model}: score {self.score:.2f}")
        return figure
