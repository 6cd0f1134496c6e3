"""Tokens of a frozen backbone, computed once and kept on the disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from dinolizer.data.crops import Crops, crop_batches
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.paths import atomic, cache_dir

PART = 64
"""Crops whose tokens share a file of the cache."""


def batch_size(device: torch.device) -> int:
    """Windows given to a backbone at once.

    On a CPU few of them stay in its caches: on one core the pocket backbone does 22 windows a
    second by fours and 12 by sixteens.
    """
    return 32 if device.type == "cuda" else 4


def as_batch(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Stack uint8 ``(H, W, 3)`` images of one size to float32 ``(N, 3, H, W)`` in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return stacked.permute(0, 3, 1, 2).float() / 255


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
    SHA-256 of the backbone's weights and normalisation and of all images. One that is damaged is
    computed again.

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
            with atomic(paths[layer]) as draft:
                save_file({"tokens": computed[layer]}, draft)
        found |= computed
    return {layer: found[layer] for layer in layers}


@torch.no_grad()
def _compute(
    backbone: Backbone, images: Sequence[NDArray[np.uint8]], layers: Sequence[int]
) -> dict[int, Tensor]:
    size = batch_size(backbone.device)
    starts = tqdm(
        range(0, len(images), size), desc="tokens", unit="batch", leave=False, disable=None
    )
    batches = []
    for start in starts:
        batch = as_batch(images[start : start + size], backbone.device)
        batches.append([part.half().cpu() for part in backbone.tokens_of_layers(batch, layers)])
    return dict(zip(layers, map(torch.cat, zip(*batches, strict=True)), strict=True))


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


def _load(path: Path) -> Tensor | None:
    try:
        return load_file(path)["tokens"]
    except (OSError, SafetensorError, KeyError):
        return None
