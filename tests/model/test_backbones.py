"""The backbone gives timm's own patch tokens, frozen, and knows its weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small import SPEC, build_small_vit, small_backbone
from torch import nn

from dinolizer.errors import InputError
from dinolizer.model import pocket_vit
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.specs import build
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
    with pytest.raises(InputError, match=r"tensor norm.weight in .*weights.safetensors is not fin"):
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
