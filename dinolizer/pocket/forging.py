"""The forger: from a photograph and a seed to a forgery whose every pixel's history is known."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic
from torch.nn import functional as F

from dinolizer.data.degradations import gaussian_noise, jpeg
from dinolizer.errors import InputError
from dinolizer.paths import ASSETS
from dinolizer.pocket.generators import DOWNSAMPLING, AutoEncoder, load_generator

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

CLASSICAL = ("telea", "navier-stokes", "biharmonic")
LEARNED = ("autoencoder", "inpainter", "heldout")
FAMILIES = CLASSICAL + LEARNED
HELD_OUT = "heldout"
MAKERS = {"real": ("none",), "sp": FAMILIES, "fr": LEARNED, "reencoded": LEARNED}
"""From each kind to the generators that can make it: a photograph as it is; edited content spliced
into the original; a whole image out of the generator, edited; the same without an edit."""
CASES = [(generator, kind) for kind, makers in MAKERS.items() for generator in makers]
CONDITIONS = ("clean", "jpeg", "noise")

INPAINT_RADIUS = 3
"""Neighbourhood of OpenCV's inpainting methods, in pixels."""
GENERATION_NOISE = 0.2
"""Noise on generated latents, as a share of each channel's spread: no encoder has made them."""
GRAIN_SIGMA = 1.0
"""Standard deviation of the Gaussian that separates grain from content, in pixels."""
RING = 16
"""Width of the surroundings whose grain is matched, in pixels."""
SHAPES = ("blob", "ellipse", "box")
AREA_RANGE = (0.01, 0.60)
"""Share of the image that is edited: log-uniform between these bounds."""


class Forgery(NamedTuple):
    """An image, uint8 ``(H, W, 3)`` RGB, and a mask, bool ``(H, W)``, True where its content was
    generated: nowhere for a re-encoded image."""

    image: Image
    mask: Mask


def forge(
    photo: Image,
    generator: str,
    kind: str,
    *,
    seed: int | list[int],
    foreign: Image | None = None,
    grain: bool = False,
    condition: str = "clean",
    assets: Path = ASSETS,
) -> Forgery:
    """Forge a photograph; the same arguments give the same forgery.

    The photograph is uint8 ``(H, W, 3)`` RGB, both sides multiples of 8; ``generator`` and ``kind``
    are one of `CASES`. The seed decides the mask, the noise and the compression. An auto-encoder
    fills the mask with the content of ``foreign``, of the same size (by default the mirrored
    photograph). ``grain`` matches the region's grain to its surroundings. The condition is
    ``clean``, ``jpeg`` (quality 75 to 95) or ``noise`` (standard deviation 1 to 3 grey levels).
    ``assets`` has the generators' weights. Raises InputError for any other case, condition or size.
    """
    _check(photo, generator, kind, condition)
    rng = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    image, mask = photo, np.zeros((height, width), bool)
    if kind in ("sp", "fr"):
        mask = random_mask(height, width, log_uniform_area(rng), rng)
    if kind != "real":
        content = photo[:, ::-1] if foreign is None else foreign
        image = synthesise(photo, mask, generator, content, rng, assets)
    if kind == "sp":
        image = np.where(mask[..., None], image, photo)
    if grain and mask.any():
        image = match_grain(image, mask, rng)
    if condition == "jpeg":
        image = jpeg(image, int(rng.integers(75, 96)))
    elif condition == "noise":
        image = gaussian_noise(image, rng.uniform(1, 3), rng)
    return Forgery(image, mask)


def synthesise(
    photo: Image,
    mask: Mask,
    generator: str,
    foreign: Image,
    rng: np.random.Generator,
    assets: Path = ASSETS,
) -> Image:
    """Return what a generator asked to fill a mask puts out, before any splicing.

    A classical method changes the mask only. A learned one, with weights in ``assets``,
    re-synthesises every pixel: an auto-encoder decodes the photograph's latents, and inside the
    mask those of ``foreign`` with noise added.
    """
    if generator in CLASSICAL:
        return _inpaint_classically(photo, mask, generator)
    net = load_generator(generator, assets)
    hole = torch.from_numpy(mask)[None, None].float()
    with torch.inference_mode():
        if isinstance(net, AutoEncoder):
            kept, other = net.encode(_to_tensor(photo)), net.encode(_to_tensor(foreign))
            noise = rng.standard_normal(other.shape, dtype=np.float32)
            spread = other.std(dim=(2, 3), keepdim=True)
            other = other + GENERATION_NOISE * spread * torch.from_numpy(noise)
            inside = F.max_pool2d(hole, DOWNSAMPLING) > 0
            output = net.decode(torch.where(inside, other, kept))
        else:
            output = net(_to_tensor(photo), hole)
    return _to_image(output)


def match_grain(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Bring the high-frequency energy of a region to that of the ring around it.

    Grain is the residual of a Gaussian blur. Where the region has less than its surroundings,
    high-passed white noise makes up the difference; where it has more, it is scaled down. Each
    colour channel is matched by itself.
    """
    kernel = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    ring = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool) & ~mask
    if not ring.any():
        return image
    content = cv2.GaussianBlur(image.astype(np.float32), (0, 0), GRAIN_SIGMA)
    residual = image - content
    wanted = residual[ring].var(axis=0)
    present = residual[mask].var(axis=0)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise -= cv2.GaussianBlur(noise, (0, 0), GRAIN_SIGMA)
    noise /= noise.std()
    scaled = residual * np.sqrt(np.minimum(1, wanted / np.maximum(present, 1e-6)))
    grained = content + scaled + noise * np.sqrt(np.maximum(0, wanted - present))
    return np.where(mask[..., None], _round(grained), image)


def log_uniform_area(rng: np.random.Generator, bounds: tuple[float, float] = AREA_RANGE) -> float:
    """Draw the share of the image that is edited."""
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))


def random_mask(
    height: int, width: int, area: float, rng: np.random.Generator, shape: str | None = None
) -> Mask:
    """Draw a mask, bool ``(height, width)``, True inside, that covers a given share of the image.

    This area, in (0, 1), is met exactly, up to ties, by keeping the highest pixels of a smooth
    field. The shape is one of `SHAPES`, drawn if absent.
    """
    shape = shape or str(rng.choice(SHAPES))
    field = _mask_field(shape, height, width, area, rng)
    count = max(1, round(area * height * width))
    threshold = np.partition(field, -count, axis=None)[-count]
    return field >= threshold


def _mask_field(
    shape: str, height: int, width: int, area: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a field whose upper level sets are the wanted shape, inside the image."""
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    half = np.sqrt(area / np.pi if shape == "ellipse" else area / 4)
    # Half sides as shares of the image; the centre keeps the shape inside where that is possible.
    half_y = min(half * aspect, 0.5)
    half_x = min(half / aspect, 0.5)
    y = (np.arange(height)[:, None] + 0.5) / height - rng.uniform(half_y, 1 - half_y)
    x = (np.arange(width)[None, :] + 0.5) / width - rng.uniform(half_x, 1 - half_x)
    # A hair of the other axis breaks ties between the rows or columns of a box.
    if shape == "box":
        return -np.maximum(np.abs(y) / half_y, np.abs(x) / half_x) - 1e-6 * (np.abs(y) + np.abs(x))
    distance = -np.hypot(y / half_y, x / half_x)
    if shape == "ellipse":
        return distance
    noise = rng.standard_normal((height, width))
    sigma = max(2.0, 0.35 * half * min(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return distance + 0.6 * smooth / smooth.std()


def _check(photo: Image, generator: str, kind: str, condition: str) -> None:
    if condition not in CONDITIONS:
        raise InputError(f"The condition is {condition!r}, but it must be one of {CONDITIONS}.")
    if kind not in MAKERS:
        raise InputError(f"The kind is {kind!r}, but it must be one of {tuple(MAKERS)}.")
    if generator not in MAKERS[kind]:
        raise InputError(
            f"The generator is {generator!r}, but the kind {kind!r} takes one of {MAKERS[kind]}."
        )
    if photo.shape[0] % DOWNSAMPLING or photo.shape[1] % DOWNSAMPLING:
        raise InputError(
            f"The photograph is {photo.shape[0]} x {photo.shape[1]} pixels, but both sides must be "
            f"multiples of {DOWNSAMPLING}; crop it first."
        )


def _inpaint_classically(photo: Image, mask: Mask, generator: str) -> Image:
    if generator == "biharmonic":
        return _round(255 * inpaint_biharmonic(photo, mask, channel_axis=-1))
    method = cv2.INPAINT_TELEA if generator == "telea" else cv2.INPAINT_NS
    filled = cv2.inpaint(photo, mask.astype(np.uint8), INPAINT_RADIUS, method)
    return np.asarray(filled, np.uint8)


def _to_tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def _to_image(output: torch.Tensor) -> Image:
    return _round(255 * output[0].permute(1, 2, 0).numpy())


def _round(values: NDArray[np.floating]) -> Image:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
