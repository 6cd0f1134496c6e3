"""Tokens of a frozen backbone, computed once and kept on the disk."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
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
BYTES_PER_PIXEL = 512
"""Of a window, that a pass of a backbone takes: measured were 330 with the pocket backbone, 260
with DINOv2's base and 170 with DINOv3's."""

Pixels = NDArray[np.uint8] | Tensor
In = TypeVar("In")
Out = TypeVar("Out")


def batch_size(device: torch.device, side: int = 0) -> int:
    """Windows given to a backbone at once.

    On a CPU few of them stay in its caches: on one core the pocket backbone does 22 windows a
    second by fours and 12 by sixteens.

    Parameters
    ----------
    device
        Where the backbone is.
    side
        Of a window, in pixels. Where it is given, and half of the free memory would not hold so
        many, there are fewer, and a line says so.
    """
    size = most = 32 if device.type == "cuda" else 4
    room = _free_bytes(device) // 2 if side else 0
    while side and size > 1 and size * BYTES_PER_PIXEL * side**2 > room:
        size //= 2
    if size < most:
        _say(f"Memory is short: batches of {size} windows and not of {most}.")
    return size


class Batches:
    """Run a function on batches of windows, on smaller ones from when memory has run out.

    Attributes
    ----------
    most
        Windows in a batch at most; at first as many as are asked for.
    """

    def __init__(self) -> None:
        self.most = sys.maxsize

    def run(self, function: Callable[[Sequence[In]], Out], windows: Sequence[In]) -> list[Out]:
        """What a function gives for windows, in order: for all of them at once if memory allows,
        else for one half and then the other, and so on.

        Raises
        ------
        InputError
            If memory is not enough for one window.
        """
        found: list[Out] = []
        first = 0
        while first < len(windows):
            batch = windows[first : first + self.most]
            try:
                found.append(function(batch))
                first += len(batch)
                continue
            except (MemoryError, RuntimeError) as error:
                if not _ran_out(error):
                    raise
                if len(batch) == 1:
                    raise InputError(
                        "The memory is not enough for one window; end other programs that use it, "
                        "or choose a smaller backbone or another device."
                    ) from error
            # Here, where the error no longer holds on to what the function had made.
            torch.cuda.empty_cache()
            self.most = len(batch) // 2
            _say(f"Memory ran out with {len(batch)} windows: from here on batches of {self.most}.")
        return found


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _ran_out(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in str(error)
        for phrase in ("can't allocate memory", "not enough memory", "ALLOC_FAILED")
    )


def _say(line: str) -> None:
    tqdm.write(f"dinolizer: {line}", file=sys.stderr)


def placed(image: NDArray[np.uint8], device: torch.device) -> Pixels:
    """An image where its windows are cut from it: on a GPU, as windows overlap and would else be
    moved there with every pixel several times; on a CPU as it is."""
    return image if device.type == "cpu" else torch.tensor(image, device=device)


def as_batch(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Stack uint8 ``(H, W, 3)`` images of one size to float32 ``(N, 3, H, W)`` in [0, 1]."""
    if isinstance(images[0], Tensor):
        stacked = torch.stack([torch.as_tensor(image) for image in images])
    else:
        stacked = torch.from_numpy(np.stack(images))
    return stacked.to(device).permute(0, 3, 1, 2).float() / 255


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


def _load(path: Path) -> Tensor | None:
    try:
        return load_file(path)["tokens"]
    except (OSError, SafetensorError, KeyError):
        return None
