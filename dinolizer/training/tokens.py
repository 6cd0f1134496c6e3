"""Tokens of a frozen backbone, computed once and kept on the disk."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import Batches, as_batch, batch_size
from dinolizer.paths import atomic, cache_dir
from dinolizer.training.crops import Crops, crop_batches

PART = 64
"""Crops whose tokens share a file of the cache."""


def extract(backbone: Backbone, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Tokens of images, from the cache or, the first time, from the backbone.

    Parameters
    ----------
    backbone
        On any device.
    images
        uint8 ``(H, W, 3)`` RGB, all of one size, a multiple of the patch.

    Returns
    -------
    Tensor
        float16 ``(N, D, h, w)`` on the CPU.

    Notes
    -----
    The cache is one safetensors file under ``tokens`` in `dinolizer.paths.cache_dir`, named by a
    SHA-256 of the backbone's weights and normalisation and of all images. It is written whole or
    not at all, whoever else writes it; one whose checksum is not that of its values is computed
    again.

    Raises
    ------
    InputError
        Without images, and where their sizes differ.
    """
    return extract_layers(backbone, images, [backbone.depth])[backbone.depth]


def extract_layers(
    backbone: Backbone, images: Sequence[NDArray[np.uint8]], layers: Sequence[int]
) -> dict[int, Tensor]:
    """As `extract`, for several layers: those that are not in the cache come from one pass.

    Parameters
    ----------
    layers
        As in `dinolizer.model.backbones.Backbone.tokens_of_layers`.
    """
    sizes = sorted({image.shape for image in images})
    if len(sizes) != 1:
        raise InputError(
            f"The images have the shapes {sizes}, but all of them must have one and the same: "
            "crop them first."
        )
    key = _key(backbone, images)
    paths = {
        layer: cache_dir()
        / "tokens"
        / f"{key}{'' if layer == backbone.depth else f'-{layer}'}.safetensors"
        for layer in layers
    }
    cached = {layer: _load(path) for layer, path in paths.items()}
    missing = [layer for layer, tokens in cached.items() if tokens is None]
    found = {layer: tokens for layer, tokens in cached.items() if tokens is not None}
    if missing:
        computed = _compute(backbone, images, missing)
        for layer in missing:
            _save(computed[layer], paths[layer])
        found |= computed
    return {layer: found[layer] for layer in layers}


@torch.no_grad()
def _compute(
    backbone: Backbone, images: Sequence[NDArray[np.uint8]], layers: Sequence[int]
) -> dict[int, Tensor]:
    def tokens(some: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        batch = as_batch(some, backbone.device)
        return [part.half().cpu() for part in backbone.tokens_of_layers(batch, layers)]

    size = batch_size(backbone.device, images[0].shape[0])
    starts = tqdm(
        range(0, len(images), size), desc="tokens", unit="batch", leave=False, disable=None
    )
    batches = Batches()
    parts = [part for at in starts for part in batches.run(tokens, images[at : at + size])]
    return dict(zip(layers, map(torch.cat, zip(*parts, strict=True)), strict=True))


def extract_crops(
    backbone: Backbone, sets: Sequence[Crops], workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Tokens and labels of one crop of each image, set after set, in memory.

    Parameters
    ----------
    backbone
        On any device.
    sets
        Of one window; taken as in their first epoch.
    workers
        Processes that prepare crops ahead.

    Returns
    -------
    tokens, targets
        float16 ``(N, D, h, w)`` and float32 ``(N, h, w)`` or ``(N, C, h, w)``, on the CPU; how
        large they are together, `token_bytes` says beforehand.

    Notes
    -----
    They pass through `extract` in parts, so that an interrupted extraction goes on.
    """
    count, patches = sum(map(len, sets)), sets[0].window // sets[0].patch
    # Filled in place: to collect the parts and join them would take twice the memory.
    tokens = torch.empty(count, backbone.dim, patches, patches, dtype=torch.float16)
    targets = torch.empty(count, *sets[0][0][1].shape)
    first = 0
    for crops in sets:
        parts = [list(range(at, min(at + PART, len(crops)))) for at in range(0, len(crops), PART)]
        for images, labels in tqdm(
            crop_batches(crops, parts, workers),
            total=len(parts),
            desc="crops",
            unit="part",
            disable=None,
        ):
            place = slice(first, first + len(images))
            tokens[place] = extract(backbone, list(images.permute(0, 2, 3, 1).numpy()))
            targets[place] = labels
            first = place.stop
    return tokens, targets


def token_bytes(backbone: Backbone, crops: int, classes: int) -> int:
    """Bytes of the float16 tokens and the float32 labels of that many crops."""
    patches = (backbone.spec.window // backbone.spec.patch) ** 2
    return crops * patches * (2 * backbone.dim + 4 * classes)


def patch_targets(masks: NDArray[np.bool_], patch: int) -> Tensor:
    """Share of each patch that is edited: bool ``(N, H, W)`` to float32 ``(N, h, w)`` in [0, 1].

    Raises
    ------
    InputError
        If a side is no multiple of the patch.
    """
    if masks.ndim != 3 or masks.shape[1] % patch or masks.shape[2] % patch:
        raise InputError(
            f"The masks have the shape {masks.shape}, but it must be (N, H, W) with H and W "
            f"multiples of the patch of {patch} pixels: crop or pad them."
        )
    return F.avg_pool2d(torch.from_numpy(masks.astype(np.float32)), patch)


def _key(backbone: Backbone, images: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256(f"{backbone.hash} {backbone.spec.mean} {backbone.spec.std}".encode())
    for image in images:
        digest.update(f"{image.shape} {image.dtype}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _save(tokens: Tensor, path: Path) -> None:
    with atomic(path) as draft:
        save_file({"tokens": tokens}, draft, metadata={"crc32": _checksum(tokens)})


def _load(path: Path) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            tokens = file.get_tensor("tokens")
            written = (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError):
        return None
    return tokens if written == _checksum(tokens) else None


def _checksum(tokens: Tensor) -> str:
    """Of the values: what safetensors itself checks are a file's header and length."""
    return f"{zlib.crc32(tokens.contiguous().numpy().data):08x}"
