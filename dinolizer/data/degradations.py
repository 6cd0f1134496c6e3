"""What happens to an image, uint8 (H, W, 3) RGB, between the edit and the eye: compression, noise,
blur and resizing. A level that makes no sense is an `InputError`."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinolizer.errors import InputError, check_choice, refuse

Pixels = NDArray[np.uint8]
Step = tuple[str, float]  # a key of `DEGRADATIONS`, and its level
BENCO = "grid of IMDL-BenCo (Ma et al., NeurIPS 2024)"
TGIF = "60 and 80 as TGIF (Mareen et al., WIFS 2024); 90 is ours"
ODD = (3, 7, 11, 15, 19, 23)


class Degradation(NamedTuple):
    """A degradation's robustness curve: its axis, the levels on it, and where they are from."""

    label: str
    levels: tuple[float, ...]
    source: str = "a grid of ours"


DEGRADATIONS = {
    "jpeg": Degradation("JPEG quality", (50, 60, 70, 80, 90, 100), BENCO),
    "webp": Degradation("WEBP quality", (60, 80, 90), TGIF),
    "noise": Degradation("noise, standard deviation [grey levels]", ODD, BENCO),
    "blur": Degradation("Gaussian blur, side of the kernel [pixels]", ODD, BENCO),
    "resize": Degradation("resize factor", (0.5, 0.75, 0.9, 1.1, 1.5)),
    "rescale": Degradation("resize factor, then back to the original size", (0.5, 0.75, 0.9)),
}


def jpeg(image: Pixels, quality: float, subsampling: str = "4:2:0") -> Pixels:
    """Encode as baseline JPEG, quality 1 to 100 as libjpeg's, and decode again."""
    return _encode(image, "JPEG", quality, subsampling=subsampling)


def webp(image: Pixels, quality: float) -> Pixels:
    """Encode as lossy WEBP, quality 1 to 100 as libwebp's, and decode again."""
    return _encode(image, "WEBP", quality)


def _encode(image: Pixels, codec: str, quality: float, **options: object) -> Pixels:
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise InputError(f"The {codec} quality is {quality}, but it must be one of 1, 2, ... 100.")
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, codec, quality=int(quality), **options)
    return np.array(Image.open(encoded, formats=[codec]))


def gaussian_noise(image: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    """Add white Gaussian noise of ``std`` grey levels of 0 to 255; then round and clip."""
    refuse({f"The noise level is {std}, but a standard deviation is at least 0.": std < 0})
    return to_uint8(image + std * rng.standard_normal(image.shape, dtype=np.float32))


def to_uint8(values: NDArray[np.floating]) -> Pixels:
    """Round and clip grey levels."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blur(image: Pixels, side: float) -> Pixels:
    """Blur with a square Gaussian kernel of an odd side in pixels, mirrored at the edges, of the
    standard deviation of `cv2.getGaussianKernel`, ``0.3 * ((side - 1) / 2 - 1) + 0.8`` or so."""
    if side < 1 or side % 2 != 1:
        raise InputError(f"The blur's kernel is {side}, but it must be an odd number of pixels.")
    return np.asarray(cv2.GaussianBlur(image, (int(side), int(side)), 0))


def resize(image: Pixels, scale: float, interpolation: int | None = None) -> Pixels:
    """Resize both sides to ``round(side * scale)``, at least one pixel: areas averaged when
    shrinking, bicubic when enlarging, unless one of OpenCV's interpolations is named."""
    if not 0 < scale < np.inf:
        raise InputError(f"The resize factor is {scale}, but it must be greater than 0.")
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    if interpolation is None:
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def rescale(image: Pixels, scale: float) -> Pixels:
    """Resize as `resize` does, and back to the first size; the mask stays where it is."""
    small, interpolation = resize(image, scale), cv2.INTER_CUBIC if scale < 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=interpolation), np.uint8)


def degrade(name: str, level: float, image: Pixels, seed: int) -> Pixels:
    """Apply one of `DEGRADATIONS` at a level in its label's unit, on its grid or not. One seed
    draws the same noise at every level; only ``"resize"`` changes (H, W), see `degrade_mask`."""
    check_choice("degradation", name, DEGRADATIONS)
    if name == "noise":
        return gaussian_noise(image, level, np.random.default_rng(seed))
    functions = {"jpeg": jpeg, "webp": webp, "blur": blur, "resize": resize, "rescale": rescale}
    return functions[name](image, level)


def degrade_mask(name: str, level: float, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bring a bool (H, W) mask to the frame of its degraded image, by the nearest pixel centre."""
    if name != "resize":
        return mask
    return resize(mask.astype(np.uint8), level, cv2.INTER_NEAREST_EXACT).astype(bool)
