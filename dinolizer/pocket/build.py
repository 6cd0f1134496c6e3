"""The making of the pocket assets, from a folder of photographs to weights and their cards."""

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from dinolizer.data.images import read_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, load_backbone, pick_device
from dinolizer.model.head import card_for, save_head
from dinolizer.model.pocket_vit import build_learned, build_pocket_vit, build_rotary
from dinolizer.paths import atomic
from dinolizer.pocket.forging import CASES, CONDITIONS, HELD_OUT, Image, forge
from dinolizer.pocket.generators import GENERATORS
from dinolizer.pocket.photos import photo_paths
from dinolizer.pocket.pretraining import (
    MAKERS,
    PAIRS,
    build_pool,
    pretrain_backbone,
    random_crops,
    train_generator,
)
from dinolizer.training.crops import patch_shares
from dinolizer.training.heads import fit_head
from dinolizer.training.loop import Progress
from dinolizer.training.tokens import extract

LICENCE = "Apache-2.0"
STEPS_PER_LOSS = 50
"""Steps over which the losses in a card are averaged."""
BACKBONE_STEPS = {"vit": 3200, "learned": 1600, "rotary": 1600}
"""The last two are made alike, to be compared with each other."""
BUILDERS = {"vit": build_pocket_vit, "learned": build_learned, "rotary": build_rotary}
GENERATOR_STEPS = {"autoencoder": 1600, "heldout": 1600, "inpainter": 900, "transposed": 900}
HEAD_CROPS_PER_CASE = 40


def pretrain(
    photos: Path,
    out: Path,
    device: str | None = None,
    *,
    generator_steps: Mapping[str, int] = GENERATOR_STEPS,
    backbone_steps: Mapping[str, int] = BACKBONE_STEPS,
    rounds: int = 2,
    seed: int = 0,
    about: str = "",
) -> None:
    """Make the generators, the backbones and the head of the pocket profile in the folder ``out``:
    files ``pocket-<name>.safetensors``, and JSON cards with ``about``, what the photographs are.

    Raises InputError unless the folder has two photographs or more, no side under 224 pixels.
    ``rounds`` crops of each are forged with each generator. Checkpoints are kept in
    ``out/checkpoints``: run again, an interrupted run goes on and makes nothing twice.
    """
    target = pick_device(device)
    pictures = _read_photos(photos)
    pixels = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    card = {"photographs": len(pictures), "about": about or photos.name}

    def options(name: str, steps: int, seed: int) -> dict[str, Any]:
        return {
            "steps": steps,
            "seed": seed,
            "device": target,
            "workers": 4 if target.type == "cuda" else 0,
            "checkpoint": out / "checkpoints" / f"{name}.pt",
            "settings": {"name": name, "seed": seed, "steps": steps, "photographs": pixels},
        }

    for number, name in enumerate(GENERATORS, start=seed + 1):
        if not (out / f"pocket-{name}.safetensors").exists():
            steps = generator_steps[name]
            made = train_generator(name, pictures, **options(name, steps, number))
            _save(out, name, *made, card | {"seed": number, "steps": steps})
    missing = [name for name in BUILDERS if not (out / f"pocket-{name}.safetensors").exists()]
    if missing:
        pool = build_pool(pictures, rounds, seed, out)
    for name in missing:
        steps = backbone_steps[name]
        learned = pretrain_backbone(BUILDERS[name], pool, **options(name, steps, seed))
        settings = {"seed": seed, "steps": steps, "rounds": rounds}
        _save(out, name, *learned, card | settings | {"generators": MAKERS, "batch": 2 * PAIRS})
    if not (out / "pocket-head.safetensors").exists():
        fit_pocket_head(
            pictures, out, seed=seed, device=target, about=json.dumps(card | {"seed": seed})
        )


def fit_pocket_head(
    pictures: Sequence[Image], out: Path, *, seed: int, device: torch.device, about: str
) -> None:
    """Fit the shipped head on forgeries of the pictures by every generator but `HELD_OUT`."""
    backbone = load_backbone("pocket", weights=out / "pocket-vit.safetensors", device=device)
    cases = [case for case in CASES if case[0] != HELD_OUT]
    images, targets = [], []
    for number, index in product(range(HEAD_CROPS_PER_CASE), range(len(cases))):
        generator, kind = cases[index]
        rng = np.random.default_rng([seed, number, index])
        crop, foreign = random_crops(pictures, 2, backbone.spec.window, rng)
        forgery = forge(
            crop,
            generator,
            kind,
            seed=[seed, number, index, 1],
            foreign=foreign,
            grain=bool(number % 2) and kind in ("sp", "fr"),
            condition=CONDITIONS[number // 2 % len(CONDITIONS)],
            assets=out,
        )
        images.append(forgery.image)
        mask = torch.from_numpy(forgery.mask.astype(np.uint8))
        targets.append(patch_shares(mask, "pristine", backbone.spec.patch))
    fit = fit_head(extract(backbone, images), torch.stack(targets), seed=seed)
    save_head(out / "pocket-head.safetensors", fit.head, card_for(backbone, about))


def _read_photos(folder: Path) -> list[Image]:
    pictures = {path: read_image(path) for path in photo_paths(folder).values()}
    least = BACKBONES["pocket"].window
    for path, picture in pictures.items():
        if min(picture.shape[:2]) < least:
            raise InputError(
                f"{path} has a side under {least} pixels, but crops of that size are taken; leave "
                "it out of the folder."
            )
    return list(pictures.values())


def _save(
    out: Path, name: str, model: nn.Module, progress: Progress, card: dict[str, object]
) -> None:
    """Write weights in half precision, and their card."""
    weights = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    losses = progress.losses
    card |= {
        "parameters": sum(value.numel() for value in model.parameters()),
        "seconds": round(progress.seconds),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"trained on {next(model.parameters()).device.type}",
        "torch": str(torch.__version__),
        "licence": LICENCE,
        "steps_per_loss": STEPS_PER_LOSS,
        "losses": [
            round(statistics.fmean(losses[first : first + STEPS_PER_LOSS]), 4)
            for first in range(0, len(losses), STEPS_PER_LOSS)
        ],
    }
    path = out / f"pocket-{name}.safetensors"
    with atomic(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(card, indent=2) + "\n")
    with atomic(path) as draft:  # last: where the weights are, the card is
        save_file(weights, draft)
