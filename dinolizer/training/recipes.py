"""The two published variants, trained from a manifest.

``v1`` is the paper's: the backbone is frozen and the head is linear. ``v2`` is that of the later
public release: an adapter (LoRA) on the attention projections is trained along, the head has the
three classes real, re-encoded and inpainted, and the mean of the logits of overlapping windows is
taken.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from dinolizer.data.manifest import validate
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, pick_device
from dinolizer.model.head import CLASSES, HeadCard, card_for, load_head, save_head
from dinolizer.model.lora import Lora, adapted, adapter_tensors
from dinolizer.paths import atomic
from dinolizer.training.augmentations import Augmentations
from dinolizer.training.crops import TRAIN, VALIDATION, Crops
from dinolizer.training.heads import fit_head
from dinolizer.training.loop import fit_streamed
from dinolizer.training.network import Recipe
from dinolizer.training.tokens import extract_crops, token_bytes


@dataclass(frozen=True)
class Variant:
    """What makes a variant; the learning rate and the policy are defaults.

    The learning rates are ours: those of the paper and of the release are not known.
    """

    policy: str
    lora: Lora | None
    lr: float


VARIANTS = {
    "v1": Variant(policy="pristine", lora=None, lr=0.05),
    "v2": Variant(policy="three-class", lora=Lora(rank=64, alpha=64), lr=1e-4),
}


@dataclass(frozen=True)
class Training:
    """What came out of a training, as read back from the file that was saved.

    Attributes
    ----------
    backbone, head, card
        As `dinolizer.model.head.load_head` gives them: ready for a ``Localizer``.
    history
        One row per epoch: ``epoch`` (from 1), ``loss`` and ``validation_dice``.
    """

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
    policy: str | None = None,
    epochs: int = 20,
    batch: int = 32,
    lr: float | None = None,
    patience: int = 5,
    seed: int = 0,
    precision: str = "no",
    augmentations: Augmentations | None = None,
    device: str | None = None,
    cache_gb: float = 8,
    workers: int = 0,
    save_every: int = 500,
) -> Training:
    """Train a variant on the crops of a manifest and save it.

    Where the tokens of one crop of each image fit in ``cache_gb``, those of ``v1`` are computed
    once and all epochs go over these same crops (`fit_head`; all epochs, the last head). Else, with
    several processes, and for ``v2``, they are streamed: every epoch has new crops, and the best
    epoch is kept (`fit_streamed`). Which it is, and the size, is said in a line.

    Parameters
    ----------
    manifest
        Its rows of the splits ``train`` (or ``training``) and ``valid`` (``validation``, ``val``)
        are used; no other row's files are opened.
    backbone
        Is moved to the device, and otherwise stays as it is.
    out
        The safetensors file. Beside it the history is written as ``<stem>-history.csv``, and a
        streamed training keeps ``<stem>.checkpoint``, which is removed at the end; where it exists,
        the training goes on from there.
    variant
        A key of `VARIANTS`.
    policy, epochs, batch, lr, patience, seed, precision, augmentations
        As in `Recipe`; ``policy`` and ``lr`` are by default the variant's. ``precision`` and
        ``patience`` matter to streamed trainings only.
    device
        ``"cpu"`` or ``"cuda"``; by default the GPU where there is one. Under ``torchrun`` each
        process takes a GPU of its own.
    cache_gb
        Most that tokens may take, in memory and once more on the disk, in units of 10^9 bytes.
    workers, save_every
        As in `fit_streamed`.

    Raises
    ------
    InputError
        For an unknown setting, a split without rows, an image that cannot be read, what
        `fit_streamed` refuses, and an ``out`` that cannot be written.
    """
    if variant not in VARIANTS:
        raise InputError(f"The variant is {variant!r}, but it must be one of {list(VARIANTS)}.")
    chosen = VARIANTS[variant]
    recipe = Recipe(
        policy=chosen.policy if policy is None else policy,
        lora=chosen.lora,
        lr=chosen.lr if lr is None else lr,
        epochs=epochs,
        batch=batch,
        patience=patience,
        seed=seed,
        precision=precision,
        augmentations=augmentations or Augmentations(),
    )
    training, validation = split_crops(manifest, backbone, recipe)
    log = history_path(out)
    checkpoint = out.with_suffix(".checkpoint")
    _check_writable(out)
    accelerator = _accelerator(precision, device)
    backbone = backbone.to(accelerator.device)
    crops = len(training) + len(validation)
    size = token_bytes(backbone, crops, CLASSES[recipe.policy])
    cached = recipe.lora is None and accelerator.num_processes == 1 and size <= cache_gb * 1e9
    how = "cached, {} epochs over these crops." if cached else "streamed, {} epochs of new crops."
    accelerator.print(
        f"Tokens of {crops} crops, one an image: {size / 1e9:.3g} GB of at most {cache_gb:g}; "
        + how.format(epochs)
    )
    adapter = None
    if cached:
        fit = fit_head(
            *extract_crops(backbone, (training, validation), workers),
            epochs=epochs,
            lr=recipe.lr,
            seed=seed,
            batch_size=batch,
            validation=torch.arange(crops) >= len(training),
        )
        with atomic(log) as draft:
            fit.history.to_csv(draft, index=False)
    else:
        learning = adapted(backbone, recipe.lora, seed) if recipe.lora else backbone
        fit = fit_streamed(
            learning,
            training,
            validation,
            recipe,
            accelerator,
            checkpoint=checkpoint,
            log=log,
            workers=workers,
            save_every=save_every,
        )
        adapter = adapter_tensors(learning) if recipe.lora else None
    card = card_for(
        backbone,
        about=(
            f"{variant}, trained on {len(training)} images of "
            f"{', '.join(sorted(set(manifest['dataset'])))}; {recipe}; licence of the backbone: "
            f"{backbone.spec.licence}"
        ),
        policy=recipe.policy,
        lora=recipe.lora,
    )
    if accelerator.is_main_process:
        save_head(out, fit.head, card, adapter)
        checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    dice = fit.history["validation_dice"]
    kept = dice.iloc[-1] if cached else dice.max()
    accelerator.print(f"{out}: {len(dice)} epochs, validation Dice {kept:.3f}.")
    return Training(*load_head(out, backbone), fit.history)


def history_path(out: Path) -> Path:
    """Where `train` writes the history of the head in ``out``."""
    return out.with_name(f"{out.stem}-history.csv")


def split_crops(manifest: pd.DataFrame, backbone: Backbone, recipe: Recipe) -> tuple[Crops, Crops]:
    """Crops of the training and of the validation rows; the latter are not augmented.

    Raises
    ------
    InputError
        If the table is no manifest (so that no photo is in two splits), or a split has no rows.
    """
    validate(manifest)
    made = []
    for names, augmentations in ((TRAIN, recipe.augmentations), (VALIDATION, None)):
        rows = manifest[manifest["split"].isin(names)]
        if rows.empty:
            raise InputError(
                f"The manifest has no row of the split {names[0]!r}, only of "
                f"{', '.join(sorted(set(manifest['split'])))}: training needs rows of "
                f"{TRAIN[0]!r} and of {VALIDATION[0]!r}."
            )
        window, patch = backbone.spec.window, backbone.spec.patch
        made.append(Crops(rows, recipe.policy, window, patch, recipe.seed, augmentations))
    return made[0], made[1]


def _accelerator(precision: str, device: str | None) -> Accelerator:
    cpu = pick_device(device).type == "cpu"
    if precision == "fp16" and cpu:
        raise InputError("The precision 'fp16' needs a GPU; take 'no' or 'bf16' on a CPU.")
    try:
        return Accelerator(mixed_precision=precision, cpu=cpu)
    except ValueError:  # Accelerate keeps one state for the whole process
        raise InputError(
            f"This Python process has trained with another precision or device than "
            f"{precision!r} on {'the CPU' if cpu else 'the GPU'}: start a new one for that."
        ) from None


def _check_writable(out: Path) -> None:
    """Find out before hours of training that the result could not be written."""
    if out.is_dir():
        raise InputError(f"{out} is a folder, but the name of a file for the head is expected.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise InputError(
            f"The head cannot be written to {out} ({error.strerror or error}); choose a folder "
            "that you may write to."
        ) from None
