"""What happens to an image between the edit and the eye: compression, noise, blur and resizing.

Every function takes and returns a uint8 (H, W, 3) RGB image and is deterministic, given its seed.
``DEGRADATIONS`` holds the levels at which the robustness curves are drawn.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinolizer.errors import InputError

Step = tuple[str, float]
"""One degradation, a key of `DEGRADATIONS`, and its level."""


@dataclass(frozen=True)
class Degradation:
    """A degradation's robustness curve: its axis and the levels on it."""

    label: str
    levels: tuple[float, ...]
    source: str


DEGRADATIONS = {
    "jpeg": Degradation(
        label="JPEG quality",
        levels=(50, 60, 70, 80, 90, 100),
        source="grid of IMDL-BenCo (Ma et al., NeurIPS 2024)",
    ),
    "webp": Degradation(
        label="WEBP quality",
        levels=(60, 80, 90),
        source="60 and 80 as TGIF (Mareen et al., WIFS 2024); 90 is ours",
    ),
    "noise": Degradation(
        label="noise, standard deviation [grey levels]",
        levels=(3, 7, 11, 15, 19, 23),
        source="grid of IMDL-BenCo (Ma et al., NeurIPS 2024)",
    ),
    "blur": Degradation(
        label="Gaussian blur, side of the kernel [pixels]",
        levels=(3, 7, 11, 15, 19, 23),
        source="grid of IMDL-BenCo (Ma et al., NeurIPS 2024)",
    ),
    "resize": Degradation(
        label="resize factor",
        levels=(0.5, 0.75, 0.9, 1.1, 1.5),
        source="a grid of ours",
    ),
    "rescale": Degradation(
        label="resize factor, and back to the first size",
        levels=(0.5, 0.75, 0.9),
        source="a grid of ours",
    ),
}


def jpeg(image: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Encode as baseline JPEG and decode again.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    quality : 1 to 100, the libjpeg scale; chroma is subsampled 4:2:0, libjpeg's default.

    Returns
    -------
    uint8 (H, W, 3), RGB.

    Raises
    ------
    InputError
        If the quality is not a whole number from 1 to 100.
    """
    return _encode(image, "JPEG", quality, subsampling="4:2:0")


def webp(image: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Encode as lossy WEBP and decode again.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    quality : 1 to 100, the scale of libwebp; chroma is always subsampled 4:2:0.

    Returns
    -------
    uint8 (H, W, 3), RGB.

    Raises
    ------
    InputError
        If the quality is not a whole number from 1 to 100.
    """
    return _encode(image, "WEBP", quality)


def gaussian_noise(
    image: NDArray[np.uint8], std: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add white Gaussian noise, independent in every pixel and channel, rounded and clipped.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    std : standard deviation in grey levels (of 0 to 255), before clipping.
    rng : the source of randomness.
    """
    if std < 0:
        raise InputError(f"The noise level is {std}, but a standard deviation is at least 0.")
    noisy = image + std * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur(image: NDArray[np.uint8], side: float) -> NDArray[np.uint8]:
    """Blur with a square Gaussian kernel, mirrored at the edges.

    The standard deviation is the one that OpenCV takes for a kernel of that side,
    ``0.3 * ((side - 1) / 2 - 1) + 0.8`` pixels (`cv2.getGaussianKernel`; for sides up to 7 its
    binomial kernels, which are close to that).

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    side : of the kernel in pixels, odd.

    Raises
    ------
    InputError
        If the side is not an odd whole number of at least 1.
    """
    if side < 1 or side % 2 != 1:
        raise InputError(f"The blur's kernel is {side}, but it must be an odd number of pixels.")
    return np.asarray(cv2.GaussianBlur(image, (int(side), int(side)), 0))


def resize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resize both sides by a factor: pixel areas averaged when shrinking, bicubic when enlarging.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    scale : greater than 0; the sides become ``round(side * scale)``, at least one pixel.
    """
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
    """Apply one degradation of ``DEGRADATIONS`` at a level (which need not be on its grid).

    Parameters
    ----------
    name : a key of ``DEGRADATIONS``.
    level : in the unit of the degradation's label.
    image : uint8 (H, W, 3), RGB.
    seed : of the noise; the same seed draws the same noise pattern at every level.

    Returns
    -------
    uint8 (H, W, 3); (H, W) changes under ``"resize"`` only, see `degrade_mask`.
    """
    match name:
        case "jpeg":
            return jpeg(image, level)
        case "webp":
            return webp(image, level)
        case "noise":
            return gaussian_noise(image, level, np.random.default_rng(seed))
        case "blur":
            return blur(image, level)
        case "resize":
            return resize(image, level)
        case "rescale":
            return rescale(image, level)
    raise InputError(f"The degradation is {name!r}, but it must be one of {list(DEGRADATIONS)}.")


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
