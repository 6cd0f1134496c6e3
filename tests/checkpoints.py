"""Weights files in their real layouts, of random weights: B-Free's, the release's, a hub's."""

import io
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dinolizer.model.specs import BACKBONES

CONFIG = """\
model_name: BFREE_dino2reg4
arch: timm_c5i504_vit_base_patch14_reg4_dinov2.lvd142m
norm_type: resnet
patch_size: null
weights_file: model_epoch_best.pth
"""


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a value that matters: timm starts biases at 0 and LayerScale near it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return model.eval()


def build_small_bfree(img_size: int = 56) -> VisionTransformer:
    """B-Free's architecture, one block of 32 values, on 4x4 patches."""
    return timm.create_model(
        "vit_base_patch14_reg4_dinov2",
        img_size=img_size,
        num_classes=1,
        depth=1,
        embed_dim=32,
        num_heads=2,
    )


def make_bfree_small(monkeypatch: pytest.MonkeyPatch) -> VisionTransformer:
    """Let 'bfree' be small, and give a model of random weights."""
    small = replace(BACKBONES["bfree"], architecture=build_small_bfree, window=56, stride=28)
    monkeypatch.setitem(BACKBONES, "bfree", small)
    return randomize(build_small_bfree())


def bfree_state(model: VisionTransformer) -> OrderedDict[str, Tensor]:
    """The two key groups of B-Free's wrapper, which holds the patch embedding apart."""
    embedding = {f"patch_embed.{k}": v for k, v in model.patch_embed.state_dict().items()}
    rest = {k: v for k, v in model.state_dict().items() if not k.startswith("patch_embed.")}
    return OrderedDict(embedding | rest)


def save_bfree(path: Path, model: VisionTransformer) -> Path:
    torch.save({"model": bfree_state(model)}, path)
    return path


def save_bfree_zip(path: Path, model: VisionTransformer, config: str = CONFIG) -> Path:
    checkpoint = io.BytesIO()
    torch.save({"model": bfree_state(model)}, checkpoint)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir("BFREE_dino2reg4")
        file.writestr("BFREE_dino2reg4/config.yaml", config)
        file.writestr("BFREE_dino2reg4/model_epoch_best.pth", checkpoint.getvalue())
    return path


def hub_cache(root: Path, repository: str) -> Path:
    """Make the folder of a repository's one snapshot in a hub's cache."""
    folder = root / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def build_small_release() -> VisionTransformer:
    """The release's backbone in small: two blocks of 128 values, as rank 64 needs room."""
    return timm.create_model(
        "vit_base_patch14_reg4_dinov2",
        img_size=56,
        num_classes=0,
        depth=2,
        embed_dim=128,
        num_heads=2,
    )


@dataclass(frozen=True)
class Release:
    """A model of the release's kind with its adapter beside it, not merged.

    Attributes
    ----------
    model
        The frozen transformer.
    adapters
        By block and third (``"q"``, ``"v"``): A ``(64, D)`` and B ``(D, 64)``.
    weight, bias
        Of the head, ``(3, D)`` and ``(3,)``.
    """

    model: VisionTransformer
    adapters: dict[tuple[int, str], tuple[Tensor, Tensor]]
    weight: Tensor
    bias: Tensor


def make_release(model: VisionTransformer, seed: int = 0) -> Release:
    generator = torch.Generator().manual_seed(seed)
    dim = model.embed_dim

    def draw(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    adapters = {
        (block, third): (draw(64, dim), draw(dim, 64))
        for block in range(len(model.blocks))
        for third in "qv"
    }
    return Release(model, adapters, draw(3, dim), draw(3))


def release_state(release: Release) -> OrderedDict[str, Tensor]:
    """The state dict as it is reported: wrapped in ``net.`` and ``model.``, the patch embedding
    apart, queries, keys and values wrapped by their adapters, leftovers, two names nobody knows."""
    state = OrderedDict()
    for name, tensor in release.model.state_dict().items():
        wrapped = re.sub(r"(attn\.qkv)\.", r"\1.qkv.", name)
        state["net.model." + ("" if name.startswith("patch_embed.") else "lora_vit.") + wrapped] = (
            tensor
        )
    for (block, third), (a, b) in release.adapters.items():
        layer = f"net.model.lora_vit.blocks.{block}.attn.qkv.linear"
        state[f"{layer}_a_{third}.weight"], state[f"{layer}_b_{third}.weight"] = a, b
    state["net.model.cls_head.weight"] = release.weight
    state["net.model.cls_head.bias"] = release.bias
    state["net.model.lora_vit.head.weight"] = torch.ones(1, release.model.embed_dim)
    state["net.model.lora_vit.proj_3d.weight"] = torch.empty(0)
    state["net.criterion.pos_weight"] = torch.ones(3)
    state["net.model.unheard_of"] = torch.ones(2)
    return state


def save_release(path: Path, state: Mapping[str, Tensor]) -> Path:
    """A Lightning checkpoint, as far as it is plain values."""
    torch.save({"epoch": 36, "global_step": 1000, "state_dict": dict(state)}, path)
    return path
