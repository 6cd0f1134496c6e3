"""What is constant about each backbone: the table ``assets/backbones.yaml``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import timm
import yaml
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from dinolizer.model import pocket_vit
from dinolizer.paths import ASSETS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

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
    windows overlap; the sum is the paper's."""

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


def _spec(name: str, fields: dict[str, Any]) -> BackboneSpec:
    given: dict[str, Any] = {key: tuple(fields[key]) for key in ("mean", "std") if key in fields}
    given["architecture"] = getattr(pocket_vit, fields["architecture"], fields["architecture"])
    return BackboneSpec(name, **fields | given)


_TABLE = yaml.safe_load((ASSETS / "backbones.yaml").read_text(encoding="utf-8"))
_TRAINED = [_spec(name, fields) for name, fields in _TABLE.items()]
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
