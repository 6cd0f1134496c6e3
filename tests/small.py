"""Small things for tests: a backbone of random weights, timm's own transformer, and a manifest."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dinolizer.data.images import write_image
from dinolizer.data.manifest import write_manifest
from dinolizer.model.backbones import Backbone, BackboneSpec
from dinolizer.model.head import card_for, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.windows import Reduce


def build_small_vit() -> VisionTransformer:
    return VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=32,
        depth=2,
        num_heads=2,
        reg_tokens=4,
        num_classes=0,
        dynamic_img_size=True,
        drop_rate=0.5,
        proj_drop_rate=0.5,
    )


SPEC = BackboneSpec(
    name="small",
    architecture=build_small_vit,
    patch=14,
    window=56,
    stride=28,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    weights=None,
    licence="Apache-2.0",
    citation="",
)


def small_backbone(seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(SPEC, build_small_vit())


def small_classifier() -> Backbone:
    """A small backbone with a classifier of one output, as B-Free's, of random weights."""
    backbone = small_backbone()
    backbone.model.reset_classifier(1)
    with torch.no_grad():
        backbone.model.head.weight.copy_(random_head(backbone.dim).weight[..., 0, 0])
        backbone.model.head.bias.fill_(0.5)
    return backbone


def random_head(dim: int, classes: int = 1) -> nn.Conv2d:
    head = make_head(dim, classes)
    generator = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return head


def small_manifest(
    folder: Path, count: int = 12, splits: Sequence[str] = ("train", "valid")
) -> Path:
    """Write images of 70 x 90 pixels and a manifest: real, spliced and re-generated in turn.

    The left 40 columns of an edited image are edited; every three images take the next split.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((70, 90), np.uint8)
    mask[:, :40] = 255
    write_image(folder / "mask.png", mask)
    rows = []
    for number in range(count):
        kind = ("real", "sp", "fr")[number % 3]
        image = rng.integers(0, 256, (70, 90, 3), np.uint8)
        if kind != "real":
            image[:, :40] //= 2
        write_image(folder / f"{number}.png", image)
        edited = kind != "real"
        rows.append(
            {
                "image": str(folder / f"{number}.png"),
                "mask": str(folder / "mask.png") if edited else "",
                "authentic": not edited,
                "dataset": "small",
                "generator": "none",
                "kind": kind,
                "background": "reencoded" if kind == "fr" else "real",
                "split": splits[number // 3 % len(splits)],
                "group": f"{folder.name} {number}",
                "width": 90,
                "height": 70,
                "area": 40 / 90 if edited else 0.0,
            }
        )
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")
    return folder / "manifest.csv"


def small_localizer(
    stride: int = 28, reduce: Reduce = "sum", classes: int = 1
) -> tuple[Localizer, list[int]]:
    """A localizer, and a list that grows by the windows of every batch through its backbone."""
    backbone = small_backbone()
    passed: list[int] = []
    backbone.model.patch_embed.register_forward_hook(
        lambda _module, inputs, _output: passed.append(len(inputs[0]))
    )
    card = replace(card_for(backbone), stride=stride, reduce=reduce)
    return Localizer(backbone, random_head(backbone.dim, classes), card), passed


def random_image(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
