"""Other ways to put the same windows through the same model: what the localizer is measured by."""

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dinolizer.model.batches import as_batch
from dinolizer.model.localizer import Localizer

BATCH = 50
"""Windows in a batch of the later public release of the paper's authors."""
MONAI_INSTALLED = find_spec("monai") is not None


@torch.inference_mode()
def backbone_alone(localizer: Localizer, batch: Tensor) -> None:
    """Run nothing but the backbone, in the localizer's batches.

    ``batch`` is float ``(N, 3, window, window)`` in [0, 1], on the device.
    """
    for part in batch.split(localizer.batch):
        localizer.backbone(part)


@torch.inference_mode()
def published_loop(localizer: Localizer, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of an image as the published code is described to make them.

    Batches of `BATCH` windows; every window's logits are upsampled bicubically to full resolution,
    brought to the CPU, and added up in NumPy.

    Parameters
    ----------
    localizer
        Its model, window, stride, and sum or mean.
    image
        uint8 ``(H, W, 3)`` RGB, no side under the window.

    Returns
    -------
    float32 ``(C, H, W)``.
    """
    window, size = localizer.window, image.shape[:2]
    positions, windows = localizer.layout(*size).positions, cut(localizer, image)
    total = np.zeros((localizer.head.out_channels, *size), np.float32)
    count = np.zeros(size, np.float32)
    for first in range(0, len(windows), BATCH):
        some = slice(first, first + BATCH)
        full = _full_logits(localizer, as_batch(windows[some], localizer.backbone.device))
        for (top, left), logits in zip(positions[some], full, strict=True):
            place = (slice(top, top + window), slice(left, left + window))
            total[:, *place] += logits.cpu().numpy()
            count[place] += 1
    return total if localizer.card.reduce == "sum" else total / count


@torch.inference_mode()
def monai_sliding_window(localizer: Localizer, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of an image by MONAI's ``sliding_window_inference`` with constant weights.

    It is given the localizer's batches, and an overlap at which its windows lie where the
    localizer's do. It always takes the mean of what overlaps.

    Parameters
    ----------
    localizer, image
        As for `published_loop`.

    Returns
    -------
    float32 ``(C, H, W)``.
    """
    from monai.inferers.utils import sliding_window_inference  # installed for development only

    device = localizer.backbone.device
    logits = sliding_window_inference(
        as_batch([image], device),
        roi_size=localizer.window,
        sw_batch_size=localizer.batch,
        predictor=lambda batch: _full_logits(localizer, batch),
        # Its step is the whole part of window * (1 - overlap): half a pixel keeps it from one less.
        overlap=1 - (localizer.stride + 0.5) / localizer.window,
        mode="constant",
    )
    return logits[0].cpu().numpy()


def cut(localizer: Localizer, image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """All windows of an image, no side of it under the window, as the localizer lays them."""
    layout = localizer.layout(*image.shape[:2])
    return [np.asarray(layout.cut(image, position)) for position in layout.positions]


def _full_logits(localizer: Localizer, batch: Tensor) -> Tensor:
    """Logits ``(N, C, window, window)`` of a batch of windows."""
    logits = localizer.head(localizer.backbone(batch)).float()
    return F.interpolate(logits, size=batch.shape[2:], mode="bicubic")
