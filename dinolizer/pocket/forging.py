"""The forger: from a photograph and a seed to a forgery whose every pixel's history is known:
before the edit, in it, and after it.

Most photographs on the web are JPEG files with chroma subsampled, often resized or stored more than
once; what a generator fills in has never been through that. Wiping out a photograph's history, or
giving the same one to both, teaches a detector the wrong sign."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from dinolizer.data.degradations import gaussian_noise, jpeg, to_uint8
from dinolizer.errors import InputError, check_choice
from dinolizer.pocket.generators import DOWNSAMPLING, AutoEncoder, load_generator

Image = NDArray[np.uint8]
Rng = np.random.Generator
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

INPAINT_RADIUS = 3  # neighbourhood of OpenCV's inpainting methods, in pixels
GENERATION_NOISE = 0.2  # on generated latents, a share of their spread: no encoder has made them
SHRINKING = (0.4, 0.65)  # by how much content of an edit is shrunk: its own past is gone then
SHAPES = ("blob", "ellipse", "box")
AREA_RANGE = (0.01, 0.60)  # share of the image that is edited: log-uniform between these bounds

SHARED = {
    "jpeg": (65, 98),
    "webp": (70, 98),
    "noise": (0.5, 5),
    "blur": (3, 3),
    "resize": (0.75, 1.3),
}
"""Levels of what pre-training does to whole images, some of them, as sharing does."""

KERNELS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
GRID = 16  # side in pixels of a JPEG file's blocks with chroma subsampled: crops start anywhere


class Forgery(NamedTuple):
    """An image, uint8 ``(H, W, 3)`` RGB, and a mask, bool ``(H, W)``, of its new content."""

    image: Image
    mask: Mask


def forge(
    photo: Image,
    generator: str,
    kind: str,
    *,
    seed: int | list[int],
    source: Image | None = None,
    condition: str = "clean",
) -> Forgery:
    """Forge a photograph; the same arguments give the same forgery. The photograph is uint8 ``(H,
    W, 3)`` RGB, both sides multiples of 8, with a past of its own (see `past`). An auto-encoder
    fills the mask with content of ``source``, of any size (by default the mirrored photograph). The
    condition is ``clean``, ``jpeg`` (quality 75 to 95) or ``noise`` (standard deviation 1 to 3 grey
    levels). Raises InputError for none of `CASES`, another condition or size."""
    check_choice("condition", condition, CONDITIONS)
    check_choice("kind", kind, MAKERS)
    check_choice(f"generator of the kind {kind!r}", generator, MAKERS[kind])
    height, width = photo.shape[:2]
    if height % DOWNSAMPLING or width % DOWNSAMPLING:
        wanted = f"both sides must be multiples of {DOWNSAMPLING}; crop it first"
        raise InputError(f"The photograph is {height} x {width} pixels, but {wanted}.")
    rng = np.random.default_rng(seed)
    image, mask = photo, np.zeros((height, width), bool)
    if kind in ("sp", "fr"):
        mask = random_mask(height, width, log_uniform_area(rng), rng)
        content = photo[:, ::-1] if source is None else source
        filled = fill(photo, mask, generator, content, rng)
        image = np.where(mask[..., None], filled, photo)
    if kind in ("fr", "reencoded"):
        image = reencode(image, generator)
    if condition == "jpeg":
        image = jpeg(image, int(rng.integers(75, 96)))
    elif condition == "noise":
        image = gaussian_noise(image, rng.uniform(1, 3), rng)
    return Forgery(image, mask)


def fill(photo: Image, mask: Mask, generator: str, source: Image, rng: Rng) -> Image:
    """Return the photograph's size of what a generator fills into the mask; outside it means
    nothing. An auto-encoder decodes the latents of the shrunk source with noise added."""
    if generator in CLASSICAL:
        return inpaint_classically(photo, mask, generator)
    net = load_generator(generator)
    with torch.inference_mode():
        if not isinstance(net, AutoEncoder):
            return to_image(net(to_tensor(photo), torch.from_numpy(mask)[None, None].float()))
        latents = net.encode(to_tensor(tiled(source, photo.shape[:2], rng)))
        noise = rng.standard_normal(latents.shape, dtype=np.float32)
        spread = GENERATION_NOISE * latents.std(dim=(2, 3), keepdim=True)
        return to_image(net.decode(latents + spread * torch.from_numpy(noise)))


def inpaint_classically(photo: Image, mask: Mask, generator: str) -> Image:
    if generator == "biharmonic":
        return to_uint8(255 * inpaint_biharmonic(photo, mask, channel_axis=-1))
    method = cv2.INPAINT_TELEA if generator == "telea" else cv2.INPAINT_NS
    return np.asarray(cv2.inpaint(photo, mask.astype(np.uint8), INPAINT_RADIUS, method))


def reencode(image: Image, generator: str) -> Image:
    """Pass a whole image through a learned generator that is asked to change nothing."""
    with torch.inference_mode():
        pixels = to_tensor(image)
        return to_image(load_generator(generator)(pixels, torch.zeros_like(pixels[:, :1])))


def tiled(source: Image, size: tuple[int, ...], rng: Rng) -> Image:
    """Shrink a source by a factor of `SHRINKING`, and fill a size with it, see `mirrored`."""
    scale = rng.uniform(*SHRINKING)
    small = [max(1, round(length * scale)) for length in source.shape[1::-1]]
    content = cv2.resize(source, small, interpolation=cv2.INTER_AREA)
    return mirrored(np.asarray(content, np.uint8), size, rng)


def mirrored(image: Image, size: tuple[int, ...], rng: Rng) -> Image:
    """Cut a size ``(H, W)`` at a random place, mirrored beyond the image's edges."""
    index = []
    for length, count in zip(image.shape, size, strict=False):
        pixels = (int(rng.integers(max(1, length - count + 1))) + np.arange(count)) % (2 * length)
        index.append(np.minimum(pixels, 2 * length - 1 - pixels))
    return np.asarray(image[np.ix_(*index)])


def log_uniform_area(rng: Rng, bounds: tuple[float, float] = AREA_RANGE) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def random_mask(height: int, width: int, area: float, rng: Rng, shape: str | None = None) -> Mask:
    """Draw a mask, bool ``(height, width)``, of one of `SHAPES` (drawn if absent), that covers a
    given share of the image: exactly, up to ties, the highest pixels of a smooth field."""
    shape = shape or str(rng.choice(SHAPES))
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    half = np.sqrt(area / np.pi if shape == "ellipse" else area / 4)
    # Half sides as shares of the image; the centre keeps the shape inside where that is possible.
    half_y, half_x = min(half * aspect, 0.5), min(half / aspect, 0.5)
    y = (np.arange(height)[:, None] + 0.5) / height - rng.uniform(half_y, 1 - half_y)
    x = (np.arange(width)[None, :] + 0.5) / width - rng.uniform(half_x, 1 - half_x)
    field = -np.hypot(y / half_y, x / half_x)
    if shape == "box":  # a hair of the other axis breaks ties between its rows or columns
        field = -np.maximum(np.abs(y) / half_y, np.abs(x) / half_x)
        field -= 1e-6 * (np.abs(y) + np.abs(x))
    elif shape == "blob":
        noise, sigma = rng.standard_normal((height, width)), 0.35 * half * min(height, width)
        border = cv2.BORDER_REFLECT
        smooth = cv2.GaussianBlur(noise, (0, 0), max(2.0, sigma), borderType=border)
        field = field + 0.6 * smooth / smooth.std()
    count = max(1, round(area * height * width))
    return field >= np.partition(field, -count, axis=None)[-count]


def to_tensor(image: Image) -> torch.Tensor:
    """uint8 ``(H, W, 3)`` to float32 ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def to_image(images: torch.Tensor) -> Image:
    """The other way round, rounded and clipped."""
    return images[0].permute(1, 2, 0).mul(255).round().clip(0, 255).to(torch.uint8).numpy()


def resized(image: Image, scale: float, rng: Rng, least: int = 1) -> Image:
    """Resize by a factor and a random kernel; no side ends under ``least`` pixels."""
    scale = max(scale, least / min(image.shape[:2]))
    kernel = KERNELS[int(rng.integers(scale >= 1, len(KERNELS)))]  # areas are for shrinking
    size = [max(least, round(length * scale)) for length in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=kernel), np.uint8)


def crop(image: Image, side: int, rng: Rng) -> Image:
    """Cut a random square, mirrored at random."""
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)


def past(photo: Image, side: int, rng: Rng) -> Image:
    """A square crop of a photograph with a history: resized (up as well as down), the noise of a
    sensor, stored as JPEG at some quality with the blocks anywhere; one in four of them twice. Nine
    in ten are JPEG files, of which 85 % with chroma at half the resolution in both directions."""
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
