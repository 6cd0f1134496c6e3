"""The two published variants, trained from a manifest.

``v1`` is the paper's: a frozen backbone and a linear head. ``v2`` is the later public release's:
LoRA, three classes (real, re-encoded, inpainted), and the mean of overlapping windows' logits."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dinolizer.data.manifest import validate
from dinolizer.errors import InputError, check_choice, writing
from dinolizer.model.backbones import Backbone, pick_device
from dinolizer.model.head import CLASSES, card_for, load_head, save_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.lora import Lora, adapted, adapter_tensors
from dinolizer.model.specs import BackboneSpec
from dinolizer.paths import check_outputs
from dinolizer.training.crops import TRAIN, VALIDATION, Augmentations, Crops, crop_batches
from dinolizer.training.heads import Fit, Heads, dice_sums, soft_dice, standardisation
from dinolizer.training.loop import Batch, optimise
from dinolizer.training.tokens import extract_crops, token_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""From the names of torch to those of Accelerate."""
SAMPLE = 64
"""Crops whose tokens give the mean and the scale that the head's input is standardised with."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training, apart from data and backbone; learning rate, batch and
    epochs are this project's. Crops are ``"fresh"``, or ``"fixed"``: the same in all epochs, so
    that without an adapter the backbone sees each once, and its tokens stay in memory."""

    policy: str  # a key of `CLASSES`
    lora: Lora | None  # the adapter that is trained too; without one the backbone is frozen
    lr: float  # the highest, of AdamW; it falls to 0 along a cosine
    crops: str
    epochs: int = 20
    batch: int = 32  # crops per step, of all processes together
    patience: int = 5  # epochs without a better validation Dice, before it stops with the best
    seed: int = 0  # of the crops, their order, and the adapter's first values; under 2^32
    precision: str = "float32"
    augmentations: Augmentations = field(default_factory=Augmentations)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "lr"):
            value = getattr(self, name)
            if not 0 < value < 1e30:  # steps of more than float32 holds are no steps
                raise InputError(f"The {name} is {value}, but a number from 0 to 1e30 is expected.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed is {self.seed}, but it must be from 0 to 2^32 - 1.")
        check_choice("policy", self.policy, CLASSES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("crops", self.crops, ("fixed", "fresh"))


VARIANTS = {
    "v1": Recipe(policy="pristine", lora=None, lr=0.05, crops="fixed"),
    "v2": Recipe(policy="three-class", lora=Lora(rank=64, alpha=64), lr=1e-4, crops="fresh"),
}
"""The learning rates are ours: those of the paper and of the release are not known."""


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
) -> Localizer:
    """Train a variant, a key of `VARIANTS`, on the crops of a manifest, save it, and return it.

    Only rows of the splits ``train`` (``training``) and ``valid`` (``validation``, ``val``) are
    used. The backbone is moved to the device (by default the GPU if there is one, under
    ``torchrun`` one each), and otherwise stays as it is. ``changes`` are fields of `Recipe` that
    differ from the variant's, but for None. ``workers`` processes prepare crops. Tokens of fixed
    crops may take ``cache_gb`` (10^9 bytes) in memory, and again on disk. Beside ``out``, a
    .safetensors, go `history_path` and ``<stem>.checkpoint``, from which training goes on.

    Raises InputError for an unknown setting, a split without rows, an image that cannot be read,
    tokens over ``cache_gb``, an ``out`` that cannot be written or is there, and as `optimise`."""
    check_choice("variant", variant, VARIANTS)
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = replace(VARIANTS[variant], **given)  # type: ignore[arg-type]
    sets = _split_crops(manifest, backbone.spec, recipe)
    log, checkpoint = history_path(out), out.with_suffix(".checkpoint")
    check_outputs([out], ".safetensors", overwrite=overwrite)
    check_outputs([log], overwrite=out.exists() or checkpoint.exists())
    with writing(out.parent):  # and not after hours of training
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    accelerator = _accelerator(recipe.precision, device)
    backbone = backbone.to(accelerator.device)
    learning = adapted(backbone, recipe.lora, recipe.seed) if recipe.lora else backbone
    limits: dict[str, Any] = {"cache_gb": cache_gb, "workers": workers}
    made = fit_recipe(learning, sets, recipe, accelerator, checkpoint, log=log, **limits)
    about = f"{variant}, trained on {len(sets[0])} images of "
    about += f"{', '.join(sorted(set(manifest['dataset'])))}; {recipe}; licence of the backbone: "
    about += backbone.spec.licence
    if accelerator.is_main_process:
        card = card_for(backbone, about, recipe.policy, recipe.lora)
        save_head(out, made.head, card, adapter_tensors(learning) if recipe.lora else None)
        checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    dice = made.history["validation_dice"]
    accelerator.print(f"{out}: {len(dice)} epochs, validation Dice {dice.max():.3f}.")
    return Localizer(*load_head(out, backbone))


def history_path(out: Path) -> Path:
    """Where `train` writes the history of the head in ``out``, as in `Fit`: a CSV."""
    return out.with_name(f"{out.stem}-history.csv")


def _split_crops(manifest: pd.DataFrame, spec: BackboneSpec, recipe: Recipe) -> list[Crops]:
    """`Crops` of the training and of the validation rows; the latter are not augmented."""
    validate(manifest)
    sets = []
    for names, augmentations in ((TRAIN, recipe.augmentations), (VALIDATION, None)):
        rows = manifest[manifest["split"].isin(names)]
        if rows.empty:
            known = ", ".join(sorted(set(manifest["split"])))
            due = f"training needs rows of {TRAIN[0]!r} and of {VALIDATION[0]!r}"
            raise InputError(f"There is no row of the split {names[0]!r}, only of {known}: {due}.")
        cut = (spec.window, spec.patch, recipe.seed, augmentations)
        sets.append(Crops(rows, recipe.policy, *cut))
    return sets


def _accelerator(precision: str, device: str | None) -> "Accelerator":
    from accelerate import Accelerator

    cpu = pick_device(device).type == "cpu"
    if precision == "float16" and cpu:
        raise InputError("The precision 'float16' needs a GPU; take another one on a CPU.")
    try:
        return Accelerator(mixed_precision=PRECISIONS[precision], cpu=cpu)
    except ValueError:  # Accelerate keeps one state for the whole process
        other = f"another precision or device than {precision!r} on the {'CPU' if cpu else 'GPU'}"
        raise InputError(f"This process has trained with {other}: start a new one.") from None


class Network(nn.Module):
    """A backbone and a single linear head of `Heads`, from uint8 crops to logits. It reads
    standardised tokens, so that a learning rate means the same for every backbone."""

    def __init__(self, backbone: Backbone, head: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head.requires_grad_(True).to(backbone.device)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits float ``(N, C, h, w)``, of what `tokens` takes."""
        head = self.head
        standard = (self.tokens(crops) - head.mean[0, :, None, None]) * head.scale[0, :, None, None]
        return F.conv2d(standard, head.weight[0, ..., None, None], head.bias[0])

    def tokens(self, crops: Tensor) -> Tensor:
        """Tokens ``(N, D, h, w)`` of uint8 crops ``(N, 3, H, W)``; float16 tokens pass through."""
        if crops.dtype != torch.uint8:
            return crops.float()
        return self.backbone.tokens(crops.float() / 255)


def fit_recipe(
    backbone: Backbone,
    sets: Sequence[Crops],
    recipe: Recipe,
    accelerator: "Accelerator",
    checkpoint: Path,
    *,
    cache_gb: float = 8,
    workers: int = 0,
    **saving: Any,
) -> Fit:
    """Train a head, and the adapter inside the backbone, which ends as that of the best epoch, on
    crops to train on and to validate on; ``saving`` is ``log`` and ``save_every`` of `optimise`.
    Each step takes the soft Dice of all crops of its batch together, whichever process has them.
    Crops that do not fill an epoch's last batch are left out."""
    device, world = accelerator.device, accelerator.num_processes
    classes, count, most = CLASSES[recipe.policy], *map(len, sets)
    size = min(recipe.batch, count)
    per_epoch = count // size
    if size < world:
        hint = "take a larger batch or fewer processes"
        raise InputError(f"A batch has {size} crops, but {world} processes need one each: {hint}.")
    crops, passes = f"{count + most} {recipe.crops} crops, one per image", "read in every epoch"
    data: Sequence[Dataset[Batch]] = sets
    if recipe.crops == "fixed" and not recipe.lora:
        needed = token_bytes(backbone, count + most, classes) / 1e9
        if needed > cache_gb or world > 1:
            keeps = f"keeps {needed:.3g} GB of tokens in each of {world} processes"
            limit = f"only one process and {cache_gb:g} GB are allowed"
            advice = "allow more, or choose fresh crops"
            raise InputError(f"Training on {crops}, {keeps}, but {limit}: {advice}.")
        passes = f"with {needed:.3g} GB of tokens"
        data, workers = [extract_crops(backbone, part, workers) for part in sets], 0
    accelerator.print(f"{crops}, {passes}.")
    head = Heads({}, backbone.dim, classes)
    network = Network(backbone, head)
    fresh = count * (recipe.crops == "fresh")  # crops of an epoch that no other has
    drawn = (np.random.default_rng([recipe.seed, epoch]) for epoch in range(recipe.epochs))
    orders = [rng.permutation(count) + epoch * fresh for epoch, rng in enumerate(drawn)]
    items = np.concatenate([order[: per_epoch * size] for order in orders])

    def load(which: int, items: Sequence[int], rank: int, step: int = world) -> Iterable[Batch]:
        """A process's share of each batch of items of a set."""
        batches = [items[at : at + size][rank::step] for at in range(0, len(items), size)]
        return crop_batches(data[which], [*filter(len, batches)], workers)

    def batches(first: int, last: int) -> Iterable[Batch]:
        return load(0, items[first * size : last * size].tolist(), accelerator.process_index)

    def loss_of(model: nn.Module, crops: Tensor, targets: Tensor) -> Tensor:
        sums = dice_sums(model(crops).float(), targets).sum(1)
        return 1 - soft_dice(pooled(sums, accelerator))

    @torch.no_grad()
    def validation_dice() -> float:
        sums = torch.zeros(2, classes, device=device)
        for crops, targets in load(1, range(most), accelerator.process_index):
            # Not through the wrapped model, which waits for processes that have fewer batches.
            sums += dice_sums(network(crops.to(device)).float(), targets.to(device)).sum(1)
        return soft_dice(accelerator.reduce(sums, "sum")).item()

    with torch.no_grad(), accelerator.autocast():
        sample = load(0, orders[0][:SAMPLE].tolist(), 0, 1)  # the same in each process
        tokens = torch.cat([network.tokens(crops.to(device)) for crops, _ in sample])
        head.mean, head.scale = standardisation(tokens, tokens.new_ones(1, len(tokens)), size)
    images = " ".join(part.digest[:12] for part in sets)
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
        checkpoint=checkpoint,
        settings=asdict(recipe) | {"backbone": backbone.hash, "images": images},
        accelerator=accelerator,
        **saving,
    )
    return Fit(head.linear(), progress.history())


def pooled(sums: Tensor, accelerator: "Accelerator") -> Tensor:
    """Add up all processes' sums; the gradient is this one's times their number."""
    fixed = sums.detach()
    return accelerator.reduce(fixed, "sum") + accelerator.num_processes * (sums - fixed)
