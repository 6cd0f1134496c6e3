"""What a training crop goes through: where it is cut, whether it is mirrored, how it is degraded.

The paper names JPEG, noise, blur and colour jitter; their probabilities and ranges are not known,
so every number in `Augmentations` is a choice of this project.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dinolizer.data.degradations import jpeg
from dinolizer.errors import InputError


@dataclass(frozen=True)
class Augmentations:
    """Probabilities of the augmentations, 0 to 1, and their ranges.

    ``colour_jitter`` is the largest relative change of brightness, contrast and saturation;
    ``hue_jitter`` the largest turn of the hue (1 is the whole circle); ``blur_sigma`` a range of
    standard deviations, in pixels (the kernel has 9); ``noise_levels`` are standard deviations to
    draw from, in grey levels of 0 to 255; ``jpeg_quality`` is a range on the libjpeg scale.
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


def build_transform(window: int, settings: Augmentations | None) -> v2.Transform:
    """Build the torchvision transform of ``(image, labels)`` pairs; without settings it only cuts.

    It takes a uint8 ``tv_tensors.Image`` (3, H, W) and ``tv_tensors.Mask`` (H, W), no side under
    the window, and returns them at (window, window). It draws from torch's global random numbers.
    Nothing is resized; the mask follows the geometry only. JPEG, really encoded, comes last, as
    compression is what an image has usually met last.
    """
    crop = v2.RandomCrop(window)
    if settings is None:
        return crop
    jitter = v2.ColorJitter(*[settings.colour_jitter] * 3, settings.hue_jitter)
    noises = [v2.GaussianNoise(0, level / 255) for level in settings.noise_levels]
    least, greatest = settings.jpeg_quality

    def compress(image: Tensor) -> Tensor:
        quality = int(torch.randint(least, greatest + 1, ()))
        compressed = torch.from_numpy(jpeg(image.permute(1, 2, 0).numpy(), quality))
        return tv_tensors.wrap(compressed.permute(2, 0, 1), like=image)

    return v2.Compose(
        [
            crop,
            v2.RandomHorizontalFlip(settings.flip),
            v2.RandomApply([jitter], settings.colour),
            v2.RandomApply([v2.GaussianBlur(9, settings.blur_sigma)], settings.blur),
            v2.RandomApply([v2.RandomChoice(noises)], settings.noise),
            v2.RandomApply([v2.Lambda(compress, tv_tensors.Image)], settings.jpeg),
        ]
    )
