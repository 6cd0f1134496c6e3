"""Tokens equal those of a second implementation, written here from the state dict alone."""

import math
from collections.abc import Callable

import pytest
import timm
import torch
from checkpoints import randomize
from torch import Tensor
from torch.nn.functional import conv2d

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.specs import BACKBONES, BackboneSpec, Transformer

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
Rotation = Callable[[Tensor], Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def tokens(
    state: dict[str, Tensor],
    pixels: Tensor,
    heads: int,
    eps: float,
    scale: str,
    rotate: Rotation | None = None,
    depth: int = TINY["depth"],
) -> Tensor:
    """Normed patch tokens (N, D, h, w) after that many blocks, of pixels (N, 3, H, W)."""
    filters = state["patch_embed.proj.weight"]
    x = conv2d(pixels, filters, state["patch_embed.proj.bias"], stride=filters.shape[-1])
    batch, dim, height, width = x.shape
    x = x.flatten(2).transpose(1, 2)  # (N, h w, D)
    if "pos_embed" in state:
        x = x + state["pos_embed"]  # the patches' only: class token and registers have none
    prefix = torch.cat([state["cls_token"], state["reg_token"]], dim=1)
    x = torch.cat([prefix.expand(batch, -1, -1), x], dim=1)
    for block in range(depth):
        w = {k.removeprefix(f"blocks.{block}."): v for k, v in state.items()}
        y = layer_norm(x, w["norm1.weight"], w["norm1.bias"], eps)
        y = y @ w["attn.qkv.weight"].T + w.get("attn.qkv.bias", 0)
        # (3, N, heads, tokens, D / heads)
        q, k, v = y.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if rotate:
            n = prefix.shape[1]
            q, k = (torch.cat([z[..., :n, :], rotate(z[..., n:, :])], dim=-2) for z in (q, k))
        attention = (q @ k.transpose(-1, -2) / math.sqrt(dim / heads)).softmax(-1)
        y = (attention @ v).transpose(1, 2).flatten(2)
        y = y @ w["attn.proj.weight"].T + w["attn.proj.bias"]
        x = x + y * w[scale.format(1)]
        y = layer_norm(x, w["norm2.weight"], w["norm2.bias"], eps)
        y = gelu(y @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
        x = x + (y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]) * w[scale.format(2)]
    x = layer_norm(x, state["norm.weight"], state["norm.bias"], eps)
    return x[:, prefix.shape[1] :].transpose(1, 2).unflatten(-1, (height, width))


def rotation(height: int, width: int, dim: int) -> Rotation:
    """DINOv3's rotary embedding (arXiv:2508.10104) on complex numbers.

    A head's first and second half are real and imaginary parts. Half of them turn with the row and
    half with the column of a patch's centre, both in [-1, 1], by periods from 1 towards 100.
    """
    periods = 100 ** (torch.arange(dim // 4) / (dim // 4))
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    centres = torch.cartesian_prod(y, x)  # (h w, 2), row by row
    angles = 2 * math.pi * (centres[:, :, None] / periods).flatten(1)  # (h w, dim / 2)
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotate(z: Tensor) -> Tensor:
        turned = torch.complex(*z.chunk(2, dim=-1)) * turn
        return torch.cat([turned.real, turned.imag], dim=-1)

    return rotate


def tiny(spec: BackboneSpec, **options: int) -> tuple[Backbone, dict[str, Tensor]]:
    model: Transformer = randomize(timm.create_model(spec.architecture, **TINY, **options))
    return Backbone(spec, model), model.state_dict()


def pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def normalised(batch: Tensor, spec: BackboneSpec) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    return (batch - mean) / std


@pytest.mark.parametrize("name", ["bfree", "dinov2-small", "dinov2-large"])
def test_dinov2_gives_the_tokens_of_the_second_implementation(name: str) -> None:
    spec = BACKBONES[name]
    backbone, state = tiny(spec, img_size=70)
    batch = pictures(70, 70)
    expected = tokens(state, normalised(batch, spec), heads=3, eps=1e-6, scale="ls{}.gamma")
    found = backbone(batch)
    assert found.shape == (2, 48, 5, 5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_inner_layer_is_what_the_second_implementation_gives_after_as_many_blocks() -> None:
    spec = BACKBONES["dinov2-small"]
    backbone, state = tiny(spec, img_size=70)
    batch = pictures(70, 70)
    found = backbone.tokens_of_layers(batch, [1, 2, 3])
    for depth, layer in enumerate(found, start=1):
        expected = tokens(
            state, normalised(batch, spec), heads=3, eps=1e-6, scale="ls{}.gamma", depth=depth
        )
        torch.testing.assert_close(layer, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone.tokens_of_layers(batch, [2])[0], found[1])


@pytest.mark.parametrize("layers", [[], [0], [4], [2, 1], [1, 1]])
def test_layers_that_are_not_there_or_not_in_order_are_refused(layers: list[int]) -> None:
    backbone, _ = tiny(BACKBONES["dinov2-small"], img_size=70)
    with pytest.raises(InputError, match="has those from 1 to 3"):
        backbone.tokens_of_layers(pictures(70, 70), layers)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_dinov3_gives_the_tokens_of_the_second_implementation(height: int, width: int) -> None:
    spec = BACKBONES["dinov3-base"]
    backbone, state = tiny(spec, img_size=64)
    batch = pictures(height, width)
    expected = tokens(
        state,
        normalised(batch, spec),
        heads=3,
        eps=1e-5,
        scale="gamma_{}",
        rotate=rotation(height // 16, width // 16, dim=16),
    )
    found = backbone(batch)
    assert found.shape == (2, 48, height // 16, width // 16)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_every_part_of_the_second_implementation_takes_part() -> None:
    spec = BACKBONES["dinov2-base"]
    _, state = tiny(spec, img_size=70)
    pixels = normalised(pictures(70, 70), spec)
    reference = tokens(state, pixels, heads=3, eps=1e-6, scale="ls{}.gamma")
    for name in state:
        changed = {key: value * (1.5 if key == name else 1) for key, value in state.items()}
        other = tokens(changed, pixels, heads=3, eps=1e-6, scale="ls{}.gamma")
        assert (other - reference).abs().max() > 1e-5, name
