"""What was found in one photograph: a map that draws and saves itself, and knows its settings."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dinolizer
from dinolizer.data.images import palette_png, write_image
from dinolizer.errors import writing
from dinolizer.model.windows import Plan
from dinolizer.paths import atomic, check_outputs, file_name, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_SIDE = 1000
"""Pixels a side is drawn with at most in a notebook."""
SCORE_QUANTILE = 0.99
SMALLEST = 32
"""Pixels of a side under which a picture is too small to be told."""
MOSTLY = 0.5
"""Share of a picture over which, being flat, it cannot be told."""
# Second difference in both directions: blind to constant and linear shading (Immerkaer 1996).
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
BLUE = (0.35, 0.6, 1.0)


@dataclass(frozen=True, eq=False)
class Localization:
    """What was found in one photograph, and with which settings."""

    probability: NDArray[np.float32]  #: (H, W) in [0, 1], that the pixel was generated
    mask: NDArray[np.bool_]  #: (H, W), where the probability is over the threshold
    score: float  #: 99th percentile of the map, in [0, 1], before any bicubic restoration
    image: NDArray[np.uint8]  #: the photograph, (H, W, 3) RGB
    source: str  #: its path, or ""
    plan: Plan  #: where the windows were laid, and how many
    settings: Mapping[str, Any]  #: see `Localizer.settings`
    seconds: float  #: time it took
    #: Share of the untouched photographs in the head's card that score lower, where it is known.
    rank: float | None = None
    unlike: str = ""  #: in what the photograph is too much so to have a rank, `HeadCard.unlike`
    #: See `dinolizer.data.images.file_facts`; empty where there is no path.
    file: Mapping[str, Any] = field(default_factory=dict)
    #: When it was made, in UTC.
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def threshold(self) -> float:
        """Probability over which a pixel is in the mask."""
        return float(self.settings["threshold"])

    @property
    def predicted_area(self) -> float:
        """Share of the pixels that are in the mask, 0 to 1."""
        return float(self.mask.mean())

    @cached_property  # saved, said and drawn: the picture is looked through once
    def flat(self) -> NDArray[np.bool_]:
        """Where nothing can be told, bool ``(H, W)``: in squares of the size of a patch in which no
        pixel differs from its neighbours, as where colours are clipped, drawn or very smooth."""
        near = np.ones((3, 3), np.uint8)
        spread = cv2.morphologyEx(self.image, cv2.MORPH_GRADIENT, near).max(axis=2)
        patch = np.ones((self.plan.patch | 1,) * 2, np.uint8)  # odd: it has a middle
        return cv2.morphologyEx((spread == 0).astype(np.uint8), cv2.MORPH_OPEN, patch) > 0

    @property
    def meaning(self) -> str:
        """What the score says, in words, or why nothing can be told by it."""
        if min(self.mask.shape) < SMALLEST:
            return f"cannot tell: a side is under {SMALLEST} pixels"
        if (flat := self.flat.mean()) > MOSTLY:
            return f"cannot tell: {flat:.0%} of the picture is flat"
        if self.unlike:
            return f"cannot tell: {self.unlike}"
        if self.rank is None:
            return "not calibrated"
        count = self.settings["untouched"]
        return f"higher than {self.rank * count:.0f} of {count} untouched photographs"

    def summary(self) -> dict[str, Any]:
        """File, settings and score as they are saved; sizes are ``[height, width]``, in pixels."""
        return dict(self.settings) | {
            "version": dinolizer.__version__,
            "date": self.date,
            "source": self.source,
            **self.file,
            "score": self.score,
            "rank": self.rank,
            "meaning": self.meaning,
            "flat": float(self.flat.mean()),
            "predicted_area": self.predicted_area,
            "size": self.plan.size,
            "working_size": self.plan.fitted,
            "passes": self.plan.passes,
            "tokens": self.plan.tokens,
            "seconds": self.seconds,
        }

    def save(
        self, directory: str | Path, name: str, *, overwrite: bool = False
    ) -> tuple[Path, Path, Path]:
        """Write mask, map and summary to `result_paths`, each whole or not at all.

        The mask is a PNG (0 and 255) with model, licence and caution in its metadata, the map an
        NPZ (``probability`` float32, ``mask``), the `summary` JSON. Raises `InputError` where they
        cannot be written, are there and not to be overwritten, or would replace the photograph."""
        paths = png, npz, text = result_paths(directory, name)
        source = Path(self.source) if self.source else None
        check_outputs(paths, inputs=[source], overwrite=overwrite)
        with writing(directory):
            texts = {name: str(self.settings[name]) for name in ("model", "licence", "caution")}
            write_image(png, self.mask, texts)
            with atomic(npz) as draft:
                np.savez_compressed(draft, probability=self.probability, mask=self.mask)
            write_file(text, json.dumps(self.summary(), indent=1) + "\n")
        return paths

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return palette_png(buffer.getvalue())

    def figure(self) -> "Figure":
        """Draw the photograph, the map, and the outline of the mask, side by side."""
        from matplotlib.figure import Figure  # here: most maps are never drawn

        step = -(-max(self.mask.shape) // DRAWN_SIDE)
        arrays = (self.image, self.probability, self.mask, self.flat)
        image, probability, mask, flat = (array[::step, ::step] for array in arrays)
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        axes = figure.subplots(1, 3)
        axes[0].imshow(image)
        axes[0].set_title("photograph")
        drawn = axes[1].imshow(probability, cmap="gray", vmin=0, vmax=1)
        axes[1].imshow(np.dstack([np.full((*flat.shape, 3), BLUE), flat]))
        blue = ", blue: cannot tell" if flat.any() else ""
        axes[1].set_title(f"probability{blue or ' of generation'}")
        figure.colorbar(drawn, ax=axes[1], shrink=0.8)
        axes[2].imshow(image)
        axes[2].set_title(f"predicted area: {self.predicted_area:.1%} (over {self.threshold:.3g})")
        if mask.any() and not mask.all() and min(mask.shape) > 1:
            # White under dashed black is seen on any photograph, and in grey.
            axes[2].contour(mask, levels=[0.5], colors="white", linewidths=2.5)
            axes[2].contour(mask, levels=[0.5], colors="black", linewidths=1, linestyles="dashed")
        for ax in axes:
            ax.set_axis_off()
        figure.suptitle(f"{self.settings['model']}: score {self.score:.2f}, {self.meaning}")
        figure.supxlabel(f"{self.settings['caution']} Licence: {self.settings['licence']}.", size=7)
        return figure


def result_paths(directory: str | Path, name: str) -> tuple[Path, Path, Path]:
    """Files of a result: ``NAME.mask.png``, ``NAME.map.npz`` and ``NAME.json``."""
    folder = Path(directory)
    mask, array, text = (file_name(name, end) for end in (".mask.png", ".map.npz", ".json"))
    return folder / mask, folder / array, folder / text


def noise_level(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise of an image, uint8 ``(H, W, 3)``, in grey levels; texture
    counts as noise: ``sqrt(pi / 2) * mean |residual| / 6`` (Immerkaer, "Fast noise variance
    estimation", CVIU 64, 1996)."""
    strips = np.array_split(image, -(-len(image) // 512))  # residuals take twice the memory
    residuals = (cv2.filter2D(strip, cv2.CV_16S, NOISE_KERNEL) for strip in strips)
    return (np.pi / 2) ** 0.5 / 6 * sum(cv2.norm(of, cv2.NORM_L1) for of in residuals) / image.size


def gathered(strips: Iterable[Tensor], size: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """Map and score, as in `Localization`, from strips of the map, float32 ``(n, W)``."""
    probability = np.empty(size, np.float32)
    first = 0
    for strip in strips:
        probability[first : first + len(strip)] = strip.cpu()
        first += len(strip)
    # As numpy.quantile's default has it, between two neighbours in order; but in float64.
    below, between = divmod(SCORE_QUANTILE * (probability.size - 1), 1)
    pair = [int(below), min(int(below) + 1, probability.size - 1)]
    low, high = np.partition(probability, pair, axis=None)[pair].tolist()
    return probability, low + between * (high - low)
