"""A small backbone for tests: timm's own transformer, random weights, a moment to run."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dinolizer.model.backbones import Backbone, BackboneSpec
from dinolizer.model.head import make_head


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


def random_head(dim: int, classes: int = 1) -> nn.Conv2d:
    head = make_head(dim, classes)
    generator = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return head
