"""Low-rank adapters (LoRA) inside a backbone, laid out as in LoRA-ViT and the authors' later
release: every attention layer has one of its queries and one of its values."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.specs import Transformer
from dinolizer.model.weights import misfit

QV = "qv"


@dataclass(frozen=True)
class Lora:
    """``W x`` becomes ``W x + alpha / rank * B (A x)`` (Hu et al., 2021); 64, 64 in the release."""

    rank: int = 64
    alpha: int = 64

    def __post_init__(self) -> None:
        if not (self.rank > 0 and self.alpha > 0):
            raise InputError(f"The adapter is {self}, but a rank and an alpha over 0 are expected.")


class AdaptedQkv(nn.Module):
    """A frozen input projection of attention, with adapters of its queries and of its values."""

    def __init__(self, qkv: nn.Linear, lora: Lora) -> None:
        super().__init__()
        dim = qkv.in_features
        self.qkv, self.scale = qkv, lora.alpha / lora.rank
        self.linear_a_q, self.linear_a_v = (nn.Linear(dim, lora.rank, bias=False) for _ in QV)
        self.linear_b_q, self.linear_b_v = (nn.Linear(lora.rank, dim, bias=False) for _ in QV)
        for layer in (self.linear_b_q, self.linear_b_v):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, L, D)`` to ``(N, L, 3 D)``: queries, keys, values."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q + self.scale * self.linear_b_q(self.linear_a_q(x))
        v = v + self.scale * self.linear_b_v(self.linear_a_v(x))
        return torch.cat([q, k, v], dim=-1)


def adapted(backbone: Backbone, lora: Lora, seed: int = 0) -> Backbone:
    """Copy a backbone and put a trainable adapter, ``4 * rank * D`` parameters per layer, inside,
    which at first changes nothing: A is drawn by the seed, B is zero; ``hash`` stays."""
    twin = copy.deepcopy(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks: Any = twin.model.blocks
        for block in blocks:
            block.attn.qkv = AdaptedQkv(block.attn.qkv, lora).to(backbone.device)
    return twin.eval()


def adapter_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Tensors of the adapter in a backbone, on its device: ``blocks.N.attn.qkv.linear_a_q.weight``,
    ``(rank, D)``, and ``linear_b_q``, ``(D, rank)``, for every layer N, and the same of ``v``."""
    return {name: value for name, value in backbone.model.state_dict().items() if is_adapter(name)}


def is_adapter(name: str) -> bool:
    """Whether a tensor of that name is one of `adapter_tensors`."""
    return re.fullmatch(r"blocks\.\d+\.attn\.qkv\.linear_[ab]_[qv]\.weight", name) is not None


def merged(backbone: Backbone, lora: Lora, tensors: Mapping[str, Tensor]) -> Backbone:
    """Copy a backbone and add an adapter (see `adapter_tensors`) to its weights: the same tokens at
    no further cost, and another ``hash``. One that does not fit is an `InputError`."""
    twin = copy.deepcopy(backbone.model)
    merge(twin, lora, tensors)
    return Backbone(backbone.spec, twin).to(backbone.device)


@torch.no_grad()
def merge(model: Transformer, lora: Lora, tensors: Mapping[str, Tensor]) -> None:
    """As `merged`, in place."""
    products: dict[tuple[str, str], Tensor] = {}  # names of A and B, and the rows they change
    blocks: Any = model.blocks
    for number, block in enumerate(blocks):
        q, _, v = block.attn.qkv.weight.chunk(3)
        for third, rows in zip(QV, (q, v), strict=True):
            name = f"blocks.{number}.attn.qkv.linear_{{}}_{third}.weight"
            products[name.format("a"), name.format("b")] = rows
    expected: dict[str, tuple[int, ...]] = {}
    for (a, b), rows in products.items():
        expected |= {a: (lora.rank, rows.shape[1]), b: (rows.shape[0], lora.rank)}
    if difference := misfit(tensors, expected):
        advice = "give the one that was trained on it"
        raise InputError(f"The adapter does not fit the backbone ({difference}); {advice}.")
    for (a, b), rows in products.items():
        rows += lora.alpha / lora.rank * (tensors[b].to(rows) @ tensors[a].to(rows))
