"""The two published variants, trained from a manifest.

``v1`` is the paper's: a frozen backbone and a linear head. ``v2`` is the later public release's:
LoRA on the attention projections, three classes (real, re-encoded, inpainted), and the mean of the
logits of overlapping windows.
"""

import tempfile
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from torch import nn

from dinolizer.errors import InputError, check_choice, unwritable
from dinolizer.model.backbones import Backbone, pick_device
from dinolizer.model.head import CLASSES, HeadCard, card_for, load_head, save_head
from dinolizer.model.lora import Lora, adapted, adapter_tensors
from dinolizer.paths import check_outputs
from dinolizer.training.augmentations import Augmentations
from dinolizer.training.crops import split_crops
from dinolizer.training.fitting import fit_recipe
from dinolizer.training.tokens import token_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""From the names of torch to those of Accelerate."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training, apart from the data and the backbone's weights.

    The paper's learning rate, batch and epochs are not known: the values are this project's.

    Attributes
    ----------
    policy, precision : keys of `dinolizer.model.head.CLASSES` and `PRECISIONS`.
    lora : the adapter that is trained too, or None: the backbone is frozen.
    lr : highest learning rate of AdamW; it falls to 0 along a cosine.
    crops : ``"fixed"``: one crop of each image, the same in all epochs; without an adapter the
        backbone then sees it once, and its tokens stay in memory. ``"fresh"``: a new one in every
        epoch.
    epochs : passes over the images.
    batch : crops per step, of all processes together.
    patience : epochs without a better validation Dice before training stops; the best is kept.
    seed : of the crops, their order, and the adapter's first values; 0 to 2^32 - 1.
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
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed is {self.seed}, but it must be from 0 to 2^32 - 1.")
        check_choice("policy", self.policy, CLASSES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("crops", self.crops, ("fixed", "fresh"))

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
    manifest : only rows of the splits ``train`` (or ``training``) and ``valid`` (``validation``,
        ``val``) are used, and only their files are opened.
    backbone : is moved to the device, and otherwise stays as it is.
    out : a file ending in .safetensors. Beside it go ``<stem>-history.csv`` and, until the end,
        ``<stem>.checkpoint``: where it exists, training goes on from there.
    device : ``"cpu"`` or ``"cuda"``; by default the GPU if there is one, under ``torchrun`` one
        each.
    cache_gb : most that the tokens of fixed crops may take in memory, and again on disk, in 10^9
        bytes.
    workers : processes that prepare crops ahead.
    **changes : fields of `Recipe` that differ from the variant's; None leaves a field as it is.
    """
    check_choice("variant", variant, VARIANTS)
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = replace(VARIANTS[variant], **given)  # type: ignore[arg-type]
    spec = backbone.spec
    training, validation = split_crops(
        manifest, recipe.policy, spec.window, spec.patch, recipe.seed, recipe.augmentations
    )
    log, checkpoint = history_path(out), out.with_suffix(".checkpoint")
    check_outputs([out], ".safetensors", overwrite=overwrite)
    check_outputs([log], overwrite=out.exists() or checkpoint.exists())
    try:  # and not after hours of training
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise unwritable(out.parent, error) from None
    accelerator = _accelerator(recipe.precision, device)
    backbone = backbone.to(accelerator.device)
    _check_memory(backbone, recipe, len(training) + len(validation), cache_gb, accelerator)
    learning = adapted(backbone, recipe.lora, recipe.seed) if recipe.lora else backbone
    saving: dict[str, Any] = {"checkpoint": checkpoint, "log": log, "workers": workers}
    made = fit_recipe(learning, training, validation, recipe, accelerator, **saving)
    about = (
        f"{variant}, trained on {len(training)} images of "
        f"{', '.join(sorted(set(manifest['dataset'])))}; {recipe}; licence of the backbone: "
        f"{spec.licence}"
    )
    if accelerator.is_main_process:
        card = card_for(backbone, about, recipe.policy, recipe.lora)
        save_head(out, made.head, card, adapter_tensors(learning) if recipe.lora else None)
        checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    dice = made.history["validation_dice"]
    accelerator.print(f"{out}: {len(dice)} epochs, validation Dice {dice.max():.3f}.")
    return Training(*load_head(out, backbone), made.history)


def history_path(out: Path) -> Path:
    """Where `train` writes the history of the head in ``out``."""
    return out.with_name(f"{out.stem}-history.csv")


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
