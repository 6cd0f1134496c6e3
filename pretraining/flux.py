"""The tiny auto-encoder of FLUX.2's latent space: a real generator's decoder, for training only,
whose weights (MIT licence) are no part of this project."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.pocket.generators import AutoEncoder

FLUX_WIDTH = 64
FLUX_LATENTS = 32
FLUX_FILES = {"encoder": "taef2_encoder.pth", "decoder": "taef2_decoder.pth"}


class FluxClamp(nn.Module):
    """Keeps latents within three of zero, softly."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class FluxBlock(nn.Module):
    """Three convolutions beside a skip; ``pool`` mixes channels normalised over the whole image."""

    def __init__(self, *, normalised: bool = False) -> None:
        super().__init__()
        width, wide = FLUX_WIDTH, 4 * FLUX_WIDTH
        first, second, third = (_flux_conv(width, width) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        narrow = nn.Conv2d(width, wide, 1, bias=False), nn.Conv2d(wide, width, 1, bias=False)
        norm = nn.GroupNorm(4, wide), nn.ReLU()
        self.pool = nn.Sequential(narrow[0], *norm, narrow[1]) if normalised else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _flux_conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def load_flux(folder: Path) -> AutoEncoder:
    """Read both halves from `FLUX_FILES` in a folder; every weight must be there, and no other. The
    layers are in the order of the public TAESD family (``AutoencoderTiny``), with group
    normalisation in the blocks next to the latents."""
    width = FLUX_WIDTH
    down, up = [_flux_conv(3, width), FluxBlock()], [FluxClamp(), _flux_conv(FLUX_LATENTS, width)]
    up.append(nn.ReLU())
    for number in range(3):
        down.append(_flux_conv(width, width, stride=2, bias=False))
        down += [FluxBlock(normalised=number == 2) for _ in range(3)]
        up += [FluxBlock(normalised=number == 0) for _ in range(3)]
        up += [nn.Upsample(scale_factor=2), _flux_conv(width, width, bias=False)]
    encoder = nn.Sequential(*down, _flux_conv(width, FLUX_LATENTS))
    decoder = nn.Sequential(*up, FluxBlock(), _flux_conv(width, 3))
    model = AutoEncoder(encoder, decoder, centred=False)
    for half, name in FLUX_FILES.items():
        try:
            weights = torch.load(folder / name, map_location="cpu", weights_only=True)
            model.get_submodule(half).load_state_dict(weights)
        except Exception as error:  # torch raises many kinds for a file that is not one of weights
            what, why = f"the {half} of FLUX.2's tiny auto-encoder", str(error).splitlines()[0]
            advice = "give the folder of the published files"
            raise InputError(f"{folder / name} is not {what} ({why}); {advice}.") from None
    return model.eval().requires_grad_(False)
