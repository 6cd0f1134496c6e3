"""The pocket backbones: small vision transformers that see a photograph's residual first."""

from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 14
ROTARY_PATCH = 16
WINDOW = 112
"""Side of the crops of all pre-training, in pixels: a multiple of both patches."""
DIM = 192
REGISTERS = 4
SHARED: dict[str, Any] = {
    "embed_dim": DIM,
    "depth": 4,
    "num_heads": 3,
    "num_classes": 1,
    "global_pool": "avgmax",
    "dynamic_img_size": True,
}
"""What all pocket backbones are alike in, by timm's names."""
RESIDUAL_GAIN = 8.0
"""Residuals are some ten times fainter than what they are the residuals of."""


class ResidualStem(nn.Module):
    """Patch embedding of high-pass residuals, with the interface of timm's ``PatchEmbed``.

    Traces of generation live in the noise, which a plain patch embedding learns to uncover only
    slowly. So a 3x3 mean is subtracted, and convolutions at full and half resolution describe the
    texture of the residual before one patch becomes one token.
    """

    def __init__(
        self,
        img_size: int | None = None,
        patch_size: int = PATCH,
        in_chans: int = 3,
        embed_dim: int = DIM,
        **_timm_options: Any,
    ) -> None:
        super().__init__()
        if patch_size % 2:
            raise ValueError(f"The patch size is {patch_size}, but the stem needs an even one.")
        self.patch_size = (patch_size, patch_size)
        self.img_size = None
        side = 0 if img_size is None else img_size // patch_size
        self.grid_size = (side, side)  # that learned positions are of
        self.num_patches = side**2
        self.dynamic_img_pad = False
        layers: list[nn.Module] = []
        for channels, width, kernel, stride in (
            (in_chans, 24, 5, 1),
            (24, 48, 3, 2),
            (48, 48, 3, 1),
        ):
            conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(48, embed_dim, patch_size // 2, stride=patch_size // 2)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def forward(self, x: Tensor) -> Tensor:
        residual = x - F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        features = RESIDUAL_GAIN * residual
        if self.training:
            features = self.layers(features)
        else:
            for conv, norm, _ in zip(*[iter(self.layers)] * 3, strict=True):
                features = _folded(conv, norm, features).relu_()
        tokens = self.proj(features)  # (N, D, h, w)
        return tokens.permute(0, 2, 3, 1)  # timm flattens (N, h, w, D) itself


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """A convolution and the batch norm after it, with its fixed statistics, in one pass over x:
    so the backbone took 0.8 to 0.9 of the time on one core."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias - norm.running_mean * scale
    return F.conv2d(x, conv.weight * scale[:, None, None, None], bias, conv.stride, conv.padding)


def build_pocket_vit() -> VisionTransformer:
    """The pocket backbone with random weights, without position embedding, as traces of generation
    do not depend on where they are. Its one logit, > 0 meaning generated, comes from half the mean
    and half the maximum of the tokens: a small generated region counts."""
    return _patch14(PATCH * 16, pos_embed="none")


def build_learned() -> VisionTransformer:
    """Build the small partner of DINOv2: as the pocket backbone, and with learned positions."""
    return _patch14(WINDOW, pos_embed="learn", no_embed_class=True)


def build_rotary() -> Eva:
    """Build the small partner of DINOv3: patch 16, rotary positions and no bias of the queries,
    keys and values, as in timm's models of it; all else is that of `build_learned`."""
    model = Eva(
        img_size=WINDOW,
        patch_size=ROTARY_PATCH,
        num_reg_tokens=REGISTERS,
        use_fc_norm=False,
        qkv_bias=False,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        **SHARED,
    )
    stem: Any = ResidualStem(WINDOW, ROTARY_PATCH)
    model.patch_embed = stem  # Eva builds none but its own
    return model


def _patch14(side: int, **positions: Any) -> VisionTransformer:
    return VisionTransformer(
        img_size=side,
        patch_size=PATCH,
        reg_tokens=REGISTERS,
        fc_norm=False,
        embed_layer=ResidualStem,
        **SHARED,
        **positions,
    )
