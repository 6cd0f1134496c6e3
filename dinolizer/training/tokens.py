"""Tokens of a frozen backbone, computed once and kept on the disk."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset

from dinolizer.errors import InputError, progress
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import Batches, as_batch, batch_size
from dinolizer.model.weights import check_finite
from dinolizer.paths import cache_dir, read_checked, write_checked
from dinolizer.training.crops import Crops, crop_batches

Images = Sequence[NDArray[np.uint8]]
PART = 64  # crops whose tokens share a file of the cache


def extract(backbone: Backbone, images: Images, dtype: torch.dtype = torch.float16) -> Tensor:
    """Tokens of images, uint8 ``(H, W, 3)`` RGB of one size, float16 or float32 ``(N, D, h, w)`` on
    the CPU, from the backbone or from the cache, where the weights, the fingerprint of the code,
    the versions of torch and timm, and the pixels name them. `InputError` for NaN or infinity."""
    return extract_layers(backbone, images, [backbone.depth], dtype)[backbone.depth]


def extracted(backbone: Backbone, images: Images, dtype: torch.dtype) -> Tensor | None:
    """What `extract` has left of the very same images in the cache, if anything."""
    return _load(_path(_key(backbone, images), backbone.depth, backbone, dtype))


def extract_layers(
    backbone: Backbone, images: Images, layers: Sequence[int], dtype: torch.dtype = torch.float16
) -> dict[int, Tensor]:
    """As `extract`, for layers as in `Backbone.tokens_of_layers`, in one pass for those missing."""
    sizes = sorted({image.shape for image in images})
    if len(sizes) != 1:
        raise InputError(f"The images have the shapes {sizes}; crop them to one and the same.")
    key = _key(backbone, images)
    paths = {layer: _path(key, layer, backbone, dtype) for layer in layers}
    tokens = {layer: cached for layer in layers if (cached := _load(paths[layer])) is not None}
    if missing := [layer for layer in layers if layer not in tokens]:
        computed = _compute(backbone, images, missing, dtype)
        for layer, values in computed.items():
            write_checked(paths[layer], save({"tokens": values}))
        tokens |= computed
    return {layer: tokens[layer] for layer in layers}


@torch.no_grad()
def _compute(
    backbone: Backbone, images: Images, layers: Sequence[int], dtype: torch.dtype
) -> dict[int, Tensor]:
    def tokens(batch: Images) -> list[Tensor]:
        of_layers = backbone.tokens_of_layers(as_batch(batch, backbone.device), layers)
        return [part.to(dtype).cpu().contiguous() for part in of_layers]

    size = batch_size(backbone.device, images[0].shape[0])
    batches, starts = Batches(), range(0, len(images), size)
    runs = (batches.run(tokens, images[at : at + size]) for at in progress(starts, "tokens"))
    parts = [*chain.from_iterable(runs)]
    computed = dict(zip(layers, map(torch.cat, zip(*parts, strict=True)), strict=True))
    halves = {f"layer {layer}": values.half() for layer, values in computed.items()}
    advice = "its weights are damaged, or this layer cannot be used in half precision"
    check_finite(halves, repr(backbone.spec.name), advice)
    return computed


def extract_crops(
    backbone: Backbone, crops: Crops, workers: int = 0
) -> ConcatDataset[tuple[Tensor, ...]]:
    """Tokens, float16 ``(D, h, w)``, and labels of the first epoch's crop of each image, in order
    and in memory; in parts, so that an interrupted extraction goes on."""
    parts = [list(range(at, min(at + PART, len(crops)))) for at in range(0, len(crops), PART)]
    batches = progress(crop_batches(crops, parts, workers), "crops", len(parts))
    pairs = ((list(images.permute(0, 2, 3, 1).numpy()), labels) for images, labels in batches)
    return ConcatDataset([TensorDataset(extract(backbone, of), labels) for of, labels in pairs])


def token_bytes(backbone: Backbone, crops: int, classes: int) -> int:
    """Bytes of the float16 tokens and the float32 labels of that many crops."""
    patches = (backbone.spec.window // backbone.spec.patch) ** 2
    return crops * patches * (2 * backbone.dim + 4 * classes)


def _key(backbone: Backbone, images: Images) -> str:
    code = f"{backbone.fingerprint} torch {torch.__version__} timm {timm.__version__}"
    digest = hashlib.sha256(f"{backbone.hash} {code}".encode())
    for image in images:
        digest.update(f"{image.shape} {image.dtype}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _path(key: str, layer: int, backbone: Backbone, dtype: torch.dtype) -> Path:
    end = "" if layer == backbone.depth else f"-{layer}"
    precise = "-float32" if dtype == torch.float32 else ""
    return cache_dir() / "tokens" / f"{key}{end}{precise}.tokens"


def _load(path: Path) -> Tensor | None:
    try:
        return load(read_checked(path))["tokens"]
    except (OSError, ValueError):
        return None
