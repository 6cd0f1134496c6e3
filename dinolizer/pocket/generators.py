"""Small learned generators, auto-encoders and a convolutional inpainter, in place of latent
diffusion models: what passes through the decoder carries its traces. They blur more."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.paths import ASSETS

DOWNSAMPLING = 8  # pixels of a photograph to one latent, along each axis
WIDTHS = (24, 48, 80)  # channels at 1/2, 1/4 and 1/8 of the resolution


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), Residual(outputs))


def _up_nearest(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(inputs), nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)
    )


def _up_shuffle(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(inputs), nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)
    )


class AutoEncoder(nn.Module):
    """A convolutional auto-encoder with 8x down-sampling; inside, ``centred`` ones use [-1, 1]."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, centred: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder, self.centred = encoder, decoder, centred

    def encode(self, images: Tensor) -> Tensor:
        """Encode ``(N, 3, H, W)`` in [0, 1], sides multiples of 8, to ``(N, C, H/8, W/8)``."""
        return self.encoder(2 * images - 1 if self.centred else images)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode ``(N, C, h, w)`` to ``(N, 3, 8h, 8w)``, about [0, 1] but not clipped."""
        images = self.decoder(latents)
        return (images + 1) / 2 if self.centred else images

    def forward(self, images: Tensor, holes: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(images))


def _autoencoder(latents: int, up: Callable[[int, int], nn.Sequential]) -> AutoEncoder:
    """With so many latent channels, and what builds a 2x stage of the decoder, and its trace."""
    first, second, third = WIDTHS
    downs = _down(3, first), _down(first, second), _down(second, third)
    encoder = nn.Sequential(*downs, nn.Conv2d(third, latents, 1))
    start = nn.Conv2d(latents, third, 3, padding=1)
    ups = up(third, second), up(second, first), up(first, first)
    return AutoEncoder(
        encoder, nn.Sequential(start, *ups, nn.GELU(), nn.Conv2d(first, 3, 3, padding=1))
    )


class Inpainter(nn.Module):
    """A U-Net, from a photograph with a blanked hole, and the hole, to every pixel anew."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.down1, self.down2 = _down(4, first), _down(first, second)
        self.down3 = _down(second, third)
        self.middle = nn.Sequential(*(Residual(third, dilation) for dilation in (2, 4)))
        self.up3, self.up2 = _up_nearest(third, second), _up_nearest(second, first)
        self.up1 = _up_nearest(first, first)
        self.last = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, images: Tensor, holes: Tensor) -> Tensor:
        """Fill holes, ``(N, 1, H, W)``, 1 inside and 0 elsewhere, of images ``(N, 3, H, W)`` in
        [0, 1], sides multiples of 8; the output is about in [0, 1], not clipped."""
        x = torch.cat([(2 * images - 1) * (1 - holes), holes], dim=1)
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x = self.up3(self.middle(self.down3(x2))) + x2
        x = self.up1(self.up2(x) + x1)
        return (self.last(F.gelu(x)) + 1) / 2


GENERATORS: dict[str, Callable[[], AutoEncoder | Inpainter]] = {
    "autoencoder": lambda: _autoencoder(24, _up_nearest),
    "heldout": lambda: _autoencoder(16, _up_shuffle),
    "inpainter": Inpainter,
}
"""``heldout`` is never used in any training: neither of the backbone nor of a head."""


@cache
def load_generator(name: str, folder: Path = ASSETS) -> AutoEncoder | Inpainter:
    """Load a generator of `GENERATORS` from ``pocket-<name>.safetensors``, in eval mode."""
    generator = GENERATORS[name]()
    weights = load_file(folder / f"pocket-{name}.safetensors")
    generator.load_state_dict({key: value.float() for key, value in weights.items()})
    return generator.eval().requires_grad_(False)
