"""The forger: from a photograph and a seed to a forgery whose every pixel's history is known."""

from dataclasses import dataclass
from pathlib import Path

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
from dinolizer.pocket.masks import log_uniform_area, random_mask

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

CLASSICAL = ("telea", "navier-stokes", "biharmonic")
LEARNED = ("autoencoder", "inpainter", "heldout")
FAMILIES = CLASSICAL + LEARNED
HELD_OUT = "heldout"
CONDITIONS = ("clean", "jpeg", "noise")

INPAINT_RADIUS = 3
"""Neighbourhood of OpenCV's inpainting methods, in pixels."""
GENERATION_NOISE = 0.2
"""Noise on generated latents, as a share of each channel's spread: no encoder has made them."""
GRAIN_SIGMA = 1.0
"""Standard deviation of the Gaussian that separates grain from content, in pixels."""
RING = 16
"""Width of the surroundings whose grain is matched, in pixels."""


@dataclass(frozen=True)
class Forgery:
    """An image, and what was done to it.

    Attributes
    ----------
    image
        uint8 ``(H, W, 3)`` RGB.
    mask
        bool ``(H, W)``, True where the content was generated; nowhere for a re-encoded image.
    generator
        One of `FAMILIES`, or ``"none"`` for a photograph.
    kind
        ``real``, ``sp`` (spliced into the original), ``fr`` (the whole image comes out of the
        generator) or ``reencoded`` (so does this one, but nothing was edited).
    grain
        Whether the grain of the region was brought to that of its surroundings.
    condition
        One of `CONDITIONS`: how the image is met.
    """

    image: Image
    mask: Mask
    generator: str
    kind: str
    grain: bool
    condition: str


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

    Parameters
    ----------
    photo
        uint8 ``(H, W, 3)`` RGB, both sides multiples of 8.
    generator
        One of `FAMILIES`, or ``"none"`` with the kind ``real``.
    kind
        ``real``, ``sp``, ``fr`` or ``reencoded``; the last two need a learned generator.
    seed
        Decides the mask, the noise and the compression.
    foreign
        A photograph of the same size: the content that an auto-encoder puts into the mask. The
        mirrored photograph itself if absent.
    grain
        Match the grain of the region to that of its surroundings.
    condition
        ``clean``, ``jpeg`` (quality 75 to 95) or ``noise`` (standard deviation 1 to 3 grey levels).
    assets
        Folder of the learned generators' weights.

    Raises
    ------
    InputError
        If the generator cannot make that kind, or a name is unknown.
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
    return Forgery(image, mask, generator, kind, grain, condition)


def synthesise(
    photo: Image,
    mask: Mask,
    generator: str,
    foreign: Image,
    rng: np.random.Generator,
    assets: Path = ASSETS,
) -> Image:
    """Return what comes out of a generator asked to fill a mask, before any splicing.

    A classical method changes the mask only. A learned one re-synthesises every pixel; an
    auto-encoder decodes the latents of the photograph, and inside the mask those of the foreign
    photograph with noise added. The weights of the learned ones are found in the folder ``assets``.
    """
    if generator in CLASSICAL:
        return _inpaint_classically(photo, mask, generator)
    net = load_generator(generator, assets)
    hole = torch.from_numpy(mask)[None, None].float()
    with torch.inference_mode():
        if isinstance(net, AutoEncoder):
            own, other = net.encode(_to_tensor(photo)), net.encode(_to_tensor(foreign))
            noise = rng.standard_normal(other.shape, dtype=np.float32)
            spread = other.std(dim=(2, 3), keepdim=True)
            other = other + GENERATION_NOISE * spread * torch.from_numpy(noise)
            inside = F.max_pool2d(hole, DOWNSAMPLING) > 0
            output = net.decode(torch.where(inside, other, own))
        else:
            output = net(_to_tensor(photo), hole)
    return _to_image(output)


def match_grain(image: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Bring the high-frequency energy of a region to that of the ring around it.

    Grain is the residual of a Gaussian blur. Where the region has less of it than its
    surroundings, high-passed white noise makes up the difference; where it has more, its own is
    scaled down. Each colour channel is matched by itself.
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


def _check(photo: Image, generator: str, kind: str, condition: str) -> None:
    if condition not in CONDITIONS:
        raise InputError(f"The condition is {condition!r}, but it must be one of {CONDITIONS}.")
    makers = {"real": ("none",), "sp": FAMILIES, "fr": LEARNED, "reencoded": LEARNED}
    if kind not in makers:
        raise InputError(f"The kind is {kind!r}, but it must be one of {tuple(makers)}.")
    if generator not in makers[kind]:
        raise InputError(
            f"The generator is {generator!r}, but the kind {kind!r} takes one of {makers[kind]}."
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
