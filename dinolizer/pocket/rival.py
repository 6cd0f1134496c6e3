"""A rival for the pocket backbone: a linear classifier on the statistics of its stem, fitted on the
same kind of crops. What the transformer is worth is what it finds beyond this."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from dinolizer.model.pocket_vit import PATCH, TraceStem
from dinolizer.paths import ASSETS
from dinolizer.pocket.forging import Image

_stem, _weights = cache(TraceStem), cache(load_file)


def residual_classifier(image: Image, folder: Path = ASSETS) -> NDArray[np.float32]:
    """Map, float32 ``(H, W)``, of the rival's logits on an image uint8 ``(H, W, 3)`` RGB: those of
    whole patches, interpolated linearly; a last patch that the image fills in part is mirrored."""
    height, width = image.shape[:2]
    ends = [(0, -length % PATCH) for length in (height, width)]
    whole = np.pad(image, [*ends, (0, 0)], mode="symmetric")
    weights = _weights(folder / "pocket-rival.safetensors")
    logits = statistics(whole) @ weights["weight"].numpy() + weights["bias"].numpy()
    enlarged = cv2.resize(logits, whole.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged[:height, :width], np.float32)


def statistics(image: Image) -> NDArray[np.float32]:
    """The stem's statistics of each patch less their mean over the image, ``(h, w, C)``."""
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        features = _stem().statistics(pixels)[0]
        return (features - features.mean(dim=(1, 2), keepdim=True)).permute(1, 2, 0).numpy()
