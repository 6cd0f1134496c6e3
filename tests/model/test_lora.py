"""An adapter starts as nothing, learns alone, and merges into the weights without a trace."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import SPEC, random_head, small_backbone
from timm.models.eva import Eva
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, Backbone
from dinolizer.model.head import HeadCard, load_head, save_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.lora import Lora, adapted, adapter_tensors, merged

LORA = Lora(rank=4, alpha=8)


def eva_backbone() -> Backbone:
    """The architecture of DINOv3 in small: rotary positions, no bias on the queries."""
    torch.manual_seed(0)
    model = Eva(
        img_size=56,
        patch_size=14,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=0,
        num_reg_tokens=4,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        qkv_bias=False,
        dynamic_img_size=True,
    )
    return Backbone(replace(SPEC, name="eva"), model)  # type: ignore[arg-type]


def batch() -> Tensor:
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def shaken(backbone: Backbone, lora: Lora = LORA) -> Backbone:
    """An adapted copy whose adapter is not zero any more."""
    twin = adapted(backbone, lora)
    generator = torch.Generator().manual_seed(2)
    for parameter in twin.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return twin


@pytest.mark.parametrize("make", [small_backbone, eva_backbone])
def test_only_the_adapter_has_gradients_and_as_many_parameters_as_counted(make: object) -> None:
    backbone = make()  # type: ignore[operator]
    twin = adapted(backbone, LORA)
    twin.tokens(batch()).square().sum().backward()
    learned = {name: value for name, value in twin.named_parameters() if value.requires_grad}
    # In each of 2 blocks, of the queries and of the values: A from 32 to 4 and B back.
    assert len(learned) == 2 * 2 * 2
    assert sum(value.numel() for value in learned.values()) == 2 * 2 * 4 * (32 + 32)
    for name, value in learned.items():
        assert value.grad is not None
        if "linear_b" in name:  # that of A is zero as long as B is
            assert value.grad.abs().max() > 0, name
    assert all(value.grad is None for name, value in twin.named_parameters() if name not in learned)
    assert not any(value.requires_grad for value in backbone.parameters())


def test_the_published_adapter_has_as_many_parameters_as_counted() -> None:
    backbone = Backbone(BACKBONES["untrained-pocket"], BACKBONES["untrained-pocket"].architecture())
    depth, dim = len(backbone.model.blocks), backbone.dim
    learned = sum(p.numel() for p in adapted(backbone, Lora()).parameters() if p.requires_grad)
    assert learned == depth * 2 * 64 * 2 * dim  # queries and values, A and B


def test_it_starts_as_nothing_and_leaves_the_original_alone() -> None:
    backbone = small_backbone()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    twin = adapted(backbone, LORA)
    assert torch.rand(1) == expected
    torch.testing.assert_close(twin.tokens(batch()), backbone(batch()), rtol=0, atol=0)
    assert twin.hash == backbone.hash
    assert not any("linear_" in name for name, _ in backbone.named_modules())
    again = adapter_tensors(adapted(backbone, LORA))
    assert all(torch.equal(value, again[name]) for name, value in adapter_tensors(twin).items())


@pytest.mark.parametrize("make", [small_backbone, eva_backbone])
def test_merged_equals_unmerged(make: object) -> None:
    backbone = make()  # type: ignore[operator]
    twin = shaken(backbone)
    whole = merged(backbone, LORA, adapter_tensors(twin))
    expected = twin.tokens(batch())
    assert (expected - backbone(batch())).abs().max() > 0.01
    torch.testing.assert_close(whole(batch()), expected, rtol=0, atol=1e-5)
    assert {name for name, _ in whole.named_parameters()} == {
        name for name, _ in backbone.named_parameters()
    }
    assert not any(value.requires_grad for value in whole.parameters())


def test_merging_adds_scaled_products_to_queries_and_values_only() -> None:
    backbone = small_backbone()
    tensors = adapter_tensors(shaken(backbone))
    whole = merged(backbone, LORA, tensors)
    name = "blocks.1.attn.qkv"
    before, after = (
        made.model.get_submodule(name).weight.split(32) for made in (backbone, whole)
    )  # queries, keys, values of 32 rows each
    for third, rows in (("q", 0), ("v", 2)):
        a, b = (tensors[f"{name}.linear_{half}_{third}.weight"] for half in "ab")
        torch.testing.assert_close(after[rows], before[rows] + 8 / 4 * (b @ a))
    assert torch.equal(after[1], before[1])
    assert whole.hash != backbone.hash


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": -1}])
def test_settings_that_no_adapter_has_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a rank and an alpha over 0"):
        Lora(**settings)


def test_gradients_equal_those_through_the_summed_weights() -> None:
    """Autograd through the plain model, with ``W + alpha / rank * B A`` put in for each weight."""
    backbone = small_backbone()
    twin = shaken(backbone)
    twin.tokens(batch()).square().sum().backward()
    tensors = {
        name: value.detach().requires_grad_() for name, value in adapter_tensors(twin).items()
    }
    weights = dict(backbone.model.named_parameters())
    for block in (0, 1):
        name = f"blocks.{block}.attn.qkv"
        q, v = (
            tensors[f"{name}.linear_b_{third}.weight"] @ tensors[f"{name}.linear_a_{third}.weight"]
            for third in "qv"
        )
        products = torch.cat([q, torch.zeros_like(q), v])
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + 2 * products
    normed = (batch() - backbone.mean) / backbone.std
    normed_tokens = []
    hook = backbone.model.norm.register_forward_hook(lambda *made: normed_tokens.append(made[2]))
    torch.func.functional_call(backbone.model, weights, (normed,))
    hook.remove()
    normed_tokens[0][:, 5:].square().sum().backward()  # after class token and registers
    for name, value in twin.named_parameters():
        if value.requires_grad:
            plain = tensors[name.removeprefix("model.")]
            torch.testing.assert_close(value.grad, plain.grad, rtol=1e-4, atol=1e-5)


def written(path: Path, backbone: Backbone, twin: Backbone) -> tuple[nn.Conv2d, HeadCard]:
    head = random_head(backbone.dim, 3)
    card = HeadCard("small", backbone.hash, "three-class", 56, 28, reduce="mean", lora=LORA)
    save_head(path, head, card, adapter_tensors(twin))
    return head, card


def test_the_file_holds_adapter_and_head_and_comes_back(tmp_path: Path) -> None:
    backbone = small_backbone()
    twin = shaken(backbone)
    path = tmp_path / "head.safetensors"
    head, card = written(path, backbone, twin)
    whole, loaded, read = load_head(path, backbone)
    assert read == card
    torch.testing.assert_close(loaded.weight, head.weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(whole(batch()), twin.tokens(batch()), rtol=0, atol=1e-5)
    # 2 blocks x q and v x A and B, weight and bias: float32 each, and no weight of the backbone.
    numbers = 2 * 2 * 4 * (32 + 32) + 3 * 33
    assert 4 * numbers < path.stat().st_size < 4 * numbers + 4096
    assert Localizer(whole, loaded, read)(torch.zeros(60, 60, 3).byte().numpy()).mask.shape == (
        60,
        60,
    )


def test_the_adapter_of_another_backbone_is_refused(tmp_path: Path) -> None:
    backbone = small_backbone()
    path = tmp_path / "head.safetensors"
    written(path, backbone, shaken(backbone))
    whole, _, _ = load_head(path, backbone)
    for other in (small_backbone(seed=1), whole):  # an adapter is not merged twice
        with pytest.raises(InputError, match="was trained on 'small'"):
            load_head(path, other)


@pytest.mark.parametrize("rank", [3, 5])
def test_an_adapter_that_belies_its_card_is_refused(rank: int) -> None:
    backbone = small_backbone()
    tensors = adapter_tensors(adapted(backbone, replace(LORA, rank=rank)))
    with pytest.raises(InputError, match="does not fit the backbone"):
        merged(backbone, LORA, tensors)
    with pytest.raises(InputError, match="does not fit the backbone"):
        merged(backbone, LORA, {})


def test_an_adapter_that_the_card_does_not_know_of_is_refused(tmp_path: Path) -> None:
    backbone = small_backbone()
    card = HeadCard("small", backbone.hash, "pristine", 56, 28)
    path = tmp_path / "head.safetensors"
    save_head(path, random_head(32), card, adapter_tensors(shaken(backbone)))
    with pytest.raises(InputError, match="which its card promises"):
        load_head(path, backbone)
