"""Low-rank adapters (LoRA) inside a backbone: added, taken out as tensors, merged."""

import copy
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone

ATTENTION = r".*\.attn\.(qkv|proj)"
"""The attention projections by their names in timm: input (queries, keys, values) and output."""


@dataclass(frozen=True)
class Lora:
    """Settings of an adapter: ``W x`` becomes ``W x + alpha / rank * B (A x)`` (Hu et al., 2021).

    Attributes
    ----------
    rank, alpha
        64 and 64 in the later public release of DinoLizer.
    targets
        Regular expression for the names of the linear layers that get one. The release is only
        reported to adapt the transformer; that it is all attention projections is our reading.
    """

    rank: int = 64
    alpha: int = 64
    targets: str = ATTENTION


def adapted(backbone: Backbone, lora: Lora, seed: int = 0) -> Backbone:
    """Copy a backbone and put a trainable adapter inside, which at first changes nothing.

    Only the adapter has gradients: ``rank * (in + out)`` parameters for each layer. Its random half
    (A) is drawn by the seed, the other (B) is zero. ``hash`` stays that of the weights it was put
    on.
    """
    from peft import LoraConfig, LoraModel  # here: it takes seconds, and only training needs it

    twin = copy.deepcopy(backbone)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(twin.model, config, "default")  # in place
    return twin.eval()


def adapter_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Tensors of the adapter inside a backbone: ``<layer>.lora_A.weight`` ``(rank, in)`` and
    ``<layer>.lora_B.weight`` ``(out, rank)``, on its device."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(backbone.model))


@torch.no_grad()
def merged(backbone: Backbone, lora: Lora, tensors: dict[str, Tensor]) -> Backbone:
    """Copy a backbone and add an adapter to its weights: the same tokens at no further cost.

    Parameters
    ----------
    backbone
        The one that the adapter was trained on; stays as it is.
    lora, tensors
        Of the adapter, see `adapter_tensors`.

    Returns
    -------
    Backbone
        Its ``hash`` is that of the merged weights, as its tokens are others.

    Raises
    ------
    InputError
        If the tensors are not those of such an adapter of this backbone.
    """
    twin = copy.deepcopy(backbone.model)
    layers = {
        name: layer
        for name, layer in twin.named_modules()
        if isinstance(layer, nn.Linear) and re.fullmatch(lora.targets, name)
    }
    expected = {}
    for name, layer in layers.items():
        expected[f"{name}.lora_A.weight"] = (lora.rank, layer.in_features)
        expected[f"{name}.lora_B.weight"] = (layer.out_features, lora.rank)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise InputError(
            f"The adapter does not fit the backbone {backbone.spec.name!r}: {len(expected)} "
            f"tensors of rank {lora.rank} are expected and {len(tensors)} were found, or their "
            "shapes differ; train it again."
        )
    for name, layer in layers.items():
        a, b = (tensors[f"{name}.lora_{half}.weight"].to(layer.weight) for half in "AB")
        layer.weight += lora.alpha / lora.rank * (b @ a)
    return Backbone(backbone.spec, twin).to(backbone.device)
