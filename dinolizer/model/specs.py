"""What is constant about each backbone, in one table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import timm
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from dinolizer.model import pocket_vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZES = ("small", "base", "large")

Transformer = VisionTransformer | Eva
Small = Literal["resize", "pad"]
Reduce = Literal["sum", "mean"]


@dataclass(frozen=True)
class BackboneSpec:
    """What is constant about a backbone, and the key in `BACKBONES`, stored in heads, as its name.

    ``weights`` is a safetensors file: ``"package:FILE"`` in ``assets``; ``"hub:REPOSITORY"`` on the
    Hugging Face hub; ``"fetch:NAME"`` in the user's cache once ``dinolizer fetch NAME`` was run;
    None: random weights of a fixed seed. The mean, not the sum, of overlapping windows' logits
    gives the same mask of one class, and a map that neither saturates nor depends on how many
    windows overlap; the sum is the paper's.
    """

    name: str
    architecture: str | Callable[[], Transformer]  # timm's name, or what builds it at random
    weights: str | None
    licence: str  # of the weights
    citation: str
    caution: str = (  # what a reader of its maps must know, in one sentence
        "A marked region is a hint, not a proof; an unmarked picture is no proof of authenticity."
    )
    patch: int = 14  # pixels
    window: int = 504  # pixels, a multiple of the patch
    stride: int = 128  # pixels, by default
    small: Small = "resize"  # what is done to an image under a window, see `windows.make_plan`
    reduce: Reduce = "sum"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of each channel, RGB in [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD
    classes: int = 0  # outputs of the weights' classifier, which takes no part in the tokens

    @property
    def fetched(self) -> bool:
        """Whether the weights, and a head, come by ``dinolizer fetch``."""
        return (self.weights or "").startswith("fetch:")


_POCKET: dict[str, Any] = {
    "caution": "A small demonstration that knows the traces of a few small generators: untouched "
    "photographs may be marked, and edits missed.",
    "small": "pad",
    "reduce": "mean",
    "mean": (0.0, 0.0, 0.0),
    "std": (1 / 255, 1 / 255, 1 / 255),  # grey levels, which the filters' thresholds are in
    "licence": "Apache-2.0",
    "citation": "This project; see the card beside the weights.",
}
_PAIR: dict[str, Any] = _POCKET | {
    "window": pocket_vit.PAIR_WINDOW,
    "stride": pocket_vit.PAIR_WINDOW // 2,
}
_TRAINED = (
    BackboneSpec(
        name="dinolizer",
        architecture="vit_base_patch14_reg4_dinov2.lvd142m",
        caution="The authors' released model for generative inpainting: a marked region is a hint, "
        "not a proof; an unmarked picture is no proof of authenticity.",
        weights="fetch:dinolizer",
        licence="not stated with the release; trained on B-Free's weights, whose licence is for "
        "nonprofit use only and holds for whatever is trained on them",
        citation="DinoLizer: Learning from the Best for Generative Inpainting Localization "
        "(arXiv:2511.20722), the authors' later public release",
    ),
    BackboneSpec(
        name="bfree",
        architecture="vit_base_patch14_reg4_dinov2.lvd142m",
        weights="fetch:bfree",
        licence="GRIP-UNINA: nonprofit use only, and so is whatever is trained on it",
        citation="Guillaro et al., A Bias-Free Training Paradigm for More General AI-generated "
        "Image Detection, CVPR 2025 (arXiv:2412.17671)",
        classes=1,
    ),
    *(
        BackboneSpec(
            name=f"dinov2-{size}",
            architecture=f"vit_{size}_patch14_reg4_dinov2.lvd142m",
            weights=f"hub:timm/vit_{size}_patch14_reg4_dinov2.lvd142m",
            licence="Apache-2.0",
            citation="Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, "
            "TMLR 2024 (arXiv:2304.07193); registers: Darcet et al., Vision Transformers Need "
            "Registers, ICLR 2024 (arXiv:2309.16588)",
        )
        for size in SIZES
    ),
    *(
        BackboneSpec(
            name=f"dinov3-{size}",
            architecture=f"vit_{size}_patch16_dinov3.lvd1689m",
            patch=16,
            window=512,  # 504 is no multiple of 16
            weights=f"hub:timm/vit_{size}_patch16_dinov3.lvd1689m",
            licence="DINOv3 License",
            citation="Siméoni et al., DINOv3, 2025 (arXiv:2508.10104)",
        )
        for size in SIZES
    ),
    BackboneSpec(
        name="pocket",
        architecture=pocket_vit.build_pocket_vit,
        window=pocket_vit.WINDOW,
        stride=pocket_vit.WINDOW // 2,
        weights="package:pocket-vit.safetensors",
        **_POCKET,
    ),
    *(
        BackboneSpec(
            name=f"pocket-{name}",
            architecture=architecture,
            patch=patch,
            weights=f"package:pocket-{name}.safetensors",
            **_PAIR,
        )
        for name, architecture, patch in (
            ("learned", pocket_vit.build_learned, pocket_vit.PATCH),
            ("rotary", pocket_vit.build_rotary, pocket_vit.ROTARY_PATCH),
            ("images", pocket_vit.build_learned, pocket_vit.PATCH),
            ("generic", pocket_vit.build_learned, pocket_vit.PATCH),
        )
    ),
)
# The negative control of each. The small LayerScale that the large ones start with (1e-5) makes
# their random blocks all but the identity: such tokens are mostly a random map of their own patch.
_UNTRAINED = (
    replace(
        spec,
        name=f"untrained-{spec.name}",
        weights=None,
        licence="Apache-2.0",
        citation="This project; random weights, for tests and as a control.",
    )
    for spec in _TRAINED
    # Architectures that are there as those of others:
    if spec.name not in ("dinolizer", "pocket-images", "pocket-generic")
)
TWINS = {
    spec.name: tuple(f"{spec.name}-{seed}" for seed in pocket_vit.SEEDS[1:])
    for spec in _TRAINED
    if spec.window == pocket_vit.PAIR_WINDOW
}
"""Backbones that were made as one of another name, but with other seeds."""
_TWINS = (
    replace(spec, name=name, weights=f"package:{name}.safetensors")
    for spec in _TRAINED
    for name in TWINS.get(spec.name, ())
)
BACKBONES = {spec.name: spec for spec in (*_TRAINED, *_UNTRAINED, *_TWINS)}


def build(spec: BackboneSpec) -> Transformer:
    """Build a backbone's timm model for its window, with random weights."""
    if callable(spec.architecture):
        return spec.architecture()
    model = timm.create_model(spec.architecture, img_size=spec.window, num_classes=spec.classes)
    return cast(Transformer, model)
