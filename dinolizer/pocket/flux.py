"""The tiny auto-encoder of FLUX.2's latent space: a real generator's decoder, for training only.

Its weights (MIT licence) are no part of this project. The layers are in the order of the public
TAESD family (``AutoencoderTiny``), with group normalisation in the blocks next to the latents.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError

WIDTH = 64
LATENTS = 32
FILES = {"encoder": "taef2_encoder.pth", "decoder": "taef2_decoder.pth"}


class Clamp(nn.Module):
    """Keeps latents within three of zero, softly."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class Block(nn.Module):
    """Three convolutions beside a skip; ``pool`` mixes channels normalised over the whole image."""

    def __init__(self, *, normalised: bool = False) -> None:
        super().__init__()
        convs = [_conv(WIDTH, WIDTH) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        if normalised:
            wide = 4 * WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class FluxAutoEncoder(nn.Module):
    """Images ``(N, 3, H, W)`` in [0, 1], sides multiples of 8, to latents ``(N, 32, H/8, W/8)``."""

    def __init__(self) -> None:
        super().__init__()
        down: list[nn.Module] = [_conv(3, WIDTH), Block()]
        for number in range(3):
            down += [_conv(WIDTH, WIDTH, stride=2, bias=False)]
            down += [Block(normalised=number == 2) for _ in range(3)]
        self.encoder = nn.Sequential(*down, _conv(WIDTH, LATENTS))
        up: list[nn.Module] = [Clamp(), _conv(LATENTS, WIDTH), nn.ReLU()]
        for number in range(3):
            up += [Block(normalised=number == 0) for _ in range(3)]
            up += [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]
        self.decoder = nn.Sequential(*up, Block(), _conv(WIDTH, 3))

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def load_flux(folder: Path) -> FluxAutoEncoder:
    """Read both halves from `FILES` in a folder; every weight must be there, and no other."""
    model = FluxAutoEncoder()
    for half, name in FILES.items():
        try:
            weights: Mapping[str, Tensor] = torch.load(
                folder / name, map_location="cpu", weights_only=True
            )
            model.get_submodule(half).load_state_dict(weights)
        except Exception as error:  # torch raises many kinds for a file that is not one of weights
            raise InputError(
                f"{folder / name} is not the {half} of FLUX.2's tiny auto-encoder "
                f"({str(error).splitlines()[0]}); give the folder of the published files."
            ) from None
    return model.eval().requires_grad_(False)


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
