"""Published models: fetched, and converted once to safetensors.

B-Free: by its authors' repository (grip-unina/B-Free) and public code that uses it, the archive
holds ``BFREE_dino2reg4/model_epoch_best.pth``, a pickled dict whose ``model`` is a state dict. The
wrapper it is for loads the keys in ``patch_embed.`` apart from the others, but prefixes neither:
they are the state dict of one timm model at 504 pixels with a logit, positive for generated images.

The authors' released DinoLizer: by a third party's working adapter for it (the repository,
``anonyme610/dinolizer``, commit 3241ce5, could not be opened) it is a Lightning checkpoint whose
``state_dict`` holds a DINOv2 ViT-B/14 with registers in B-Free's wrapper; adapters in LoRA-ViT's
layout on the queries and values of every block; and a head of three classes: real, re-encoded,
inpainted. What is needed is read strictly, all else left out."""

import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from pooch.hashes import hash_matches
from safetensors import SafetensorError
from torch import Tensor

from dinolizer.data.fetch import download, extract
from dinolizer.errors import InputError, say
from dinolizer.model import weights
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for, make_head, save_head
from dinolizer.model.lora import Lora, is_adapter, merge
from dinolizer.model.specs import BACKBONES, Transformer, build
from dinolizer.paths import ASSETS, file_hash, weights_dir


@dataclass(frozen=True)
class Published:
    """The file of a published model, and how it is read."""

    url: str
    file: str  # its name there
    hash: str  # "md5:..." or "sha256:..."
    key: str  # of the state dict in its checkpoint
    room: str  # that the conversion takes on the disk
    size: int | None = None  # in bytes, where it is published
    member: str = ""  # the checkpoint's name, where the file is an archive
    advice: str = "try again later"  # where the server sends something else


_TABLE = yaml.safe_load((ASSETS / "fetched.yaml").read_text(encoding="utf-8"))
PUBLISHED = {name: Published(**fields) for name, fields in _TABLE.items()}
RELEASE = PUBLISHED["dinolizer"].file
LARGEST = 2**29
"""Bytes of a checkpoint in an archive; the float32 weights of a ViT-B are 346 million."""
LORA = Lora(rank=64, alpha=64)
CLASSES = 3
HEAD = "cls_head."
SCORE_THRESHOLD = 0.59466
"""Of the image score. Not the authors': a third party's, Youden's on 512 calibration images."""
ABOUT = "The authors' release; image score and its threshold are a third party's."
_PREFIX = re.compile(r"(net\.)?(model\.)?(lora_vit\.)?")


def fetch(name: str, file: Path | None = None) -> Path:
    """Bring a model of `PUBLISHED` into the user's cache; return its backbone's weights' path.

    ``file`` is the published file, the checkpoint out of its archive, or another one of that kind,
    which a line then says; by default it is downloaded, unless good weights are there. Raises
    `InputError` for a file that is missing, damaged, another model's or code, and for a full disk.
    """
    known, path, folder = PUBLISHED[name], weights.fetched_path(name), weights_dir()
    if file is None:
        with suppress(InputError):
            if name == "dinolizer":
                weights.checked(name, weights.head_file(name))
            return weights.checked(name, path)
    elif not file.is_file():
        raise InputError(f"There is no file {file}; give the published {known.file!r}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        source = file or folder / known.file
        if file is None:
            download(known.url, source, known.hash, size=known.size, advice=known.advice)
        # What was downloaded has been compared already.
        _convert(name, source, published=file is None or hash_matches(source, known.hash))
        if file is None:
            source.unlink()
    except (OSError, SafetensorError) as error:
        advice = f"make room for {known.room} there, or let DINOLIZER_CACHE name a folder with it"
        reason = f"cannot be brought to {folder} ({str(error).rstrip('.')})"
        raise InputError(f"The weights of {name!r} {reason}; {advice}.") from None
    return path


def _convert(name: str, source: Path, *, published: bool) -> None:
    known, spec = PUBLISHED[name], BACKBONES[name]
    record: dict[str, object] = {"source": source.name, "published": published}
    with tempfile.TemporaryDirectory(dir=weights_dir()) as scratch:
        checkpoint = source
        if source.suffix.lower() == ".zip":
            extract(source, Path(scratch), LARGEST, [known.member])
            checkpoint = Path(scratch) / known.member
        state = weights.read_checkpoint(checkpoint, known.key, f"the published {known.file!r}")
        record["checkpoint_sha256"] = file_hash(checkpoint)
    with torch.device("meta"):  # names and shapes only
        model = build(spec)
    if name == "dinolizer":
        state, adapter, head, record["left_out"] = _take_apart(state, model)
        weights.check_fit(model, state, source, name)
        weights.check_finite(adapter | head, str(source))
        model.load_state_dict(state, assign=True)
        merge(model, LORA, adapter)
        state = model.state_dict()
        layer = make_head(model.embed_dim, CLASSES)
        layer.load_state_dict(head)
        card = card_for(Backbone(spec, model), ABOUT, "three-class")
        card = replace(card, restore="bicubic", score_threshold=SCORE_THRESHOLD)
        save_head(weights.head_file(name), layer, card)
    else:
        weights.check_fit(model, state, source, name)
    weights.save_converted(spec, state, record)
    if not published:
        say(f"{source} is not the published file (of the {known.hash}); it was taken as it is.")


def _take_apart(
    state: Mapping[str, Tensor], model: Transformer
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Sort a release's tensors into float32 ones of the backbone, by the names of ``model``; of its
    adapter, see `dinolizer.model.lora.adapter_tensors`; and of its head, ``weight`` ``(3, D, 1,
    1)`` and ``bias`` ``(3,)``; and list the names that are left out. Names may begin with ``net.``,
    ``model.`` and ``lora_vit.``; the ``qkv`` layers are wrapped in their adapters. A needed tensor
    that is there twice, or another head, is an `InputError`."""
    wanted, left_out = model.state_dict().keys(), []
    backbone: dict[str, Tensor] = {}
    adapter: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = _PREFIX.sub("", name, count=1).replace(".qkv.qkv.", ".qkv.")
        if short.startswith(HEAD):  # whatever the layer is called there
            part, short = head, short.rpartition(".")[2]
        elif short in wanted or is_adapter(short):
            part = backbone if short in wanted else adapter
        else:
            left_out.append(name)
            continue
        if short in part:
            twice = f"{name} under several prefixes, but once is expected"
            raise InputError(f"The checkpoint holds {twice}; give the published {RELEASE!r}.")
        part[short] = tensor.float()
    shapes = {name: tuple(tensor.shape) for name, tensor in head.items()}
    matrix = (CLASSES, model.embed_dim)
    if shapes not in [{"weight": of, "bias": (CLASSES,)} for of in (matrix, (*matrix, 1, 1))]:
        layers = {name: tuple(tensor.shape) for name, tensor in state.items() if HEAD in name}
        due = f"a linear layer from {model.embed_dim} values to {CLASSES} classes is expected"
        advice = f"give the published {RELEASE!r}, and if it is, report these names and shapes"
        raise InputError(f"The head of the checkpoint is {layers}, but {due}; {advice}.")
    return backbone, adapter, head | {"weight": head["weight"].view(*matrix, 1, 1)}, left_out
