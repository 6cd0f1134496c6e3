"""Weights files in their real layouts, of random weights: B-Free's archive, a hub's cache."""

import io
import zipfile
from collections import OrderedDict
from dataclasses import replace
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
