"""The pocket backbones: small vision transformers on fixed statistics of residuals."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 14
ROTARY_PATCH = 16
WINDOW = 224
"""Side of the crops of the pre-training, in pixels."""
PAIR_WINDOW = 112
"""That of the two designs that are compared: a multiple of both their patches."""
SEEDS = 0, 1, 2
"""Of the pre-trainings of each design that is compared."""
DIM, PAIR_DIM = 128, 64
"""Values of a token; of the designs that are compared, of which there are many."""
REGISTERS = 4
SHARED: dict[str, Any] = {
    "depth": 4,
    "num_heads": 4,
    "num_classes": 1,
    "global_pool": "avgmax",
    "dynamic_img_size": True,
}
"""What all pocket backbones are alike in, by timm's names."""
FLOOR = 0.05
"""Grey levels, or their square, added to moments: the logarithm of a flat area stays finite."""
STATISTICS_DROPPED = 0.25
"""Share of the statistics that a step of the pre-training leaves out, others in each image: other
generators than those it learns from show in some of them only."""
SMALL = 1 - 1 / 24
"""Grey levels, under which a residual is small. Those of 8-bit pixels are multiples of a twelfth:
at one grey level itself, rounding would decide."""
LAGS = ((0, 1), (0, 2), (0, 4), (0, 8), (1, 0), (2, 0), (4, 0), (8, 0), (1, 1))
"""Rows and columns by which the residual is compared with itself: resampling is periodic."""


def luma_filters() -> Tensor:
    """Zero-sum filters ``(12, 1, 5, 5)``: products of differences and means along both axes, as in
    the Spatial Rich Models (Fridrich and Kodovsky 2012)."""
    first, second = _kernel(0, 0, -1, 1, 0), _kernel(0, 1, -2, 1, 0)
    third, fourth = _kernel(0, -1, 3, -3, 1), _kernel(1, -4, 6, -4, 1)
    one, mean = _kernel(0, 0, 1, 0, 0), _kernel(0, 1, 2, 1, 0) / 4
    pairs = [(first, one), (second, one), (third, one), (second, mean), (fourth, mean)]
    both = [(second, second), (fourth, fourth)]
    crossed = [torch.outer(y, x) for a, b in pairs for y, x in ((a, b), (b, a))]
    return torch.stack([*crossed, *(torch.outer(y, x) for y, x in both)])[:, None]


def chroma_filters() -> Tensor:
    """Zero-sum filters ``(5, 1, 5, 5)``: Laplacian, first and second differences on both axes."""
    first, second = _kernel(0, 0, -1, 1, 0), _kernel(0, 1, -2, 1, 0)
    one = _kernel(0, 0, 1, 0, 0)
    rows = [torch.outer(one, kernel) for kernel in (first, second)]
    laplacian = torch.outer(second, one) + torch.outer(one, second)
    return torch.stack([*rows, *(kernel.T for kernel in rows), laplacian])[:, None]


def _kernel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


class TraceStem(nn.Module):
    """Patch embedding of residual statistics, with the interface of timm's ``PatchEmbed``.

    Traces of generation live in the noise: which a patch embedding learns to uncover only slowly,
    and from little material wrongly. So the filters are fixed. Of luma and of both colour
    differences, a patch and its neighbourhood of 3x3 patches are described by moments of the
    residuals (their spread, peakedness, kurtosis, and the share under one grey level), by how far
    the residual resembles itself some pixels on, and by how the colours agree; each less its mean
    over the window, as photographs differ more from each other than edits from what is around
    them. What is learned is one linear map of these to a token."""

    luma: Tensor
    chroma: Tensor

    def __init__(
        self,
        img_size: int | None = None,
        patch_size: int = PATCH,
        in_chans: int = 3,
        embed_dim: int = DIM,
        **_timm_options: Any,
    ) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.img_size = None
        side = 0 if img_size is None else img_size // patch_size
        self.grid_size = (side, side)  # that learned positions are of
        self.num_patches = side**2
        self.dynamic_img_pad = False
        self.register_buffer("luma", luma_filters(), persistent=False)
        self.register_buffer("chroma", chroma_filters(), persistent=False)
        moments = 4 * (len(self.luma) + 2 * len(self.chroma))
        self.norm = nn.BatchNorm2d(2 * (moments + len(LAGS) + in_chans), affine=False)
        self.proj = nn.Conv2d(self.norm.num_features, embed_dim, 1)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(N, h, w, D)``, which timm flattens, of RGB ``(N, 3, H, W)`` from 0 to 255."""
        normal = F.dropout2d(self.normalised(x), STATISTICS_DROPPED, self.training)
        return self.proj(normal).permute(0, 2, 3, 1)

    def normalised(self, x: Tensor) -> Tensor:
        """The statistics ``(N, C, h, w)`` less their mean over the window, of unit variance."""
        # Residuals are differences of almost equal numbers: never in half precision.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            features = self.statistics(x.float())
            features = features - features.mean(dim=(2, 3), keepdim=True)
        return self.norm(features).clamp(-6, 6).to(self.proj.weight.dtype)

    def statistics(self, x: Tensor) -> Tensor:
        """The statistics ``(N, C, h, w)``, first of each patch, then of its neighbourhood."""
        size, pool = self.patch_size[0], F.avg_pool2d
        luma = x.mean(dim=1, keepdim=True)
        red, blue = x[:, :1] - luma, x[:, 2:] - luma
        channels = ((luma, self.luma), (red, self.chroma), (blue, self.chroma))
        moments = [_moments(_filtered(*channel), size) for channel in channels]
        first, second, fourth, small = (
            torch.cat(same, dim=1) for same in zip(*moments, strict=True)
        )
        texture = _filtered(luma, self.luma[-2:-1])
        products = torch.cat([texture * texture.roll(lag, (2, 3)) for lag in LAGS], dim=1)
        power = pool(texture.square(), size)
        colours = _filtered(x.flatten(0, 1)[:, None], self.chroma[-1:]).view_as(x)
        crossed = pool(colours * colours.roll(1, dims=1), size)
        strength = pool(colours.square(), size)
        means = first, second, fourth, small, pool(products, size), power, crossed, strength
        around = [pool(of, 3, stride=1, padding=1, count_include_pad=False) for of in means]
        return torch.cat([_described(means), _described(around)], dim=1)


def _moments(residual: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means over patches: of the absolute value, its square, its fourth power, and being small."""
    absolute = residual.abs_()
    small = F.avg_pool2d(absolute.lt(SMALL).to(absolute.dtype), size)
    first = F.avg_pool2d(absolute, size)
    second = F.avg_pool2d(absolute.square_(), size)
    return first, second, F.avg_pool2d(absolute.square_(), size), small


def _described(means: Sequence[Tensor]) -> Tensor:
    """From means over areas to what is compared between them."""
    first, second, fourth, small, products, power, crossed, strength = means
    spread, energy = (first + FLOOR).log(), (second + FLOOR).log()
    peaked, kurtosis = energy - 2 * spread, (fourth + FLOOR).log() - 2 * energy
    both = (strength * strength.roll(1, dims=1)).sqrt()
    alike = products / (power + FLOOR), crossed / (both + FLOOR)
    return torch.cat([spread, peaked, kurtosis, small, *alike], dim=1)


def _filtered(x: Tensor, filters: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, [filters.shape[-1] // 2] * 4, mode="replicate"), filters.float())


def build_pocket_vit() -> VisionTransformer:
    """The pocket backbone with random weights, without position embedding, as traces of generation
    do not depend on where they are. Its one logit, > 0 meaning generated, comes from half the mean
    and half the maximum of the tokens: a small generated region counts."""
    return _patch14(WINDOW, DIM, pos_embed="none")


def build_learned() -> VisionTransformer:
    """Build the small partner of DINOv2: as the pocket backbone, and with learned positions."""
    return _patch14(PAIR_WINDOW, PAIR_DIM, pos_embed="learn", no_embed_class=True)


def build_rotary() -> Eva:
    """Build the small partner of DINOv3: patch 16, rotary positions and no bias of the queries,
    keys and values, as in timm's models of it; all else is that of `build_learned`."""
    model = Eva(
        img_size=PAIR_WINDOW,
        patch_size=ROTARY_PATCH,
        embed_dim=PAIR_DIM,
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
    stem: Any = TraceStem(PAIR_WINDOW, ROTARY_PATCH, embed_dim=PAIR_DIM)
    model.patch_embed = stem  # Eva builds none but its own
    return model


def _patch14(side: int, dim: int, **positions: Any) -> VisionTransformer:
    return VisionTransformer(
        img_size=side,
        embed_dim=dim,
        patch_size=PATCH,
        reg_tokens=REGISTERS,
        fc_norm=False,
        embed_layer=TraceStem,
        **SHARED,
        **positions,
    )
