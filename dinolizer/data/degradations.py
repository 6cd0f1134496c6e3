"""What happens to an image, uint8 (H, W, 3) RGB, between the edit and the eye: compression, noise,
blur and resizing. A level that makes no sense is an `InputError`."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinolizer.errors import InputError

Pixels = NDArray[np.uint8]
Step = tuple[str, float]
"""One degradation, a key of `DEGRADATIONS`, and its level."""
IMDL_BENCO = "grid of IMDL-BenCo (Ma et al., NeurIPS 2024)"


@dataclass(frozen=True)
class Degradation:
    """A degradation's robustness curve: its axis and the levels on it."""

    label: str
    levels: tuple[float, ...]
    source: str


DEGRADATIONS = {
    "jpeg": Degradation("JPEG quality", (50, 60, 70, 80, 90, 100), IMDL_BENCO),
    "webp": Degradation(
        *("WEBP quality", (60, 80, 90)),
        source="60 and 80 as TGIF (Mareen et al., WIFS 2024); 90 is ours",
    ),
    "noise": Degradation(
        "noise, standard deviation [grey levels]", (3, 7, 11, 15, 19, 23), IMDL_BENCO
    ),
    "blur": Degradation(
        "Gaussian blur, side of the kernel [pixels]", (3, 7, 11, 15, 19, 23), IMDL_BENCO
    ),
    "resize": Degradation("resize factor", (0.5, 0.75, 0.9, 1.1, 1.5), "a grid of ours"),
    "rescale": Degradation(
        "resize factor, and back to the first size", (0.5, 0.75, 0.9), "a grid of ours"
    ),
}
"""The levels at which the robustness curves are drawn."""


def jpeg(image: Pixels, quality: float, subsampling: str = "4:2:0") -> Pixels:
    """Encode as baseline JPEG, quality 1 to 100 as libjpeg's, and decode again."""
    return _encode(image, "JPEG", quality, subsampling=subsampling)


def webp(image: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Encode as lossy WEBP, quality 1 to 100 as libwebp's, and decode again."""
    return _encode(image, "WEBP", quality)


def gaussian_noise(
    image: NDArray[np.uint8], std: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add white Gaussian noise of ``std`` grey levels (of 0 to 255), independent in every pixel and
    channel; then round and clip."""
    if std < 0:
        raise InputError(f"The noise level is {std}, but a standard deviation is at least 0.")
    noisy = image + std * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur(image: NDArray[np.uint8], side: float) -> NDArray[np.uint8]:
    """Blur with a square Gaussian kernel of an odd side in pixels, mirrored at the edges. The
    standard deviation is `cv2.getGaussianKernel`'s, ``0.3 * ((side - 1) / 2 - 1) + 0.8`` pixels (up
    to side 7 that of a binomial kernel, which is close)."""
    if side < 1 or side % 2 != 1:
        raise InputError(f"The blur's kernel is {side}, but it must be an odd number of pixels.")
    return np.asarray(cv2.GaussianBlur(image, (int(side), int(side)), 0))


def resize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resize both sides to ``round(side * scale)``, at least one pixel: areas averaged when
    shrinking, bicubic when enlarging."""
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, _scaled(image, scale), interpolation=interpolation))


def rescale(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resize as `resize` does, and back to the first size; the mask stays where it is."""
    height, width = image.shape[:2]
    interpolation = cv2.INTER_CUBIC if scale < 1 else cv2.INTER_AREA
    back = cv2.resize(resize(image, scale), (width, height), interpolation=interpolation)
    return np.asarray(back)


def resize_mask(mask: NDArray[np.bool_], scale: float) -> NDArray[np.bool_]:
    """Resize a bool (H, W) mask as `resize` does its image, by the nearest pixel centre."""
    resized = cv2.resize(
        mask.astype(np.uint8), _scaled(mask, scale), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.asarray(resized, dtype=bool)


def degrade(name: str, level: float, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Apply one of `DEGRADATIONS` at a level in its label's unit, on its grid or not. One seed
    draws the same noise at every level; only ``"resize"`` changes (H, W), see `degrade_mask`."""
    if name == "noise":
        return gaussian_noise(image, level, np.random.default_rng(seed))
    functions = {"jpeg": jpeg, "webp": webp, "blur": blur, "resize": resize, "rescale": rescale}
    if name not in functions:
        raise InputError(
            f"The degradation is {name!r}, but it must be one of {list(DEGRADATIONS)}."
        )
    return functions[name](image, level)


def degrade_mask(name: str, level: float, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bring a bool (H, W) mask to the frame of its degraded image."""
    return resize_mask(mask, level) if name == "resize" else mask


def _encode(
    image: NDArray[np.uint8], codec: str, quality: float, **options: object
) -> NDArray[np.uint8]:
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise InputError(
            f"The {codec} quality is {quality}, but it must be a whole number from 1 to 100."
        )
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, codec, quality=int(quality), **options)
    return np.array(Image.open(encoded, formats=[codec]))


def _scaled(array: NDArray[np.generic], scale: float) -> tuple[int, int]:
    """(width, height) after scaling, the order OpenCV wants."""
    if not 0 < scale < np.inf:
        raise InputError(f"The resize factor is {scale}, but it must be greater than 0.")
    height, width = array.shape[:2]
    return max(1, round(width * scale)), max(1, round(height * scale))
