"""What a photograph has been through before an edit, and what a picture goes through after it.

Most photographs on the web are JPEG files with chroma subsampled, often resized or stored more than
once; what a generator fills in has never been through that. Wiping out a photograph's history, or
giving the same one to both, teaches a detector the wrong sign.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from dinolizer.data.degradations import Pixels, blur, gaussian_noise, jpeg, webp

KERNELS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
GRID = 16
"""Side of the blocks of a JPEG file with chroma subsampled, in pixels: crops start anywhere."""
SHARINGS = {"none": 0.45, "jpeg": 0.25, "webp": 0.07, "resize": 0.13, "noise": 0.05, "blur": 0.05}
"""What is done to a finished picture, and how often."""
RESIZING = (0.75, 1.3)


def resized(image: Pixels, scale: float, rng: np.random.Generator, least: int = 1) -> Pixels:
    """Resize by a factor and a random kernel; no side ends under ``least`` pixels."""
    scale = max(scale, least / min(image.shape[:2]))
    kernel = KERNELS[int(rng.integers(scale >= 1, len(KERNELS)))]  # areas are for shrinking
    size = [max(least, round(length * scale)) for length in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=kernel), np.uint8)


def crop(image: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Cut a random square, mirrored at random."""
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)


def past(photo: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """A square crop of a photograph with a history: resized (up as well as down), the noise of a
    sensor, stored as JPEG at some quality with the blocks anywhere; one in four of them twice.

    Nine in ten are JPEG files, of which 85 % with chroma at half the resolution in both directions.
    """
    image = resized(photo, rng.uniform(0.65, 1.3), rng, side + 2 * GRID)
    image = crop(image, side + 2 * GRID, rng)
    if rng.random() < 0.4:
        image = gaussian_noise(image, rng.uniform(0.3, 2.5), rng)
    for _ in range(1 + (rng.random() < 0.25)):
        if rng.random() < 0.9:
            subsampling = "4:2:0" if rng.random() < 0.85 else "4:4:4"
            image = jpeg(image, int(rng.integers(70, 98)), subsampling)
        image = crop(image, image.shape[0] - int(rng.integers(1, GRID + 1)), rng)
    return crop(image, side, rng)


def shared(images: Sequence[Pixels], way: str, side: int, rng: np.random.Generator) -> list[Pixels]:
    """Put twins of one size through the same sharing, of `SHARINGS`, and cut the same square."""
    seed, level = int(rng.integers(2**32)), rng.random()
    subsampling = "4:2:0" if rng.random() < 0.7 else "4:4:4"
    corner = rng.random(2)

    def share(image: Pixels) -> Pixels:
        again = np.random.default_rng(seed)
        if way == "resize":
            low, high = RESIZING
            image = resized(image, low + level * (high - low), again, side)
        top, left = (int(c * (n - side + 1)) for c, n in zip(corner, image.shape[:2], strict=True))
        image = np.ascontiguousarray(image[top : top + side, left : left + side])
        match way:
            case "jpeg":
                return jpeg(image, round(65 + 33 * level), subsampling)
            case "webp":
                return webp(image, round(70 + 28 * level))
            case "noise":
                return gaussian_noise(image, 0.5 + 4.5 * level, again)
            case "blur":
                return blur(image, 3)
        return image

    return [share(image) for image in images]
