"""What a training crop goes through: where it is cut, whether it is mirrored, how it is degraded.

The paper names JPEG, noise, blur and colour jitter; with which probabilities and ranges is not
known. Every number in `Augmentations` is a choice of this project.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dinolizer.data.degradations import jpeg
from dinolizer.errors import InputError


@dataclass(frozen=True)
class Augmentations:
    """Probabilities and ranges of the augmentations; all of them are ours, not the paper's.

    Attributes
    ----------
    flip, colour, blur, noise, jpeg
        Probability of each, 0 to 1.
    colour_jitter, hue_jitter
        Largest relative change of brightness, contrast and saturation, and largest turn of the hue
        (1 is the whole circle).
    blur_sigma
        Least and greatest standard deviation of the Gaussian, in pixels; its kernel has 9.
    noise_levels
        Standard deviations of the noise, in grey levels of 0 to 255; one of them is drawn.
    jpeg_quality
        Least and greatest quality on the libjpeg scale.
    """

    flip: float = 0.5
    colour: float = 0.5
    blur: float = 0.2
    noise: float = 0.3
    jpeg: float = 0.5
    colour_jitter: float = 0.2
    hue_jitter: float = 0.05
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    noise_levels: tuple[float, ...] = (2.0, 4.0, 8.0, 12.0)
    jpeg_quality: tuple[int, int] = (50, 100)

    def __post_init__(self) -> None:
        for name in ("flip", "colour", "blur", "noise", "jpeg"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"The augmentation {name!r} has the probability {getattr(self, name)}, but it "
                    "must be from 0 to 1."
                )


class Jpeg(v2.Transform):  # type: ignore[misc]
    """Compression of a uint8 image on the CPU; torchvision's own transform is deprecated.

    Parameters
    ----------
    quality
        Least and greatest on the libjpeg scale; one in between is drawn.
    """

    def __init__(self, quality: tuple[int, int]) -> None:
        super().__init__()
        self.least, self.greatest = quality

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        return {"quality": int(torch.randint(self.least, self.greatest + 1, ()))}

    def transform(self, inpt: Tensor, params: dict[str, int]) -> Tensor:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        compressed = jpeg(inpt.permute(1, 2, 0).numpy(), params["quality"])
        return tv_tensors.wrap(torch.from_numpy(compressed).permute(2, 0, 1), like=inpt)


def build_transform(window: int, settings: Augmentations | None) -> v2.Transform:
    """Build the torchvision transform of ``(image, labels)`` pairs to crops.

    Parameters
    ----------
    window
        Side of the crop, in pixels.
    settings
        None: the crop alone, as for validation.

    Returns
    -------
    v2.Transform
        Takes a uint8 ``tv_tensors.Image`` (3, H, W) and a ``tv_tensors.Mask`` (H, W), with neither
        side under the window, and gives them at (window, window). It draws from torch's global
        random numbers. Nothing is resized; the mask follows the geometry only. JPEG comes last, as
        compression is what an image has usually met last, and is really encoded.
    """
    crop = v2.RandomCrop(window)
    if settings is None:
        return crop
    jitter = settings.colour_jitter
    return v2.Compose(
        [
            crop,
            v2.RandomHorizontalFlip(settings.flip),
            v2.RandomApply(
                [v2.ColorJitter(jitter, jitter, jitter, settings.hue_jitter)], settings.colour
            ),
            v2.RandomApply([v2.GaussianBlur(9, settings.blur_sigma)], settings.blur),
            v2.RandomApply(
                [v2.RandomChoice([v2.GaussianNoise(0, s / 255) for s in settings.noise_levels])],
                settings.noise,
            ),
            v2.RandomApply([Jpeg(settings.jpeg_quality)], settings.jpeg),
        ]
    )
