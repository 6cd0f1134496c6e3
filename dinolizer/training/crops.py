"""Training crops of the images of a manifest."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from dinolizer.data.manifest import read_pair, target, validate
from dinolizer.errors import InputError
from dinolizer.training.augmentations import Augmentations, build_transform

TRAIN = ("train", "training")
VALIDATION = ("valid", "validation", "val")
"""Names that datasets give these splits; rows of any other split are never read here."""


class Crops(Dataset[tuple[Tensor, ...]]):
    """Augmented crops with their labels; each is a function of the seed, the epoch and the row.

    Item ``epoch * len(frame) + row`` is the crop of that row of the manifest ``frame`` in that
    epoch (from 0): uint8 ``(3, window, window)`` RGB, and its `patch_shares`. Images with a side
    under the window are continued by reflection, their labels too. The window is a multiple of the
    patch, both in pixels; the policy is one of `POLICIES`.
    """

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
            crop, crop_labels = self.transform(
                tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
                tv_tensors.Mask(torch.from_numpy(labels)),
            )
        shares = patch_shares(crop_labels.as_subclass(Tensor), self.policy, self.patch)
        return crop.as_subclass(Tensor).contiguous(), shares

    def _read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and labels (H, W) of a row, with no side under the window."""
        path, mask_path, kind, background = self.rows[row]
        image, mask = read_pair({"image": path, "mask": mask_path})
        labels = target(mask, kind, background, self.policy)
        below, right = (max(0, self.window - side) for side in labels.shape)
        if below or right:
            # NumPy reflects again and again where the image is smaller than what is added.
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
            labels = np.pad(labels, ((0, below), (0, right)), mode="reflect")
        return image, labels


def split_crops(
    manifest: pd.DataFrame,
    policy: str,
    window: int,
    patch: int,
    seed: int = 0,
    augmentations: Augmentations | None = None,
) -> list[Crops]:
    """`Crops` of the training and of the validation rows; the latter are not augmented. No
    photograph may be in two splits, and neither split may be empty."""
    validate(manifest)
    made = []
    for names, augmented in ((TRAIN, augmentations), (VALIDATION, None)):
        rows = manifest[manifest["split"].isin(names)]
        if rows.empty:
            raise InputError(
                f"The manifest has no row of the split {names[0]!r}, only of "
                f"{', '.join(sorted(set(manifest['split'])))}: training needs rows of "
                f"{TRAIN[0]!r} and of {VALIDATION[0]!r}."
            )
        made.append(Crops(rows, policy, window, patch, seed, augmented))
    return made


def crop_batches(
    crops: Dataset[tuple[Tensor, ...]],
    items: Sequence[Sequence[int]],
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, ...]]:
    """Crops and labels of each list of items (none of them empty), stacked, in the lists' order.

    The items are those of `Crops` or of another data set of pairs. ``workers`` processes prepare
    them ahead, which does not change the crops; ``pin_memory`` is for a GPU. Raises InputError for
    a file that cannot be read, whichever process met it.
    """
    loader = DataLoader(
        crops,
        batch_sampler=[list(batch) for batch in items],
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or it would take from the caller's random numbers
    )
    try:
        yield from loader
    except InputError as error:
        # From another process it comes with a traceback in its message, the sentence last.
        sentence = str(error).strip().splitlines()[-1]
        raise InputError(sentence.removeprefix("dinolizer.errors.InputError: ")) from None


def patch_shares(labels: Tensor, policy: str, patch: int) -> Tensor:
    """Share of each patch that has a label: float32 in [0, 1].

    From uint8 labels ``(H, W)`` of `dinolizer.data.manifest.target`, sides multiples of the patch,
    to the share of label 1, ``(h, w)``, or for three classes ``(3, h, w)``.
    """
    if policy != "three-class":
        return F.avg_pool2d(labels[None].float(), patch)[0]
    return F.avg_pool2d(F.one_hot(labels.long(), 3).permute(2, 0, 1).float(), patch)
