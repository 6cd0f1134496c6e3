"""Frozen vision transformers as sources of patch tokens."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError, check_choice, refuse
from dinolizer.model.batches import as_batch
from dinolizer.model.specs import BACKBONES, BackboneSpec, Transformer, build
from dinolizer.model.weights import fit_weights, read_weights, weights_file, weights_hash

__all__ = ["BACKBONES", "Backbone", "BackboneSpec", "load_backbone", "pick_device"]

UNTRAINED_SEED = 0
PROBE_SUMS, PROBE_STEP = 8, 0.02
"""Sums of tokens in a fingerprint, each of the size of one token, and what they are rounded to."""


class Backbone(nn.Module):
    """A frozen timm vision transformer that gives the normed patch tokens of its last layer.

    It takes RGB in [0, 1] and normalises it itself. It stays in eval mode and without gradients,
    even inside a model in train mode; the transformer given is frozen in place.

    ``fingerprint`` is a short hash of the tokens of a fixed image: it changes with the weights and
    with any code on the way to the tokens, be it this package's, timm's or torch's."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, model: Transformer) -> None:
        super().__init__()
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.dim = int(model.embed_dim)  #: D, the number of values of a token
        self.depth = len(model.blocks)  #: number of layers
        self.hash = weights_hash(model)  #: SHA-256 of the weights, see `weights_hash`
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    @cached_property
    def fingerprint(self) -> str:
        # A few sums over all tokens of noise. From one to eight threads, with and without oneDNN,
        # they moved by 2e-6; of single tokens many lie so near to the edge of a rounding.
        generator, side = torch.Generator().manual_seed(0), self.spec.window
        probe = (256 * torch.rand(side, side, 3, generator=generator)).byte()
        tokens = self(as_batch([probe], self.device)).flatten().double().cpu()
        weights = torch.randn(PROBE_SUMS, len(tokens), generator=generator).double()
        sums = (weights @ tokens / len(tokens) ** 0.5 / PROBE_STEP).round().int()
        return hashlib.sha256(f"{len(tokens)} {sums.tolist()}".encode()).hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: the backbone is frozen, its batch statistics and dropout too."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Tensor) -> Tensor:
        """`tokens`, without gradients."""
        return self.tokens(batch)

    def tokens(self, batch: Tensor) -> Tensor:
        """Patch tokens ``(N, D, H / patch, W / patch)`` of float RGB ``(N, 3, H, W)`` in [0, 1].

        Class token and registers are dropped; gradients reach whatever adapter was put inside. H
        and W are the spec's window, or any multiples of the patch where the model has no position
        embedding of one grid. Another type or shape is an `InputError`."""
        return self.tokens_of_layers(batch, [self.depth])[0]

    def tokens_of_layers(self, batch: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Patch tokens of several layers, numbered 1 to ``depth`` and ascending, in one pass; 0 is
        what enters the first of them. The last norm brings those of all to a like scale."""
        spec, patch = self.spec, self.spec.patch
        height, width = batch.shape[2:] if batch.ndim == 4 else (0, 0)
        is_image = batch.ndim == 4 and batch.shape[1] == 3 and batch.is_floating_point()
        is_fixed = not self.model.dynamic_img_size
        refuse(
            {
                f"The layers are {list(layers)}, but {spec.name!r} has those from 0 to "
                f"{self.depth}: name some, in ascending order.": (
                    not layers or list(layers) != sorted({*layers} & {*range(self.depth + 1)})
                ),
                f"The batch is {batch.dtype} {tuple(batch.shape)}, but it must be floating-point "
                "(N, 3, H, W), RGB in [0, 1].": not is_image,
                f"The images are {height}x{width}, but both sides must be multiples of the patch "
                f"of {patch} pixels: crop or pad them.": height % patch or width % patch,
                f"The images are {height}x{width}, but the position embedding of {spec.name!r} is "
                f"made for windows of {spec.window}x{spec.window}: cut such.": (
                    is_fixed and (height, width) != self.model.patch_embed.img_size
                ),
            }
        )
        entered: list[Tensor] = []
        blocks = self.model.blocks
        watched = (
            blocks[0].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
            if layers[0] == 0
            else nullcontext()
        )
        # timm drops the model's own num_prefix_tokens here: 5 with a class token and 4 registers.
        with watched:
            intermediates: list[Tensor] = self.model.forward_intermediates(  # type: ignore[assignment]
                (batch - self.mean) / self.std,
                indices=[layer - 1 for layer in layers if layer] or [0],
                norm=True,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        if entered:
            stem: Tensor = self.model.norm(entered[0])[:, self.model.num_prefix_tokens :]
            of_stem = stem.mT.unflatten(2, (height // patch, width // patch))
            intermediates = [of_stem, *intermediates][: len(layers)]
        return intermediates  # of each layer (N, D, h, w)

    @torch.no_grad()
    def image_logits(self, batch: Tensor) -> Tensor:
        """What the classifier that came with the weights says of the windows of a batch as of
        `tokens`: float ``(N,)``, higher = generated. Without one of one output, an `InputError`."""
        lack = f"The model {self.spec.name!r} has no classifier of one output: choose another."
        refuse({lack: self.model.num_classes != 1})
        logits: Tensor = self.model((batch - self.mean) / self.std)
        return logits[:, 0]


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Device of that name, if it is here; without a name the GPU where there is one, or the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # 'meta' has no values
    except (RuntimeError, AssertionError, ImportError):
        due = "one that torch finds here: 'cpu' always is, and 'cuda' where there is a GPU"
        raise InputError(f"The device is {str(name)!r}, but it must be {due}.") from None
    return device


def load_backbone(
    name: str,
    weights: Path | None = None,
    device: str | torch.device | None = None,
    window: int | None = None,
) -> Backbone:
    """Build a backbone of `BACKBONES` with its weights, on the device that `pick_device` gives.

    ``weights`` is a safetensors file to use in place of the spec's. ``window``, in pixels and a
    multiple of the patch, replaces the spec's; learned positions are resampled to it. Raises
    `InputError` for an unknown name and for weights that are missing, damaged or of another."""
    check_choice("model", name, BACKBONES)
    spec = replace(BACKBONES[name], window=window or BACKBONES[name].window)
    chosen = pick_device(device)
    path = weights or weights_file(spec)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(UNTRAINED_SEED)
        model = build(spec)
    if path:
        fit_weights(model, read_weights(path, name), path, name)
    return Backbone(spec, model).to(chosen)
