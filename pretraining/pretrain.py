"""The making of the pocket assets, from a folder of photographs to weights and their cards::

    python pretraining/pretrain.py PHOTOS OUT --flux FOLDER

A backbone learns to tell real photographs from forged ones. As in B-Free, each forged image has its
real twin in the same batch: the same crop with the same past and sharing, so that only the traces
of generation tell them apart.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import typer
from fills import Forge
from flux import load_flux
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dinolizer.data.images import read_image
from dinolizer.errors import InputError
from dinolizer.model import pocket_vit
from dinolizer.model.backbones import BACKBONES, load_backbone, pick_device
from dinolizer.model.head import card_for, save_head
from dinolizer.paths import atomic
from dinolizer.pocket import generators as nets
from dinolizer.pocket.forging import CLASSICAL, Image, crop, log_uniform_area, random_mask
from dinolizer.pocket.generators import AutoEncoder, Inpainter
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.methods import statistics
from dinolizer.training.heads import fit_heads, temper
from dinolizer.training.loop import Batch, Batches, Progress, optimise
from dinolizer.training.tokens import extract

SEED = 0
STEPS = {"autoencoder": 1600, "heldout": 1600, "inpainter": 900}
"""Of the generators' trainings."""
LEARNING: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.05, "clip": 1.0, "save_every": 250}
STEPS_PER_LOSS = 50  # steps over which the losses in a card are averaged
PAIRS = 8  # real and forged twins in a batch
GENERATOR_CROP = 96  # side of the crops that a generator trains on, in pixels
GENERATOR_BATCH = 8
LATENT_NOISE = 0.05  # share of their spread: so a decoder does well with what no encoder has made
TEXTURE_WEIGHT = 0.01
PURE = 0.1  # most of a patch that may be of the other class where the rival learns from it
PENALTY = 0.01  # ``C`` of scikit-learn's logistic regression, on standardised statistics
HEAD_PAIRS = 300  # twins that the head is fitted on
MASKED = 0.5  # share of the squares of patches that are hidden from the generic backbone
SQUARE = 4  # their side in patches: the statistics of a neighbourhood tell of single patches


def pretrain(
    photos: Path, out: Path, device: str | None = None, *, flux: Path | None = None
) -> None:
    """Make the generators, the backbones, the head and its rival of the pocket profile in ``out``:
    files ``pocket-<name>.safetensors``, and JSON cards. ``flux`` is a folder with the tiny
    auto-encoder of FLUX.2 (`load_flux`); without it only this project's own one decodes what is
    filled in. Raises InputError unless the folder has two photographs or more, no side under 224
    pixels. Checkpoints are kept in ``out/checkpoints``: run again, an interrupted run goes on and
    makes nothing twice."""
    target, pictures, least = pick_device(device), [], BACKBONES["pocket"].window
    for path in photo_paths(photos).values():
        pictures.append(read_image(path))
        if min(pictures[-1].shape[:2]) < least:
            raise InputError(f"{path} has a side under {least} pixels; take it out of the folder.")
    if len(pictures) < 2:
        raise InputError(f"The folder {photos} holds 1 photograph, but at least two are needed.")
    pixels = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    card: dict[str, object] = {"photographs": len(pictures), "about": photos.name}

    def make(name: str, seed: int, steps: int, task: Callable[[], Task], **facts: object) -> None:
        if not (out / f"pocket-{name}.safetensors").exists():
            settings = {"name": name, "seed": seed, "steps": steps, "photographs": pixels}
            torch.manual_seed(seed)
            made = task()
            batches = drawn(made.draw, 4 if target.type == "cuda" else 0)
            options = LEARNING | {"steps": steps, "label": name, "settings": settings}
            options["checkpoint"] = out / "checkpoints" / f"{name}.pt"
            progress = optimise(made.model.to(target), batches, made.loss_of, **options)
            about = card | {"seed": seed, "steps": steps} | facts
            _save(out / f"pocket-{name}.safetensors", made.result, progress, about)

    for number, name in enumerate(nets.GENERATORS, start=SEED + 1):
        steps, task = STEPS[name], partial(generator_task, name, pictures, number)
        make(name, number, steps, task)
    own = nets.load_generator("autoencoder", out)
    assert isinstance(own, AutoEncoder)
    generators = {"autoencoder": own}
    generators |= {"flux": load_flux(flux)} if flux else {}
    card["generators"] = [*CLASSICAL[:2], *generators]
    forge = Forge(pictures, generators, SEED)
    for name, one in RECIPES.items():
        task = partial(one.task, one.build, one.side, forge, one.seed)
        make(name, one.seed, one.steps, task, batch=2 * PAIRS)
    if not all((out / f"pocket-{name}.safetensors").exists() for name in ("head", "rival")):
        about = json.dumps(card | {"seed": SEED, "pairs": HEAD_PAIRS})
        images, shares = draw_crops(Forge(pictures, generators, SEED + 1), HEAD_PAIRS, SEED)
        backbone = load_backbone("pocket", weights=out / "pocket-vit.safetensors", device=target)
        tokens = extract(backbone, images)
        every = torch.ones(1, len(tokens), dtype=torch.bool)
        (fitted,) = fit_heads(tokens, shares, every, seed=SEED)
        head = temper(fitted.head, tokens, shares)
        save_head(out / "pocket-head.safetensors", head, card_for(backbone, about))
        with atomic(out / "pocket-rival.safetensors") as draft:
            save_file(fit_rival(images, shares), draft, {"about": about})


def drawn(draw: Callable[[int], Batch], workers: int = 0) -> Batches:
    """Batches by a function of nothing but the number of their step, drawn ahead by workers."""
    return lambda first, last: DataLoader(
        range(first, last),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=draw,  # type: ignore[arg-type]
        num_workers=workers,
        generator=torch.Generator(),  # torch's own random numbers are left to the model
    )


Build = Callable[[], nn.Module]


class Task(NamedTuple):
    """What is trained, from a step's number to its batch, the loss on that, and what is kept."""

    model: nn.Module
    draw: Callable[[int], Batch]
    loss_of: Callable[..., Tensor]
    result: nn.Module


def generator_task(name: str, photos: Sequence[Image], seed: int) -> Task:
    """To reproduce crops of photographs, uint8 ``(H, W, 3)``, or to fill holes in them, by one of
    `nets.GENERATORS`; the seed decides crops and holes."""
    model, side = nets.GENERATORS[name](), GENERATOR_CROP

    def draw(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        photo = (photos[int(rng.integers(len(photos)))] for _ in range(GENERATOR_BATCH))
        crops = np.stack([crop(one, side, rng) for one in photo])
        holes = np.stack([random_mask(side, side, log_uniform_area(rng), rng) for _ in crops])
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        return pixels, torch.from_numpy(holes)[:, None].float()

    return Task(model, draw, generator_loss, model)


def generator_loss(model: AutoEncoder | Inpainter, crops: Tensor, holes: Tensor) -> Tensor:
    """Mean absolute error, of an inpainter again in the hole, and that of the local texture, which
    keeps outputs from being smooth: the logarithm of the energy of the high frequencies."""

    def texture(images: Tensor) -> Tensor:
        residual = images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
        return torch.log(F.avg_pool2d(residual.square(), 8, stride=4) + 1e-4)

    if isinstance(model, Inpainter):
        output = model(crops, holes)
        inside = (F.l1_loss(output, crops, reduction="none") * holes).mean()
    else:
        latents, inside = model.encode(crops), torch.zeros(())
        noise = LATENT_NOISE * latents.detach().std() * torch.randn_like(latents)
        output = model.decode(latents + noise)
    error = F.l1_loss(output, crops)
    fine = F.l1_loss(texture(output), texture(crops))
    return error + TEXTURE_WEIGHT * fine + inside.to(crops.device)


def forensic_task(
    build: Build, side: int, forge: Forge, seed: int, *, of_patches: bool = True
) -> Task:
    """To tell real from forged crops of a side S in pixels, drawn anew at every step, as B-Free
    does, by a backbone of `dinolizer.model.pocket_vit`; and, by a linear map of its patch tokens,
    which patches are: an auxiliary task, unless ``of_patches`` is False."""
    backbone: Any = build()
    patches = nn.Linear(backbone.embed_dim, 1)  # left behind afterwards

    def draw(step: int) -> Batch:
        """Images uint8 ``(2 * PAIRS, 3, S, S)``, the real half first; labels float32
        ``(2 * PAIRS,)``, 1 for generated; masks uint8 ``(2 * PAIRS, S, S)``, 1 where generated."""
        torch.set_num_threads(1)
        rng = np.random.default_rng([seed, step])
        twins = [forge.draw(side, rng) for _ in range(PAIRS)]
        images = np.stack([twin.real for twin in twins] + [twin.fake for twin in twins])
        masks = np.stack([twin.mask for twin in twins]).astype(np.uint8)
        return (
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.arange(2 * PAIRS).ge(PAIRS).float(),
            torch.from_numpy(np.concatenate([np.zeros_like(masks), masks])),
        )

    def loss_of(_model: nn.Module, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        tokens = backbone.forward_features(images.float())
        image_logits = backbone.forward_head(tokens).squeeze(1)
        patch_logits = patches(tokens[:, backbone.num_prefix_tokens :]).squeeze(2)
        patch = side // round(patch_logits.shape[1] ** 0.5)
        shares = F.avg_pool2d(masks[:, None].float(), patch).flatten(1)
        loss = F.binary_cross_entropy_with_logits
        of_images = loss(image_logits, labels)
        return of_images + loss(patch_logits, shares) if of_patches else of_images

    model = nn.ModuleDict({"backbone": backbone, "patches": patches})
    return Task(model, draw, loss_of, backbone)


def generic_task(build: Build, side: int, forge: Forge, seed: int) -> Task:
    """To predict the statistics of hidden patches of real crops, drawn as in `forensic_task`, from
    those around: masked feature prediction (Wei et al., CVPR 2022), which knows of no forgery."""
    backbone: Any = build()
    stem = backbone.patch_embed
    channels = stem.norm.num_features // 2  # of a patch alone: neighbours tell of the others
    predict = nn.Linear(backbone.embed_dim, channels)
    unseen = nn.Embedding(1, backbone.embed_dim)  # stands where a patch is hidden

    def draw(step: int) -> Batch:
        """Images uint8 ``(2 * PAIRS, 3, S, S)``; what is hidden, bool ``(2 * PAIRS, h, w)``."""
        torch.set_num_threads(1)
        rng = np.random.default_rng([seed, step])
        images = np.stack([forge.draw_real(side, rng) for _ in range(2 * PAIRS)])
        grid = side // pocket_vit.PATCH
        squares = rng.random((2 * PAIRS, *[-(-grid // SQUARE)] * 2)) < MASKED
        hidden = squares.repeat(SQUARE, axis=1).repeat(SQUARE, axis=2)[:, :grid, :grid]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return pixels, torch.from_numpy(hidden)

    def loss_of(_model: nn.Module, images: Tensor, hidden: Tensor) -> Tensor:
        def hide(_stem: nn.Module, _given: object, tokens: Tensor) -> Tensor:
            return torch.where(hidden[..., None], unseen.weight[0], tokens)

        with stem.register_forward_hook(hide):
            tokens = backbone.forward_features(images.float())[:, backbone.num_prefix_tokens :]
        with torch.no_grad():
            known = stem.normalised(images.float())[:, :channels]
        error = F.smooth_l1_loss(predict(tokens), known.flatten(2).mT, reduction="none").mean(2)
        return error[hidden.flatten(1)].mean()

    model = nn.ModuleDict({"backbone": backbone, "predict": predict, "unseen": unseen})
    return Task(model, draw, loss_of, backbone)


class Recipe(NamedTuple):
    """How a backbone is made: its task, what builds it, side of its crops in pixels, and so on."""

    task: Callable[[Build, int, Forge, int], Task]
    build: Build
    side: int
    steps: int
    seed: int = SEED


RECIPES = {"vit": Recipe(forensic_task, pocket_vit.build_pocket_vit, pocket_vit.WINDOW, 2400)} | {
    f"{name}-{seed}" if seed else name: Recipe(task, build, pocket_vit.PAIR_WINDOW, 1200, seed)
    for name, task, build in (
        ("learned", forensic_task, pocket_vit.build_learned),
        ("rotary", forensic_task, pocket_vit.build_rotary),
        ("images", partial(forensic_task, of_patches=False), pocket_vit.build_learned),
        ("generic", generic_task, pocket_vit.build_learned),
    )
    for seed in pocket_vit.SEEDS
}
"""Of all backbones: that of the shipped head; and three of each that are compared, made alike but
for the design, or the task."""


def draw_crops(forge: Forge, pairs: int, seed: int) -> tuple[list[Image], Tensor]:
    """Draw twins of the pocket backbone's window: their images, uint8 ``(S, S, 3)``, and the edited
    shares of their patches, float32 ``(2 * pairs, h, w)``."""
    images, masks = [], []
    for number in range(pairs):
        twins = forge.draw(pocket_vit.WINDOW, np.random.default_rng([seed, number]))
        images += [twins.real, twins.fake]
        masks += [np.zeros_like(twins.mask), twins.mask]
    labels = torch.from_numpy(np.stack(masks).astype(np.uint8))
    return images, F.avg_pool2d(labels.float(), pocket_vit.PATCH)


def fit_rival(images: Sequence[Image], shares: Tensor) -> dict[str, Tensor]:
    """Fit the rival on images uint8 ``(S, S, 3)`` and the edited shares of their patches, float
    ``(N, h, w)``: ``weight`` ``(C,)`` and ``bias`` ``(1,)``, both classes counting alike."""
    features = np.concatenate([np.concatenate(statistics(image)) for image in images])
    edited = shares.flatten().numpy()
    pure = (edited < PURE) | (edited > 1 - PURE)
    regression = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=200)
    fitted = make_pipeline(StandardScaler(), regression).fit(features[pure], edited[pure] > 0.5)
    weight = regression.coef_[0] / fitted[0].scale_
    bias = regression.intercept_ - weight @ fitted[0].mean_
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}


def _save(path: Path, model: nn.Module, progress: Progress, card: dict[str, object]) -> None:
    """Write weights in half precision, and their card."""
    losses, every = progress.losses, STEPS_PER_LOSS
    means = [np.mean(losses[first : first + every]) for first in range(0, len(losses), every)]
    device = next(model.parameters()).device.type
    card |= {
        "parameters": sum(value.numel() for value in model.parameters()),
        "seconds": round(progress.seconds),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, trained on {device}",
        "torch": str(torch.__version__),
        "licence": "Apache-2.0",
        "steps_per_loss": every,
        "losses": [round(float(mean), 4) for mean in means],
    }
    with atomic(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(card, indent=2) + "\n")
    with atomic(path) as draft:  # last: where the weights are, the card is
        save_file(model.half().cpu().state_dict(), draft)


if __name__ == "__main__":
    try:
        typer.run(pretrain)
    except InputError as error:
        sys.exit(f"pretrain.py: {error}")
