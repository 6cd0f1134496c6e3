"""The table of backbones agrees with timm about every model in it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from timm.models.eva import Eva

from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import card_for
from dinolizer.model.pocket_vit import PAIR_WINDOW, WINDOW
from dinolizer.model.specs import BACKBONES, TWINS, build

DIMS = {"small": 384, "base": 768, "large": 1024}
POCKET_DESIGNS = ("learned", "rotary")
POCKET_TASKS = ("images", "generic")  # of the architecture of learned
POCKET = ["pocket", *(f"pocket-{name}" for name in (*POCKET_DESIGNS, *POCKET_TASKS))]
TRAINED = ["bfree", *(f"{f}-{size}" for f in ("dinov2", "dinov3") for size in DIMS), *POCKET]


def test_the_names_are_these_and_a_control_for_each() -> None:
    twins = [name for design in TWINS.values() for name in design]
    untrained = [f"untrained-{name}" for name in TRAINED[: -len(POCKET_TASKS)]]
    assert list(BACKBONES) == ["dinolizer", *TRAINED, *untrained, *twins]
    for name, spec in BACKBONES.items():
        assert spec.name == name
        assert spec.window % spec.patch == 0
        assert 0 < spec.stride <= spec.window
        assert (spec.weights is None) == name.startswith("untrained-")


def test_small_images_are_padded_for_the_pocket_backbones_and_resized_for_the_others() -> None:
    for name, spec in BACKBONES.items():
        assert spec.small == ("pad" if "pocket" in name else "resize")
        backbone = SimpleNamespace(spec=spec, hash="0")
        assert card_for(backbone).small == spec.small  # type: ignore[arg-type]


@pytest.mark.parametrize("design", TWINS)
def test_twins_differ_in_their_weights_alone(design: str) -> None:
    own = BACKBONES[design]
    backbones = [load_backbone(name) for name in (design, *TWINS[design])]
    assert len({backbone.hash for backbone in backbones}) == 3
    for backbone in backbones:
        spec = backbone.spec
        assert replace(spec, name=own.name, weights=own.weights) == own
        assert spec.weights in (own.weights, f"package:{spec.name}.safetensors")


@pytest.mark.parametrize("name", TRAINED)
def test_a_row_says_what_timm_says(name: str) -> None:
    spec = BACKBONES[name]
    with torch.device("meta"):  # shapes without values
        model = build(spec)
    assert model.num_prefix_tokens == 5  # the class token and four registers
    assert model.patch_embed.patch_size == (spec.patch, spec.patch)
    if name in POCKET:
        assert spec.window == (WINDOW if name == "pocket" else PAIR_WINDOW)
        return
    cfg = model.pretrained_cfg
    assert (spec.mean, spec.std) == (cfg["mean"], cfg["std"])
    assert model.embed_dim == DIMS[name.partition("-")[2] or "base"]
    side = spec.window // spec.patch
    assert model.patch_embed.grid_size == (side, side)
    assert spec.stride == 128
    if isinstance(model, Eva):
        assert side == 32 and model.pos_embed is None and model.rope is not None
    else:
        assert side == 36 and model.pos_embed.shape == (1, 36 * 36, model.embed_dim)
    if name == "bfree":
        assert len(model.state_dict()) == 177  # the count that is known of the checkpoint
    else:
        assert spec.weights == f"hub:{cfg['hf_hub_id']}"
        assert spec.licence.lower().replace(" ", "-") == cfg["license"]


def test_the_two_small_ones_differ_in_patch_and_positions_alone() -> None:
    """As timm's DINOv2 and DINOv3 do: learned against rotary, 14 against 16 pixels."""
    learned, rotary = (build(BACKBONES[f"untrained-pocket-{name}"]) for name in POCKET_DESIGNS)
    with torch.device("meta"):
        v2, v3 = (build(BACKBONES[f"untrained-{name}-small"]) for name in ("dinov2", "dinov3"))
    for small, large in ((learned, v2), (rotary, v3)):
        assert type(small) is type(large)
        assert small.patch_embed.patch_size == large.patch_embed.patch_size
        assert small.num_prefix_tokens == large.num_prefix_tokens
        assert (small.pos_embed is None) == (large.pos_embed is None)
        assert (small.blocks[0].attn.qkv.bias is None) == (large.blocks[0].attn.qkv.bias is None)
    assert learned.pos_embed.shape == (1, 8 * 8, 64)
    assert type(rotary.rope) is type(v3.rope)
    assert rotary.rope.temperature == v3.rope.temperature
    assert learned.embed_dim == rotary.embed_dim
    assert len(learned.blocks) == len(rotary.blocks)
    batch = torch.rand(1, 3, 112, 112)
    assert learned(batch).shape == rotary(batch).shape == (1, 1)


def test_a_control_has_the_architecture_and_the_window_of_what_it_is_the_control_of() -> None:
    for name in TRAINED[: -len(POCKET_TASKS)]:
        one, other = BACKBONES[name], BACKBONES[f"untrained-{name}"]
        assert (one.architecture, one.window, one.classes) == (
            other.architecture,
            other.window,
            other.classes,
        )
