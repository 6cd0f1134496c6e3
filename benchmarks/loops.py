"""Other ways to put the same windows through the same model: what the localizer is measured by."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dinolizer import Localizer

BATCH = 50
"""Windows in a batch of the later public release of the paper's authors."""


def windows(localizer: Localizer, image: NDArray[np.uint8]) -> Tensor:
    """All windows of an image, float32 ``(N, 3, h, w)`` in [0, 1], on the device."""
    cut = localizer.plan(*image.shape[:2]).windows(image, torch.device("cpu"))
    stacked = torch.from_numpy(np.stack(cut)).to(localizer.backbone.device)
    return stacked.permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def backbone_alone(localizer: Localizer, batch: Tensor, lower: bool = False) -> None:
    """Run nothing but the backbone, in the localizer's batches; ``lower``: in bfloat16."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=lower):
        for part in batch.split(localizer.batch):
            localizer.backbone(part)


@torch.inference_mode()
def published_loop(localizer: Localizer, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits ``(C, H, W)`` of an image as the published code is described to make them.

    Batches of `BATCH` windows; every window's logits are upsampled bicubically to full resolution,
    brought to the CPU, and added up (or averaged, as the head's card says) in NumPy. No side of
    the image, uint8 ``(H, W, 3)``, is under the window.
    """
    side, size = localizer.window, image.shape[:2]
    total = np.zeros((localizer.head.out_channels, *size), np.float32)
    count = np.zeros(size, np.float32)
    logits = (
        logits
        for part in windows(localizer, image).split(BATCH)
        for logits in _full_logits(localizer, part)
    )
    for (top, left), of_window in zip(localizer.plan(*size).positions, logits, strict=True):
        covered = (slice(top, top + side), slice(left, left + side))
        total[:, *covered] += of_window.cpu().numpy()
        count[covered] += 1
    return total if localizer.card.reduce == "sum" else total / count


@torch.inference_mode()
def monai_sliding_window(localizer: Localizer, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits ``(C, H, W)`` by MONAI's ``sliding_window_inference`` with constant weights.

    It is given the localizer's batches, and an overlap at which its windows lie where the
    localizer's do. It always takes the mean of what overlaps.
    """
    from monai.inferers.utils import sliding_window_inference  # installed for development only

    pixels = torch.from_numpy(image).to(localizer.backbone.device)
    logits = sliding_window_inference(
        pixels.permute(2, 0, 1)[None].float() / 255,
        roi_size=localizer.window,
        sw_batch_size=localizer.batch,
        predictor=lambda batch: _full_logits(localizer, batch),
        # Its step is the whole part of window * (1 - overlap): half a pixel keeps it from one less.
        overlap=1 - (localizer.stride + 0.5) / localizer.window,
        mode="constant",
    )
    return logits[0].cpu().numpy()


def _full_logits(localizer: Localizer, batch: Tensor) -> Tensor:
    """Logits ``(N, C, window, window)`` of a batch of windows."""
    logits = localizer.head(localizer.backbone(batch)).float()
    return F.interpolate(logits, size=batch.shape[2:], mode="bicubic")
