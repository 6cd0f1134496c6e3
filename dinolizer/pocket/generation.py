"""Training of the small learned generators, on crops of photographs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dinolizer.pocket.generators import GENERATORS, AutoEncoder, Inpainter
from dinolizer.pocket.masks import log_uniform_area, random_mask
from dinolizer.training.optimisation import optimise

CROP = 96
BATCH = 8
LATENT_NOISE = 0.05
"""Noise on the latents while training, as a share of their spread; a decoder that has met it still
decodes well what no encoder has made."""
TEXTURE_WEIGHT = 0.01


def random_crops(
    photos: Sequence[NDArray[np.uint8]], count: int, size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
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
    photos: Sequence[NDArray[np.uint8]],
    *,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    seed: int,
    workers: int = 0,
) -> AutoEncoder | Inpainter:
    """Train one of `GENERATORS` to reproduce crops of photographs, or to fill holes in them.

    Parameters
    ----------
    name
        Key of `GENERATORS`.
    photos
        uint8 ``(H, W, 3)`` each, no side under `CROP`.
    steps, checkpoint, workers
        As in `optimise`.
    device, seed
        Where to train, and what decides the initial weights, the crops and the holes.

    Returns
    -------
    AutoEncoder or Inpainter
        In eval mode.
    """
    torch.manual_seed(seed)
    model = GENERATORS[name]().to(device)
    loss_of = _inpainter_loss(model) if isinstance(model, Inpainter) else _autoencoder_loss(model)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([seed, step])
        crops = torch.from_numpy(random_crops(photos, BATCH, CROP, rng)).permute(0, 3, 1, 2)
        holes = [random_mask(CROP, CROP, log_uniform_area(rng), rng) for _ in range(BATCH)]
        return crops.float() / 255, torch.from_numpy(np.stack(holes))[:, None].float()

    optimise(
        model,
        draw,
        loss_of,
        steps=steps,
        learning_rate=1e-3,
        checkpoint=checkpoint,
        label=name,
        workers=workers,
    )
    return model.eval()


def _autoencoder_loss(model: AutoEncoder) -> Callable[[Tensor, Tensor], Tensor]:
    def loss_of(crops: Tensor, _holes: Tensor) -> Tensor:
        latents = model.encode(crops)
        noise = LATENT_NOISE * latents.detach().std() * torch.randn_like(latents)
        return generator_loss(model.decode(latents + noise), crops)

    return loss_of


def _inpainter_loss(model: Inpainter) -> Callable[[Tensor, Tensor], Tensor]:
    def loss_of(crops: Tensor, holes: Tensor) -> Tensor:
        output = model(crops, holes)
        inside = (F.l1_loss(output, crops, reduction="none") * holes).mean()
        return generator_loss(output, crops) + inside

    return loss_of
