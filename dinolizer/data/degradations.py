"""What happens to an image between the edit and the eye: compression, noise and resizing.

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

SECOND_QUALITY = 85  # of double JPEG: what a sharing platform would typically apply (our choice)


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
    "double_jpeg": Degradation(
        label=f"first JPEG quality (second: {SECOND_QUALITY})",
        levels=(50, 60, 70, 80, 90, 100),
        source="first quality on the JPEG grid of IMDL-BenCo; the second quality is ours",
    ),
    "noise": Degradation(
        label="noise, standard deviation [grey levels]",
        levels=(3, 7, 11, 15, 19, 23),
        source="grid of IMDL-BenCo (Ma et al., NeurIPS 2024)",
    ),
    "resize": Degradation(
        label="resize factor",
        levels=(0.5, 0.75, 0.9, 1.1, 1.25, 1.5),
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
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise InputError(
            f"The JPEG quality is {quality}, but it must be a whole number from 1 to 100."
        )
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=int(quality), subsampling="4:2:0")
    return np.array(Image.open(encoded, formats=["JPEG"]))


def double_jpeg(
    image: NDArray[np.uint8], first: float, second: float = SECOND_QUALITY
) -> NDArray[np.uint8]:
    """Compress twice with JPEG, both times on the same 8x8 grid (no shift in between).

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    first, second : qualities from 1 to 100, in the order they are applied.
    """
    return jpeg(jpeg(image, first), second)


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


def resize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resize both sides by a factor: pixel areas averaged when shrinking, bicubic when enlarging.

    Parameters
    ----------
    image : uint8 (H, W, 3), RGB.
    scale : greater than 0; the sides become ``round(side * scale)``, at least one pixel.
    """
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, _scaled(image, scale), interpolation=interpolation))


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
        case "double_jpeg":
            return double_jpeg(image, level)
        case "noise":
            return gaussian_noise(image, level, np.random.default_rng(seed))
        case "resize":
            return resize(image, level)
    raise InputError(f"The degradation is {name!r}, but it must be one of {list(DEGRADATIONS)}.")


def degrade_mask(name: str, level: float, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bring a bool (H, W) mask to the frame of its degraded image."""
    return resize_mask(mask, level) if name == "resize" else mask


def _scaled(array: NDArray[np.generic], scale: float) -> tuple[int, int]:
    """(width, height) after scaling, the order OpenCV wants."""
    if not 0 < scale < np.inf:
        raise InputError(f"The resize factor is {scale}, but it must be greater than 0.")
    height, width = array.shape[:2]
    return max(1, round(width * scale)), max(1, round(height * scale))
