"""The authors' released model: fetched, and converted once to a backbone and a head.

By a third party's working adapter for it (the repository, ``anonyme610/dinolizer``, commit 3241ce5,
could not be opened) it is a Lightning checkpoint whose ``state_dict`` holds a DINOv2 ViT-B/14 with
registers in B-Free's wrapper; adapters in LoRA-ViT's layout on the queries and values of every
block; and a head of three classes: real, re-encoded, inpainted. What is needed is read strictly,
all else left out.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pooch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dinolizer.data.fetch import download
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import HeadCard, make_head, save_head
from dinolizer.model.lora import Lora, is_adapter, merge
from dinolizer.model.specs import BACKBONES, Transformer, build
from dinolizer.model.weights import (
    check_finite,
    check_fit,
    checked_head,
    checked_weights,
    head_file,
    read_checkpoint,
    save_converted,
)
from dinolizer.paths import weights_dir

NAME = "dinolizer"
FILE = "epoch=36_val_loss=0.2130.ckpt"
PAGE = "https://nextcloud.univ-lille.fr/index.php/s/HS6CLT73DZpZEyq"
URL = f"{PAGE}/download"
SIZE = 386_800_693
SHA256 = "96cb26f2536919d67b75a5aff195b683a1d8590fe596e6f1260ab7950883e2a2"
BY_HAND = (
    f"download {FILE!r} by hand from {PAGE} and run 'dinolizer fetch {NAME} --from-file FILE' on it"
)
LORA = Lora(rank=64, alpha=64)
CLASSES = 3
HEAD = "cls_head."
SCORE_THRESHOLD = 0.59466
"""Of the image score. Not the authors': a third party's, Youden's on 512 calibration images."""
_PREFIX = re.compile(r"(net\.)?(model\.)?(lora_vit\.)?")


def fetch(file: Path | None = None) -> Path:
    """Bring the released model into the user's cache, and return the path of the backbone's
    weights, its adapter merged; the head and a JSON record lie beside them.

    ``file`` is the released checkpoint, or one of another SHA-256 (see `is_published`); without it
    the release is downloaded, unless a good conversion is there. Raises `InputError` for a file
    that is missing, damaged, another model's or holds code, a failed download or a full disk.
    """
    if file is None:
        with suppress(InputError):
            if checked_head(NAME).is_file():
                return checked_weights(NAME)
    elif not file.is_file():
        raise InputError(f"There is no file {file}; give the released {FILE!r}.")
    folder = weights_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = file or folder / "dinolizer.ckpt"
        if file is None:
            download(URL, checkpoint, f"sha256:{SHA256}", size=SIZE, advice=BY_HAND)
        path = _convert(checkpoint)
        if file is None:
            checkpoint.unlink()
        return path
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The released model cannot be brought to {folder} ({str(error).rstrip('.')}); make "
            "room for 800 MB there, or let DINOLIZER_CACHE name a folder that has it."
        ) from None


def is_published(file: Path) -> bool:
    """Whether a file is the one that the authors released, by its SHA-256."""
    return file.is_file() and pooch.file_hash(str(file), "sha256") == SHA256


def take_apart(
    state: Mapping[str, Tensor], model: Transformer
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Sort a release's tensors into float32 ones of the backbone, by the names of ``model``; of its
    adapter, see `dinolizer.model.lora.adapter_tensors`; and of its head, ``weight``
    ``(3, D, 1, 1)`` and ``bias`` ``(3,)``; and list the names that are left out.

    Names may begin with ``net.``, ``model.`` and ``lora_vit.``; the ``qkv`` layers are wrapped in
    their adapters. A needed tensor that is there twice, or another head, is an `InputError`.
    """
    wanted = model.state_dict().keys()
    plain = {name: _PREFIX.sub("", name, count=1).replace(".qkv.qkv.", ".qkv.") for name in state}
    needed = {
        name: short
        for name, short in plain.items()
        if short in wanted or short.startswith(HEAD) or is_adapter(short)
    }
    twice = [name for name, count in Counter(needed.values()).items() if count > 1]
    if twice:
        raise InputError(
            f"The checkpoint holds {twice[0]} under several prefixes, but once is expected; give "
            f"the released {FILE!r}."
        )
    tensors = {short: state[name].float() for name, short in needed.items()}
    head = {name: tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    adapter = {name: tensor for name, tensor in tensors.items() if is_adapter(name)}
    backbone = {name: tensor for name, tensor in tensors.items() if name in wanted}
    left_out = [name for name in state if name not in needed]
    return backbone, adapter, _layer(head, model.embed_dim), left_out


def _layer(tensors: Mapping[str, Tensor], dim: int) -> dict[str, Tensor]:
    """Weight and bias of a head that is a linear layer or a 1x1 convolution, whatever its name."""
    ends = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    matrix = (CLASSES, dim)
    if (
        len(tensors) != 2
        or ends.keys() != {"weight", "bias"}
        or ends["weight"].shape not in (matrix, (*matrix, 1, 1))
        or ends["bias"].shape != (CLASSES,)
    ):
        raise InputError(
            f"The head of the checkpoint is {shapes}, but a linear layer or a 1x1 convolution from "
            f"{dim} values to {CLASSES} classes is expected; give the released {FILE!r}, and if it "
            "is, report these names and shapes."
        )
    return {"weight": ends["weight"].view(*matrix, 1, 1), "bias": ends["bias"]}


def _convert(checkpoint: Path) -> Path:
    spec = BACKBONES[NAME]
    state = read_checkpoint(checkpoint, "state_dict", f"the released {FILE!r}")
    with torch.device("meta"):  # names and shapes only
        model = build(spec)
    weights, adapter, head, left_out = take_apart(state, model)
    check_fit(model, weights, checkpoint, NAME)
    check_finite(adapter | head, checkpoint)
    model.load_state_dict(weights, assign=True)
    merge(model, LORA, adapter)
    card = HeadCard(
        backbone=NAME,
        backbone_hash=Backbone(spec, model).hash,
        policy="three-class",
        window=spec.window,
        stride=spec.stride,
        reduce="mean",
        restore="bicubic",
        score_threshold=SCORE_THRESHOLD,
        about="The authors' release; image score and its threshold are a third party's.",
    )
    layer = make_head(model.embed_dim, CLASSES)
    layer.load_state_dict(head)
    save_head(head_file(NAME), layer, card)
    record = {
        "source": checkpoint.name,
        "published": is_published(checkpoint),
        "head_sha256": pooch.file_hash(str(head_file(NAME)), "sha256"),
        "left_out": left_out,
    }
    return save_converted(spec, model.state_dict(), checkpoint, record)
