"""Training of the small generators, and with them of the pocket backbones.

A backbone learns to tell real photographs from forged ones. As in B-Free, each forged image has its
real twin in the same batch: the same crop with the same past and sharing, so that only the traces
of generation tell them apart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.model.pocket_vit import DIM
from dinolizer.pocket.fills import Forge
from dinolizer.pocket.forging import Image, log_uniform_area, random_mask
from dinolizer.pocket.generators import GENERATORS, AutoEncoder, Inpainter
from dinolizer.training.loop import Progress, drawn, optimise

PAIRS = 8
"""Real and forged twins in a batch."""
GENERATOR_CROP = 96
"""Side of the crops that a generator trains on, in pixels."""
GENERATOR_BATCH = 8
LATENT_NOISE = 0.05
"""Noise on the latents while training, as a share of their spread; a decoder that has met it still
decodes well what no encoder has made."""
TEXTURE_WEIGHT = 0.01
LEARNING: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.05, "clip": 1.0, "save_every": 250}


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


class Pretraining(nn.Module):
    """A backbone that tells generated from real images, as B-Free does, and beside it one linear
    map of its patch tokens that tells which patches: an auxiliary task, left behind afterwards."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.patches = nn.Linear(DIM, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N,)`` of images and ``(N, h * w)`` of their patches, > 0 meaning generated."""
        model: Any = self.backbone
        tokens = model.forward_features(images)
        logits = self.patches(tokens[:, model.num_prefix_tokens :])
        return model.forward_head(tokens).squeeze(1), logits.squeeze(2)


def draw_batch(
    forge: Forge, pairs: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw twins of a side S in pixels: images uint8 ``(2 * pairs, 3, S, S)``, the real half first;
    labels float32 ``(2 * pairs,)``, 1 for generated; masks uint8 ``(2 * pairs, S, S)``, 1 where
    generated."""
    twins = [forge.draw(side, rng) for _ in range(pairs)]
    images = np.stack([twin.real for twin in twins] + [twin.fake for twin in twins])
    masks = np.stack([twin.mask for twin in twins]).astype(np.uint8)
    labels = torch.arange(2 * pairs).ge(pairs).float()
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        labels,
        torch.from_numpy(np.concatenate([np.zeros_like(masks), masks])),
    )


def pretrain_backbone(
    build: Callable[[], nn.Module],
    forge: Forge,
    *,
    side: int,
    device: torch.device,
    seed: int,
    workers: int = 0,
    **training: Any,
) -> tuple[nn.Module, Progress]:
    """Pre-train a backbone of `dinolizer.model.pocket_vit` to tell real from forged crops of a
    side in pixels, drawn anew at every step; arguments and returned values are as in
    `train_generator`."""
    torch.manual_seed(seed)
    model = Pretraining(build()).to(device)

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        torch.set_num_threads(1)
        return draw_batch(forge, PAIRS, side, np.random.default_rng([seed, step]))

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        image_logits, patch_logits = model(images.float())
        patch = side // round(patch_logits.shape[1] ** 0.5)
        shares = F.avg_pool2d(masks[:, None].float(), patch).flatten(1)
        loss = F.binary_cross_entropy_with_logits
        return loss(image_logits, labels) + loss(patch_logits, shares)

    batches = drawn(draw, workers)
    progress = optimise(model, batches, loss_of, label="backbone", **LEARNING, **training)
    return model.eval().backbone, progress
