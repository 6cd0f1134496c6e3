"""Low-rank adapters (LoRA) inside a backbone: added, taken out as tensors, merged."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone

# peft takes seconds to import, and most heads have no adapter: it is imported where it is used.
if TYPE_CHECKING:
    from peft import LoraConfig

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

    Only the adapter has gradients: ``rank * (in + out)`` parameters for each layer. ``hash`` stays
    that of the weights it was put on.

    Parameters
    ----------
    backbone
        Stays as it is.
    lora
        Settings.
    seed
        Of the random half (A) of the adapter; the other (B) is zero.
    """
    from peft import LoraModel

    twin = copy.deepcopy(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(twin.model, _config(lora), "default")  # in place
    return twin.eval()


def adapter_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Tensors of the adapter inside a backbone, by name; on its device."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(backbone.model))


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
    from peft import LoraModel, get_peft_model_state_dict, set_peft_model_state_dict

    twin = copy.deepcopy(backbone.model)
    tuner = LoraModel(twin, _config(lora), "default")
    expected = {name: value.shape for name, value in get_peft_model_state_dict(twin).items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise InputError(
            f"The adapter does not fit the backbone {backbone.spec.name!r}: {len(expected)} "
            f"tensors of rank {lora.rank} are expected and {len(tensors)} were found, or their "
            "shapes differ; train it again."
        )
    set_peft_model_state_dict(twin, tensors)
    tuner.merge_and_unload()  # in place
    return Backbone(backbone.spec, twin).to(backbone.device)


def _config(lora: Lora) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets)
