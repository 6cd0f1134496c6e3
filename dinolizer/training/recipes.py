"""The two published variants, trained from a manifest.

``v1`` is the paper's: a frozen backbone and a linear head. ``v2`` is the later public release's:
LoRA on the attention projections, three classes (real, re-encoded, inpainted), and the mean of the
logits of overlapping windows.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dinolizer.data.manifest import validate
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, pick_device
from dinolizer.model.head import CLASSES, HeadCard, card_for, load_head, save_head
from dinolizer.model.lora import Lora, adapted, adapter_tensors
from dinolizer.paths import check_outputs
from dinolizer.training.augmentations import Augmentations
from dinolizer.training.crops import TRAIN, VALIDATION, Crops, crop_batches
from dinolizer.training.heads import Fit, Heads, standardisation
from dinolizer.training.loop import Network, optimise
from dinolizer.training.losses import dice_sums, soft_dice
from dinolizer.training.tokens import extract_crops, token_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

Batches = Iterator[tuple[Tensor, ...]]
CROPS = ("fixed", "fresh")
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""From the names of torch to those of Accelerate."""
SAMPLE = 64
"""Crops whose tokens give the mean and the scale that the head's input is standardised with."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training, apart from the data and the backbone's weights.

    The paper's learning rate, batch and epochs are not known: the values are this project's.

    Attributes
    ----------
    policy, precision
        Keys of `dinolizer.model.head.CLASSES` and `PRECISIONS`.
    lora
        The adapter that is trained too, or None: the backbone is frozen.
    lr
        Highest learning rate of AdamW; it falls to 0 along a cosine.
    crops
        ``"fixed"``: one crop of each image, the same in all epochs; without an adapter the backbone
        then sees it once, and its tokens stay in memory. ``"fresh"``: a new one in every epoch.
    epochs, batch, patience
        Passes over the images; crops per step, of all processes together; and epochs without a
        better validation Dice before training stops. The best epoch is kept.
    seed
        Decides the crops, their order, and the adapter's first values.
    """

    policy: str
    lora: Lora | None
    lr: float
    crops: str
    epochs: int = 20
    batch: int = 32
    patience: int = 5
    seed: int = 0
    precision: str = "float32"
    augmentations: Augmentations = field(default_factory=Augmentations)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "lr"):
            value = getattr(self, name)
            if not (value > 0 and isfinite(value)):
                raise InputError(f"The {name} is {value}, but a finite number over 0 is expected.")
        choices = {"policy": [*CLASSES], "precision": [*PRECISIONS], "crops": [*CROPS]}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"The {name} is {getattr(self, name)!r}, but it must be one of {allowed}."
                )

    @property
    def keeps_tokens(self) -> bool:
        """Whether every crop passes through the backbone only once."""
        return self.crops == "fixed" and self.lora is None


VARIANTS = {
    "v1": Recipe(policy="pristine", lora=None, lr=0.05, crops="fixed"),
    "v2": Recipe(policy="three-class", lora=Lora(rank=64, alpha=64), lr=1e-4, crops="fresh"),
}
"""The learning rates are ours: those of the paper and of the release are not known."""


class Training(NamedTuple):
    """What `load_head` reads from the saved file, and the history as in `Fit`."""

    backbone: Backbone
    head: nn.Conv2d
    card: HeadCard
    history: pd.DataFrame


def train(
    manifest: pd.DataFrame,
    backbone: Backbone,
    out: Path,
    variant: str = "v1",
    *,
    device: str | None = None,
    cache_gb: float = 8,
    workers: int = 0,
    overwrite: bool = False,
    **changes: object,
) -> Training:
    """Train a variant, a key of `VARIANTS`, on the crops of a manifest and save it.

    Raises InputError for an unknown setting, a split without rows, an image that cannot be read,
    tokens over ``cache_gb``, an ``out`` that cannot be written or would replace something, and what
    `dinolizer.training.loop.optimise` refuses.

    Parameters
    ----------
    manifest
        Only rows of the splits ``train`` (or ``training``) and ``valid`` (``validation``, ``val``)
        are used, and only their files are opened.
    backbone
        Is moved to the device, and otherwise stays as it is.
    out
        A file ending in .safetensors. Beside it go ``<stem>-history.csv`` and, until the end,
        ``<stem>.checkpoint``: where it exists, training goes on from there.
    device
        ``"cpu"`` or ``"cuda"``; by default the GPU if there is one, under ``torchrun`` one each.
    cache_gb
        Most that the tokens of fixed crops may take in memory, and again on disk, in 10^9 bytes.
    workers
        Processes that prepare crops ahead.
    overwrite
        Replace an existing head.
    **changes
        Fields of `Recipe` that differ from the variant's; None leaves a field as it is.
    """
    if variant not in VARIANTS:
        raise InputError(f"The variant is {variant!r}, but it must be one of {list(VARIANTS)}.")
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = replace(VARIANTS[variant], **given)  # type: ignore[arg-type]
    training, validation = _split_crops(manifest, backbone, recipe)
    log, checkpoint = history_path(out), out.with_suffix(".checkpoint")
    _check_out(out, log, checkpoint, overwrite)
    accelerator = _accelerator(recipe.precision, device)
    backbone = backbone.to(accelerator.device)
    _check_memory(backbone, recipe, len(training) + len(validation), cache_gb, accelerator)
    learning = adapted(backbone, recipe.lora, recipe.seed) if recipe.lora else backbone
    saving: dict[str, Any] = {"checkpoint": checkpoint, "log": log, "workers": workers}
    made = fit_recipe(learning, training, validation, recipe, accelerator, **saving)
    about = (
        f"{variant}, trained on {len(training)} images of "
        f"{', '.join(sorted(set(manifest['dataset'])))}; {recipe}; licence of the backbone: "
        f"{backbone.spec.licence}"
    )
    if accelerator.is_main_process:
        card = card_for(backbone, about, recipe.policy, recipe.lora)
        save_head(out, made.head, card, adapter_tensors(learning) if recipe.lora else None)
        checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    dice = made.history["validation_dice"]
    accelerator.print(f"{out}: {len(dice)} epochs, validation Dice {dice.max():.3f}.")
    return Training(*load_head(out, backbone), made.history)


def fit_recipe(
    backbone: Backbone,
    training: Crops,
    validation: Crops,
    recipe: Recipe,
    accelerator: "Accelerator",
    *,
    workers: int = 0,
    **saving: Any,
) -> Fit:
    """Train a head, and the adapter inside the backbone, which ends as that of the best epoch.

    Each step takes the soft Dice of all crops of its batch together, whichever process has them, so
    several processes give the result of one. Crops that do not fill an epoch's last batch are left
    out. ``saving`` is ``checkpoint``, ``log`` and ``save_every`` of `optimise`.
    """
    device, world = accelerator.device, accelerator.num_processes
    size = min(recipe.batch, len(training))
    if size < world:
        raise InputError(
            f"A batch has {size} crops, but each of the {world} processes needs one: take a larger "
            "batch or fewer processes."
        )
    per_epoch = len(training) // size
    sets: list[Dataset[tuple[Tensor, ...]]] = [training, validation]
    if recipe.keeps_tokens:
        sets = [extract_crops(backbone, crops, workers) for crops in (training, validation)]
        workers = 0
    head = Heads({}, backbone.dim, CLASSES[recipe.policy])
    network = Network(backbone, head)

    def order(epoch: int) -> list[int]:
        numbers = np.random.default_rng([recipe.seed, epoch]).permutation(len(training))
        return (numbers + epoch * len(training) * (recipe.crops == "fresh")).tolist()

    def load(number: int, items: Sequence[int], rank: int, world: int = world) -> Batches:
        """A process's share of each batch of items of a set."""
        batches = [items[at : at + size][rank::world] for at in range(0, len(items), size)]
        batches = [batch for batch in batches if batch]
        return crop_batches(sets[number], batches, workers, device.type == "cuda")

    def batches(first: int, last: int) -> Batches:
        epoch, done = divmod(first, per_epoch)
        items = order(epoch)[done * size : (done + last - first) * size]
        return load(0, items, accelerator.process_index)

    def loss_of(model: nn.Module, crops: Tensor, targets: Tensor) -> Tensor:
        sums = dice_sums(model(crops).float(), targets).sum(1)
        return 1 - soft_dice(pooled(sums, accelerator))

    @torch.no_grad()
    def validation_dice() -> float:
        sums = torch.zeros(2, CLASSES[recipe.policy], device=device)
        for crops, targets in load(1, range(len(validation)), accelerator.process_index):
            # Not through the wrapped model, which waits for processes that have fewer batches.
            sums += dice_sums(network(crops.to(device)).float(), targets.to(device)).sum(1)
        return soft_dice(accelerator.reduce(sums, "sum")).item()

    with torch.no_grad(), accelerator.autocast():
        sample = load(0, order(0)[:SAMPLE], rank=0, world=1)  # the same in each process
        tokens = torch.cat([network.tokens(crops.to(device)) for crops, _ in sample])
        head.mean, head.scale = standardisation(tokens, tokens.new_ones(1, len(tokens)), size)
    images = f"{training.digest[:12]} {validation.digest[:12]}"
    progress = optimise(
        network,
        batches,
        loss_of,
        steps=recipe.epochs * per_epoch,
        lr=recipe.lr,
        warm_up=False,
        score=validation_dice,
        score_every=per_epoch,
        patience=recipe.patience,
        settings=asdict(recipe) | {"backbone": backbone.hash, "images": images},
        accelerator=accelerator,
        **saving,
    )
    return Fit(head.linear(), progress.history())


def pooled(sums: Tensor, accelerator: "Accelerator") -> Tensor:
    """Add up the sums of all processes. The gradient is this process's, times the number of
    processes, because gradients are averaged afterwards."""
    fixed = sums.detach()
    return accelerator.reduce(fixed, "sum") + accelerator.num_processes * (sums - fixed)


def history_path(out: Path) -> Path:
    """Where `train` writes the history of the head in ``out``."""
    return out.with_name(f"{out.stem}-history.csv")


def _split_crops(manifest: pd.DataFrame, backbone: Backbone, recipe: Recipe) -> list[Crops]:
    """Crops of the training and of the validation rows; the latter are not augmented."""
    validate(manifest)  # so that no photo is in two splits
    window, patch = backbone.spec.window, backbone.spec.patch
    made = []
    for names, augmentations in ((TRAIN, recipe.augmentations), (VALIDATION, None)):
        rows = manifest[manifest["split"].isin(names)]
        if rows.empty:
            raise InputError(
                f"The manifest has no row of the split {names[0]!r}, only of "
                f"{', '.join(sorted(set(manifest['split'])))}: training needs rows of "
                f"{TRAIN[0]!r} and of {VALIDATION[0]!r}."
            )
        made.append(Crops(rows, recipe.policy, window, patch, recipe.seed, augmentations))
    return made


def _check_memory(
    backbone: Backbone, recipe: Recipe, crops: int, cache_gb: float, accelerator: "Accelerator"
) -> None:
    """Check that the tokens of fixed crops can be kept, and print what will be done."""
    size = token_bytes(backbone, crops, CLASSES[recipe.policy]) / 1e9
    world = accelerator.num_processes
    if recipe.keeps_tokens and (size > cache_gb or world > 1):
        raise InputError(
            f"Training on {crops} fixed crops, one per image, keeps {size:.3g} GB of tokens in "
            f"each of {world} processes, but only one process and {cache_gb:g} GB are allowed: "
            "allow more, or choose fresh crops."
        )
    passes = f"with {size:.3g} GB of tokens" if recipe.keeps_tokens else "read in every epoch"
    accelerator.print(f"{crops} {recipe.crops} crops, one per image, {passes}.")


def _accelerator(precision: str, device: str | None) -> "Accelerator":
    from accelerate import Accelerator

    cpu = pick_device(device).type == "cpu"
    if precision == "float16" and cpu:
        raise InputError(
            "The precision 'float16' needs a GPU; take 'float32' or 'bfloat16' on a CPU."
        )
    try:
        return Accelerator(mixed_precision=PRECISIONS[precision], cpu=cpu)
    except ValueError:  # Accelerate keeps one state for the whole process
        raise InputError(
            f"This Python process has trained with another precision or device than "
            f"{precision!r} on {'the CPU' if cpu else 'the GPU'}: start a new one for that."
        ) from None


def _check_out(out: Path, log: Path, checkpoint: Path, overwrite: bool) -> None:
    """Find out before hours of training whether the result can be written."""
    check_outputs([out], ".safetensors", overwrite=overwrite)
    check_outputs([log], overwrite=out.exists() or checkpoint.exists())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise InputError(
            f"The head cannot be written to {out} ({error.strerror or error}); choose a folder "
            "that you may write to."
        ) from None
