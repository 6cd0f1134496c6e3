"""The head has as many parameters as the paper says, and its file knows what it was made for."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small import random_head, small_backbone

from dinolizer.errors import InputError
from dinolizer.model.head import HeadCard, load_head, make_head, save_head


def card(**changes: object) -> HeadCard:
    backbone = small_backbone()
    made = HeadCard(
        backbone="small", backbone_hash=backbone.hash, policy="pristine", window=56, stride=28
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_head_of_vit_b_has_769_parameters() -> None:
    assert sum(parameter.numel() for parameter in make_head(768).parameters()) == 769
    assert make_head(768)(torch.zeros(2, 768, 36, 36)).shape == (2, 1, 36, 36)
    assert sum(parameter.numel() for parameter in make_head(768, 3).parameters()) == 3 * 769


@pytest.mark.parametrize(("policy", "classes"), [("pristine", 1), ("fake", 1), ("three-class", 3)])
def test_a_head_comes_back_with_its_card(policy: str, classes: int, tmp_path: Path) -> None:
    head = random_head(32, classes)
    written = card(policy=policy, threshold=0.25, reduce="mean", small="pad", about="seed 0, é\n")
    save_head(tmp_path / "head.safetensors", head, written)
    _, loaded, read = load_head(tmp_path / "head.safetensors", small_backbone())
    assert read == written
    torch.testing.assert_close(loaded.weight, head.weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(loaded.bias, head.bias.detach(), rtol=0, atol=0)
    assert not loaded.weight.requires_grad
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]


@pytest.mark.parametrize("change", ["name", "weights"])
def test_the_head_of_another_backbone_is_refused_naming_both(change: str, tmp_path: Path) -> None:
    backbone = small_backbone()
    other = card(backbone="large") if change == "name" else card(backbone_hash="f" * 64)
    save_head(tmp_path / "head.safetensors", make_head(32), other)
    with pytest.raises(InputError) as caught:
        load_head(tmp_path / "head.safetensors", backbone)
    for part in (other.backbone, other.backbone_hash[:12], "'small'", backbone.hash[:12]):
        assert part in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_head_is_one_sentence(share: float, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(path, make_head(32), card())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="cannot be read"):
        load_head(path, small_backbone())


def test_garbage_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 8)
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: to read it would never end
    for path in (tmp_path / "garbage", tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="cannot be read"):
            load_head(path, small_backbone())


def test_safetensors_that_are_no_head_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="lacks 'backbone'"):
        load_head(path, small_backbone())


def test_tensors_that_belie_the_card_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(path, make_head(31), card())
    with pytest.raises(InputError, match="32 values to 1"):
        load_head(path, small_backbone())


def test_a_head_that_is_not_finite_is_one_sentence(tmp_path: Path) -> None:
    path, head = tmp_path / "head.safetensors", make_head(32)
    head.bias.data.fill_(torch.nan)
    save_head(path, head, card())
    with pytest.raises(InputError, match=r"The bias of .*head.safetensors is not finite"):
        load_head(path, small_backbone())


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("stride", "2[", "card of the head .* is damaged"),
        ("stride", "28.5", "is damaged"),
        ("stride", "2" * 5000, "is damaged"),
        ("stride", "true", "is damaged"),
        ("about", "[" * 100_000, "is damaged"),
        ("backbone_hash", "5", "is damaged"),
        ("score_threshold", '"high"', "is damaged"),
        ("policy", "{}", "policy is {}, but it must be one of"),
        ("threshold", "NaN", "The threshold is nan"),
        ("score_threshold", "Infinity", "The threshold is inf"),
        ("window", "1400000", "a window of at most 4096 pixels"),
        ("lora", '{"rank": 0}', "a rank and an alpha over 0"),
        ("lora", '{"alpha": NaN}', "a rank and an alpha over 0"),
        ("lora", '{"targets": "(.*.*.*)*x"}', "is damaged"),
        ("lora", '{"rank": 1000000000000}', "does not fit the backbone"),
    ],
)
def test_a_hostile_or_damaged_card_is_one_sentence(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    """Before anything is computed or much memory is taken; no pattern of a card is ever matched."""
    path = tmp_path / "head.safetensors"
    save_head(path, make_head(32), card())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {name: text}
    save_file(make_head(32).state_dict(), path, metadata=metadata)
    with pytest.raises(InputError, match=says) as caught:
        load_head(path, small_backbone())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "real"}, "policy is 'real'.*three-class"),
        ({"reduce": "max"}, "reduce is 'max'"),
        ({"small": "crop"}, "small is 'crop'"),
        ({"threshold": 2}, "threshold is 2"),
        ({"stride": 57}, "stride is 57"),
    ],
)
def test_a_card_with_an_impossible_setting_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        card(**change)
