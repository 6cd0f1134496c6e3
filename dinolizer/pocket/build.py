"""The making of the pocket assets, from a folder of photographs to weights and their cards."""

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from dinolizer.data.images import read_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, load_backbone, pick_device
from dinolizer.model.head import card_for, save_head
from dinolizer.model.pocket_vit import (
    PAIR_WINDOW,
    PATCH,
    WINDOW,
    build_learned,
    build_pocket_vit,
    build_rotary,
)
from dinolizer.paths import atomic
from dinolizer.pocket.fills import Forge
from dinolizer.pocket.flux import FluxAutoEncoder, load_flux
from dinolizer.pocket.forging import CLASSICAL, Image
from dinolizer.pocket.generators import GENERATORS, AutoEncoder, load_autoencoder
from dinolizer.pocket.photos import photo_paths
from dinolizer.pocket.pretraining import PAIRS, pretrain_backbone, train_generator
from dinolizer.pocket.rival import fit_rival
from dinolizer.training.crops import patch_shares
from dinolizer.training.heads import fit_head
from dinolizer.training.loop import Progress
from dinolizer.training.tokens import extract

LICENCE = "Apache-2.0"
STEPS_PER_LOSS = 50
"""Steps over which the losses in a card are averaged."""
BACKBONE_STEPS = {"vit": 1500, "learned": 1200, "rotary": 1200}
"""The last two are made alike, to be compared with each other."""
BUILDERS = {
    "vit": (build_pocket_vit, WINDOW),
    "learned": (build_learned, PAIR_WINDOW),
    "rotary": (build_rotary, PAIR_WINDOW),
}
"""Each with the side of the crops that it is trained on, in pixels."""
GENERATOR_STEPS = {"autoencoder": 1600, "heldout": 1600, "inpainter": 900}
HEAD_PAIRS = 300
"""Twins that the head is fitted on."""
TEMPERATURES = tuple(np.geomspace(0.5, 50, 100).tolist())


def pretrain(
    photos: Path,
    out: Path,
    device: str | None = None,
    *,
    generator_steps: Mapping[str, int] = GENERATOR_STEPS,
    backbone_steps: Mapping[str, int] = BACKBONE_STEPS,
    head_pairs: int = HEAD_PAIRS,
    flux: Path | None = None,
    seed: int = 0,
    about: str = "",
) -> None:
    """Make the generators, the backbones, the head and its rival of the pocket profile in ``out``:
    files ``pocket-<name>.safetensors``, and JSON cards with ``about``, what the photographs are.

    ``flux`` is a folder with the tiny auto-encoder of FLUX.2 (`dinolizer.pocket.flux`); without it
    only this project's own one decodes what is filled in. Raises InputError unless the folder has
    two photographs or more, no side under 224 pixels. Checkpoints are kept in ``out/checkpoints``:
    run again, an interrupted run goes on and makes nothing twice.
    """
    target = pick_device(device)
    pictures = _read_photos(photos)
    pixels = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    card: dict[str, object] = {"photographs": len(pictures), "about": about or photos.name}

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
    generators: dict[str, AutoEncoder | FluxAutoEncoder] = {
        "autoencoder": load_autoencoder("autoencoder", out)
    }
    if flux:
        generators["flux"] = load_flux(flux)
    card["generators"] = [*CLASSICAL[:2], *generators]
    for name, steps in backbone_steps.items():
        if not (out / f"pocket-{name}.safetensors").exists():
            build, side = BUILDERS[name]
            forge = Forge(pictures, generators, seed)
            learned = pretrain_backbone(build, forge, side=side, **options(name, steps, seed))
            _save(out, name, *learned, card | {"seed": seed, "steps": steps, "batch": 2 * PAIRS})
    if not all((out / f"pocket-{name}.safetensors").exists() for name in ("head", "rival")):
        forge = Forge(pictures, generators, seed + 1)
        about = json.dumps(card | {"seed": seed, "pairs": head_pairs})
        images, shares = draw_crops(forge, head_pairs, seed)
        fit_pocket_head(images, shares, out, seed=seed, device=target, about=about)
        with atomic(out / "pocket-rival.safetensors") as draft:
            save_file(fit_rival(images, shares), draft, {"about": about})


def draw_crops(forge: Forge, pairs: int, seed: int) -> tuple[list[Image], torch.Tensor]:
    """Draw twins of the pocket backbone's window: their images, uint8 ``(S, S, 3)``, and the edited
    shares of their patches, float32 ``(2 * pairs, h, w)``."""
    images, shares = [], []
    for number in range(pairs):
        twins = forge.draw(WINDOW, np.random.default_rng([seed, number]))
        for image, mask in ((twins.real, np.zeros_like(twins.mask)), (twins.fake, twins.mask)):
            images.append(image)
            target = torch.from_numpy(mask.astype(np.uint8))
            shares.append(patch_shares(target, "pristine", PATCH))
    return images, torch.stack(shares)


def fit_pocket_head(
    images: Sequence[Image],
    targets: torch.Tensor,
    out: Path,
    *,
    seed: int,
    device: torch.device,
    about: str,
) -> None:
    """Fit the shipped head on what `draw_crops` gives, by Dice as the paper's, and save it to
    ``out``.

    Dice leaves the scale of the logits open, and lets them grow until most of a map is exactly 0 or
    1. So they are divided by a temperature (Guo et al. 2017), which moves no mask.
    """
    backbone = load_backbone("pocket", weights=out / "pocket-vit.safetensors", device=device)
    tokens = extract(backbone, images)
    head = fit_head(tokens, targets, seed=seed).head
    with torch.no_grad():
        logits = head(tokens.float()).squeeze(1)
        loss = F.binary_cross_entropy_with_logits
        temperature = min(TEMPERATURES, key=lambda value: loss(logits / value, targets).item())
        head.weight /= temperature
        head.bias /= temperature
    save_head(out / "pocket-head.safetensors", head, card_for(backbone, about))


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
