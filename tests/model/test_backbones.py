"""The backbone gives timm's patch tokens, equal to a second implementation's, and is frozen."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from checkpoints import randomize
from safetensors.torch import save_file
from small import SPEC, build_small_vit, small_backbone, small_classifier
from torch import Tensor, nn
from torch.nn.functional import conv2d

from dinolizer.errors import InputError
from dinolizer.model import pocket_vit
from dinolizer.model.backbones import Backbone, load_backbone
from dinolizer.model.specs import BACKBONES, BackboneSpec, Transformer, build
from dinolizer.model.weights import weights_hash


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_tokens_equal_timms_own_forward_without_class_token_and_four_registers(
    batch: torch.Tensor,
) -> None:
    backbone = small_backbone()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    normalised = (batch - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        every = backbone.model.forward_features(normalised)  # (2, 1 + 4 + 16, 32), normed
    assert every.shape == (2, 21, 32)
    expected = every[:, 5:].reshape(2, 4, 4, 32).permute(0, 3, 1, 2)
    tokens = backbone(batch)
    assert tokens.shape == (2, 32, 4, 4)
    torch.testing.assert_close(tokens, expected)


def test_tokens_equal_a_forward_written_out_block_by_block(batch: torch.Tensor) -> None:
    backbone = small_backbone()
    model = backbone.model
    with torch.no_grad():
        x = (batch - backbone.mean) / backbone.std
        x = model.patch_embed.proj(x).flatten(2).transpose(1, 2)  # (N, 16, 32)
        prefix = [model.cls_token.expand(2, -1, -1), model.reg_token.expand(2, -1, -1)]
        x = torch.cat([*prefix, x], dim=1) + model.pos_embed
        for block in model.blocks:
            x = x + block.attn(block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        expected = model.norm(x)[:, 1 + 4 :].transpose(1, 2).reshape(2, 32, 4, 4)
    torch.testing.assert_close(backbone(batch), expected)


def test_the_pocket_backbone_too_gives_timms_patch_tokens_of_any_grid() -> None:
    backbone = load_backbone("untrained-pocket", device="cpu")
    batch = torch.rand(1, 3, 28, 70)
    with torch.no_grad():
        every = backbone.model.forward_features((batch - backbone.mean) / backbone.std)
    expected = every[:, backbone.model.num_prefix_tokens :].transpose(1, 2).reshape(1, -1, 2, 5)
    tokens = backbone(batch)
    assert tokens.shape == (1, backbone.dim, 2, 5)
    torch.testing.assert_close(tokens, expected)


def test_the_classifiers_logit_is_a_linear_map_of_the_class_token(batch: torch.Tensor) -> None:
    backbone = small_classifier()
    with torch.no_grad():
        every = backbone.model.forward_features((batch - backbone.mean) / backbone.std)
    weights, bias = backbone.model.head.weight[0], backbone.model.head.bias
    torch.testing.assert_close(backbone.image_logits(batch), every[:, 0] @ weights + bias)


def test_without_a_classifier_there_is_no_logit_of_an_image(batch: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"^The model 'small' has no classifier of one output"):
        small_backbone().image_logits(batch)


def test_it_stays_frozen_when_the_whole_is_trained(batch: torch.Tensor) -> None:
    backbone = small_backbone()
    whole = nn.Sequential(backbone, nn.Conv2d(32, 1, 1))
    before = backbone(batch)
    whole.train()
    assert whole.training
    assert not any(module.training for module in backbone.modules())
    # The model has dropout of one half: in train mode no two forwards would agree.
    torch.testing.assert_close(backbone(batch), before, rtol=0, atol=0)
    whole(batch).sum().backward()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert whole[1].weight.grad is not None
    assert not backbone(batch).requires_grad


def test_the_hash_is_of_sorted_names_shapes_and_float32_bytes() -> None:
    module = nn.Linear(2, 1)
    digest = hashlib.sha256()
    for name, values in (("bias", module.bias), ("weight", module.weight)):
        shape = "(1,)" if name == "bias" else "(1, 2)"
        digest.update(f"{name} {shape}\n".encode() + values.detach().numpy().tobytes())
    assert weights_hash(module) == digest.hexdigest()


def test_the_hash_changes_with_one_weight_and_not_with_the_run() -> None:
    assert small_backbone().hash == small_backbone().hash
    assert small_backbone(seed=1).hash != small_backbone().hash
    model = build_small_vit()
    before = Backbone(SPEC, model).hash
    with torch.no_grad():
        model.blocks[0].mlp.fc1.bias[3] += 1e-3
    assert Backbone(SPEC, model).hash != before


def test_untrained_weights_are_the_same_every_time_and_leave_the_callers_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_backbone("untrained-pocket", device="cpu")
    assert torch.rand(1) == expected
    assert load_backbone("untrained-pocket", device="cpu").hash == first.hash


def test_weights_from_a_file_are_used(tmp_path: Path) -> None:
    model = build(BACKBONES["untrained-pocket"])
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_backbone("untrained-pocket", tmp_path / "weights.safetensors", "cpu")
    assert loaded.hash == weights_hash(model)


def test_learned_positions_are_resampled_to_another_window(tmp_path: Path) -> None:
    """As timm does it when a model's input size is changed."""
    name = "untrained-dinov2-small"
    backbone = load_backbone(name)
    save_file(backbone.model.state_dict(), tmp_path / "own.safetensors")
    smaller = load_backbone(name, tmp_path / "own.safetensors", window=448)
    backbone.model.set_input_size(448)
    assert smaller.spec.window == 448
    assert torch.equal(smaller.model.pos_embed, backbone.model.pos_embed)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_one_sentence_with_the_tensor(
    value: float, tmp_path: Path
) -> None:
    state = build(BACKBONES["untrained-pocket"]).state_dict()
    state["norm.weight"][5] = value
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"norm.weight of .*weights.safetensors is not fin"):
        load_backbone("untrained-pocket", tmp_path / "weights.safetensors", "cpu")


def test_the_fingerprint_is_of_what_the_code_makes_and_not_of_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = load_backbone("untrained-pocket", device="cpu")
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert load_backbone("untrained-pocket", device="cpu").fingerprint == first.fingerprint
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(pocket_vit, "LAGS", pocket_vit.LAGS[::-1])
    changed = load_backbone("untrained-pocket", device="cpu")
    assert changed.hash == first.hash
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"", "cannot"), (b"x" * 99, "cannot")]
)
def test_missing_or_damaged_weights_are_one_sentence(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_backbone("untrained-pocket", path, "cpu")


def test_weights_of_another_model_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"norm.weight": torch.ones(3)}, path)
    with pytest.raises(InputError, match="do not fit the model 'untrained-pocket'") as caught:
        load_backbone("untrained-pocket", path, "cpu")
    assert "\n" not in str(caught.value)


def test_unknown_models_and_devices_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"'dino', but it must be one of .*'pocket'"):
        load_backbone("dino")
    # Unknown, without values, without its driver, without its module, without such a number.
    for device in ("abacus", "meta", "xla", "hpu", "privateuseone", "cpu:-1", "cuda:-1", "cuda:99"):
        with pytest.raises(InputError, match=f"device is '{device}', but it must be one that"):
            load_backbone("untrained-pocket", device=device)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.zeros(1, 3, 56, 57), "56x57.*multiples of the patch of 14"),
        (torch.zeros(3, 56, 56), "floating-point"),
        (torch.zeros(1, 56, 56, 3), "floating-point"),
        (torch.zeros(1, 3, 56, 56, dtype=torch.uint8), "uint8"),
    ],
)
def test_other_batches_are_refused(bad: torch.Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        small_backbone()(bad)


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


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-small"])
def test_layer_0_is_a_linear_map_of_the_patch_and_its_position(name: str) -> None:
    """By a strided convolution and the model's own last norm; DINOv3 adds no position here."""
    backbone, state = tiny(BACKBONES[name], img_size=5 * BACKBONES[name].patch)
    batch = pictures(*[5 * backbone.spec.patch] * 2)
    stem = (state["patch_embed.proj.weight"], state["patch_embed.proj.bias"])
    expected = conv2d(normalised(batch, backbone.spec), *stem, stride=backbone.spec.patch)
    if "pos_embed" in state:
        expected = expected + state["pos_embed"].mT.unflatten(2, (5, 5))
    expected = backbone.model.norm(expected.movedim(1, 3)).movedim(3, 1)
    found, last = backbone.tokens_of_layers(batch, [0, backbone.depth])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(last, backbone(batch))
    torch.testing.assert_close(backbone.tokens_of_layers(batch, [0])[0], found)


@pytest.mark.parametrize("layers", [[], [-1], [4], [2, 1], [1, 1]])
def test_layers_that_are_not_there_or_not_in_order_are_refused(layers: list[int]) -> None:
    backbone, _ = tiny(BACKBONES["dinov2-small"], img_size=70)
    with pytest.raises(InputError, match="has those from 0 to 3"):
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
