"""Training crops of the images of a manifest: cut, mirrored and degraded at random."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from dinolizer.data.degradations import jpeg
from dinolizer.data.manifest import read_pair, target
from dinolizer.errors import InputError

TRAIN = ("train", "training")
VALIDATION = ("valid", "validation", "val")  # names of datasets; other splits are never read here


@dataclass(frozen=True)
class Augmentations:
    """Probabilities of the augmentations, and their ranges: no number of the paper's is known.
    Jitters are the largest relative changes of brightness, contrast and saturation, and the largest
    turn of the hue (1 is the whole circle); blur is in pixels, noise in grey levels of 0 to 255."""

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


def build_transform(window: int, settings: Augmentations | None) -> v2.Transform:
    """The transform of ``(image, labels)``, uint8 ``tv_tensors.Image`` (3, H, W) and ``Mask`` (H,
    W), to (window, window), by torch's global random numbers; without settings it only cuts.
    Nothing is resized. JPEG, really encoded, comes last, as it usually does."""
    crop = v2.RandomCrop(window)
    if settings is None:
        return crop
    jitter = v2.ColorJitter(*[settings.colour_jitter] * 3, settings.hue_jitter)
    noises = [v2.GaussianNoise(0, level / 255) for level in settings.noise_levels]

    def compress(image: Tensor) -> Tensor:
        quality = int(torch.randint(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1, ()))
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


class Crops(Dataset[tuple[Tensor, ...]]):
    """Crops with their labels; each is a function of the seed, the epoch and the row. Item ``epoch
    * len(frame) + row`` is uint8 ``(3, window, window)`` RGB of that row of the manifest ``frame``,
    and its `patch_shares`. Images with a side under the window are continued by reflection, their
    labels too. The window is a multiple of the patch, both in pixels."""

    def __init__(
        self,
        frame: pd.DataFrame,
        policy: str,
        window: int,
        patch: int,
        seed: int = 0,
        augmentations: Augmentations | None = None,
    ) -> None:
        self.rows = frame[["image", "mask", "kind", "background"]].to_numpy(object)
        self.policy, self.window, self.patch, self.seed = policy, window, patch, seed
        self.transform = build_transform(window, augmentations)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 of the paths and kinds of the rows, and of the sizes of window and patch."""
        rows = "\n".join("\t".join(row) for row in self.rows)
        return hashlib.sha256(f"{self.window} {self.patch}\n{rows}".encode()).hexdigest()

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        epoch, row = divmod(item, len(self.rows))
        image, labels = self._read(row)
        state = np.random.SeedSequence([self.seed, epoch, row]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.default_generator.manual_seed(int(state[0]))
            pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
            crop, crop_labels = self.transform(pixels, tv_tensors.Mask(torch.from_numpy(labels)))
        shares = patch_shares(crop_labels.as_subclass(Tensor), self.policy, self.patch)
        return crop.as_subclass(Tensor).contiguous(), shares

    def _read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and labels (H, W) of a row, with no side under the window."""
        path, mask_path, kind, background = self.rows[row]
        image, mask = read_pair({"image": path, "mask": mask_path})
        labels = target(mask, kind, background, self.policy)
        # NumPy reflects again and again where the image is smaller than what is added.
        added = [(0, max(0, self.window - side)) for side in labels.shape]
        return np.pad(image, [*added, (0, 0)], "reflect"), np.pad(labels, added, "reflect")


def crop_batches(
    crops: Dataset[tuple[Tensor, ...]], items: Sequence[Sequence[int]], workers: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Crops and labels of each list of items (none of them empty), stacked, in the lists' order,
    whatever the ``workers``. Raises InputError for a file that cannot be read."""
    loader = DataLoader(
        crops,
        batch_sampler=[list(batch) for batch in items],
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or it would take from the caller's random numbers
    )
    try:
        yield from loader
    except InputError as error:
        # From another process it comes with a traceback in its message, the sentence last.
        sentence = str(error).strip().splitlines()[-1]
        raise InputError(sentence.removeprefix("dinolizer.errors.InputError: ")) from None


def patch_shares(labels: Tensor, policy: str, patch: int) -> Tensor:
    """From uint8 labels ``(H, W)`` of `dinolizer.data.manifest.target` to the share of each patch
    that is labelled 1, float32 ``(h, w)`` in [0, 1], or those of three classes, ``(3, h, w)``."""
    if policy != "three-class":
        return F.avg_pool2d(labels[None].float(), patch)[0]
    return F.avg_pool2d(F.one_hot(labels.long(), 3).permute(2, 0, 1).float(), patch)
