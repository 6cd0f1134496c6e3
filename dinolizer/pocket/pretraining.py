"""Training of the small generators, and with them of the pocket backbones.

A backbone learns to tell real photographs from generated ones by image-level labels only. As in
B-Free, each generated image has its real twin in the same batch: the same crop under the same
compression and noise, so that only the traces of generation tell them apart.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import normalize
from tqdm.auto import tqdm

from dinolizer.data.degradations import gaussian_noise, jpeg
from dinolizer.model.pocket_vit import WINDOW
from dinolizer.model.specs import IMAGENET_MEAN, IMAGENET_STD
from dinolizer.pocket.forging import (
    CLASSICAL,
    Image,
    Mask,
    log_uniform_area,
    match_grain,
    random_mask,
    synthesise,
)
from dinolizer.pocket.generators import GENERATORS, AutoEncoder, Inpainter
from dinolizer.training.loop import Progress, drawn, optimise

MAKERS = (*CLASSICAL, "autoencoder", "transposed", "inpainter")
"""Generators of the pre-training: not the one that the study holds out."""
POOL_CROP = 160
"""Side of the crops that are forged once and kept, in pixels."""
CROP = WINDOW
"""Side of the crops that a backbone trains on, in pixels."""
PAIRS = 16
"""Real and generated twins in a batch."""
SHRINK = (0.5, 1.0)
"""Photographs are shrunk by a factor in this range first, which wipes out the traces of their own
compression: these must not tell real from generated."""
WHOLE_SHARE = 0.3
"""Share of the learned forgeries whose background also comes out of the generator."""


GENERATOR_CROP = 96
"""Side of the crops that a generator trains on, in pixels."""
GENERATOR_BATCH = 8
LATENT_NOISE = 0.05
"""Noise on the latents while training, as a share of their spread; a decoder that has met it still
decodes well what no encoder has made."""
TEXTURE_WEIGHT = 0.01
LEARNING: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.02, "clip": 1.0, "save_every": 250}


def random_crops(photos: Sequence[Image], count: int, size: int, rng: np.random.Generator) -> Image:
    """Draw square crops, mirrored at random: ``(count, size, size, 3)`` uint8."""
    crops = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        photo = photos[int(rng.integers(len(photos)))]
        top = rng.integers(photo.shape[0] - size + 1)
        left = rng.integers(photo.shape[1] - size + 1)
        crop = photo[top : top + size, left : left + size]
        crops[index] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return crops


def texture(images: Tensor) -> Tensor:
    """Local energy of the high frequencies, log scale: ``(N, 3, H, W)`` to the same, smaller."""
    residual = images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return torch.log(F.avg_pool2d(residual.square(), 8, stride=4) + 1e-4)


def generator_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, and that of the local texture, which keeps outputs from being smooth."""
    return F.l1_loss(output, target) + TEXTURE_WEIGHT * F.l1_loss(texture(output), texture(target))


def train_generator(
    name: str,
    photos: Sequence[Image],
    *,
    device: torch.device,
    seed: int,
    workers: int = 0,
    **training: Any,
) -> tuple[AutoEncoder | Inpainter, Progress]:
    """Train one of `GENERATORS` to reproduce crops of photographs, or to fill holes in them.

    Photographs are uint8 ``(H, W, 3)``, no side under `GENERATOR_CROP`. The seed decides initial
    weights, crops and holes; ``workers`` processes draw batches ahead; ``training`` is
    ``steps, checkpoint, settings`` of `optimise`. The generator is returned in eval mode.
    """
    torch.manual_seed(seed)
    model = GENERATORS[name]().to(device)
    size = GENERATOR_CROP

    def draw(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([seed, step])
        crops = torch.from_numpy(random_crops(photos, GENERATOR_BATCH, size, rng))
        holes = [random_mask(size, size, log_uniform_area(rng), rng) for _ in crops]
        shaped = torch.from_numpy(np.stack(holes))[:, None].float()
        return crops.permute(0, 3, 1, 2).float() / 255, shaped

    loss_of = inpainter_loss if isinstance(model, Inpainter) else autoencoder_loss
    progress = optimise(model, drawn(draw, workers), loss_of, label=name, **LEARNING, **training)
    return model.eval(), progress


def autoencoder_loss(model: AutoEncoder, crops: Tensor, _holes: Tensor) -> Tensor:
    latents = model.encode(crops)
    noise = LATENT_NOISE * latents.detach().std() * torch.randn_like(latents)
    return generator_loss(model.decode(latents + noise), crops)


def inpainter_loss(model: Inpainter, crops: Tensor, holes: Tensor) -> Tensor:
    output = model(crops, holes)
    inside = (F.l1_loss(output, crops, reduction="none") * holes).mean()
    return generator_loss(output, crops) + inside


class Pool(NamedTuple):
    """N crops of photographs and what a generator made of them, uint8 RGB; masks of where it was
    asked for new content; and whether it re-synthesises the background too, ``(N,)``."""

    real: Image
    output: Image
    mask: Mask
    learned: Mask


def build_pool(photos: Sequence[Image], rounds: int, seed: int, assets: Path) -> Pool:
    """Forge ``rounds`` crops of every photograph with every generator of `MAKERS`, whose weights
    are in the folder ``assets``. No side of a photograph may be under `POOL_CROP`."""
    rng = np.random.default_rng(seed)
    count = rounds * len(photos) * len(MAKERS)
    real = np.empty((count, POOL_CROP, POOL_CROP, 3), np.uint8)
    output = np.empty_like(real)
    mask = np.empty((count, POOL_CROP, POOL_CROP), bool)
    makers = np.array(MAKERS * (rounds * len(photos)))
    for index in tqdm(range(count), desc="forging", unit="crop", mininterval=5):
        photo = photos[index // len(MAKERS) % len(photos)]
        foreign = photos[int(rng.integers(len(photos)))]
        real[index], other = (
            random_crops([_shrink(p, rng)], 1, POOL_CROP, rng)[0] for p in (photo, foreign)
        )
        mask[index] = random_mask(POOL_CROP, POOL_CROP, log_uniform_area(rng), rng)
        output[index] = synthesise(real[index], mask[index], makers[index], other, rng, assets)
    return Pool(real, output, mask, ~np.isin(makers, CLASSICAL))


def draw_pairs(pool: Pool, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw real and generated twins: images float32 ``(2 * count, 3, CROP, CROP)`` in [0, 1], the
    real half first, and labels float32 ``(2 * count,)``, 1 for generated."""
    pairs = [_draw_pair(pool, rng) for _ in range(count)]
    images = np.stack([real for real, _ in pairs] + [fake for _, fake in pairs])
    labels = torch.arange(2 * count).ge(count).float()
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, labels


def pretrain_backbone(
    build: Callable[[], nn.Module],
    pool: Pool,
    *,
    device: torch.device,
    seed: int,
    workers: int = 0,
    **training: Any,
) -> tuple[nn.Module, Progress]:
    """Pre-train a backbone of `dinolizer.model.pocket_vit` to tell real from generated crops;
    arguments and returned values are as in `train_generator`."""
    torch.manual_seed(seed)
    model = build().to(device)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        return draw_pairs(pool, PAIRS, np.random.default_rng([seed, step]))

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = model(normalize(images, IMAGENET_MEAN, IMAGENET_STD)).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, labels)

    batches = drawn(draw, workers)
    progress = optimise(model, batches, loss_of, label="backbone", **LEARNING, **training)
    return model.eval(), progress


def _shrink(photo: Image, rng: np.random.Generator) -> Image:
    lowest = max(SHRINK[0], POOL_CROP / min(photo.shape[:2]))
    scale = rng.uniform(lowest, SHRINK[1])
    size = (
        max(POOL_CROP, round(photo.shape[1] * scale)),
        max(POOL_CROP, round(photo.shape[0] * scale)),
    )
    method = int(
        rng.choice([cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4])
    )
    return np.asarray(cv2.resize(photo, size, interpolation=method), np.uint8)


def _draw_pair(pool: Pool, rng: np.random.Generator) -> tuple[Image, Image]:
    index = rng.integers(len(pool.real))
    window = _window_on(pool.mask[index], rng)
    real, output, mask = (array[index][window] for array in (pool.real, pool.output, pool.mask))
    if pool.learned[index] and rng.random() < WHOLE_SHARE:
        fake = output
    else:
        fake = np.where(mask[..., None], output, real)
    if rng.random() < 0.5:
        fake = match_grain(fake, mask, rng)
    if rng.random() < 0.5:
        real, fake = real[:, ::-1], fake[:, ::-1]
    return _as_met(real, fake, rng)


def _window_on(mask: Mask, rng: np.random.Generator) -> tuple[slice, slice]:
    """Choose a window of side `CROP` that holds a random pixel of the mask."""
    rows, columns = np.nonzero(mask)
    pixel = rng.integers(len(rows))
    slices = []
    for position in (rows[pixel], columns[pixel]):
        low = max(0, position - CROP + 1)
        high = min(position, POOL_CROP - CROP)
        start = int(rng.integers(low, high + 1))
        slices.append(slice(start, start + CROP))
    return slices[0], slices[1]


def _as_met(real: Image, fake: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Put both twins through the same light noise and compression, or neither."""
    if rng.random() < 0.35:
        std = rng.uniform(0.5, 5)
        real, fake = gaussian_noise(real, std, rng), gaussian_noise(fake, std, rng)
    if rng.random() < 0.45:
        quality = int(rng.integers(60, 100))
        real, fake = jpeg(real, quality), jpeg(fake, quality)
    return real, fake
