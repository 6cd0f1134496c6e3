"""Backbones trained end to end, held against frozen ones on the same crops."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinolizer.model.backbones import Backbone, unfrozen
from dinolizer.model.batches import batch_size
from dinolizer.model.lora import Lora, adapted
from dinolizer.study.experiments.ablations import compare
from dinolizer.study.experiments.edit_size import window_rows
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import macro_table
from dinolizer.training.heads import Heads, fit
from dinolizer.training.loop import Network, optimise
from dinolizer.training.losses import dice_loss

FROZEN, LORA, FULL = TRAININGS = ("frozen", "LoRA", "full")
LEARNING_RATES = {LORA: 1e-3, FULL: 3e-5}
"""Highest learning rate of each: the best of four on forgeries of photographs that no study uses,
for the small backbones."""
BATCH = 16
TESTED = 0.4
"""Share of the photographs that a draw tests, where photographs are cross-fitted."""


@dataclass(frozen=True)
class Draw:
    """What one training learns from, and what it is tested on.

    Attributes
    ----------
    seed
        Of the draw, of the order of its crops and of an adapter's start.
    train
        int ``(n,)``: numbers of crops, as many images as there are, drawn with replacement.
    test
        int ``(m,)``: numbers of crops of photographs that are not in ``train``.
    """

    seed: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def draws(sample: Sample, seeds: Sequence[int]) -> list[Draw]:
    """Draw what each training learns from and is tested on.

    Where photographs are cross-fitted, each draw tests the next `TESTED` of them in an order of
    the first seed, round and round, so that the draws test all alike; else all that is tested.

    Parameters
    ----------
    sample
        Of one crop of each image.
    seeds
        One for each draw.
    """
    learnt = sample.train.any(0).numpy()
    groups = sample.rows["group"].to_numpy(str)
    made = []
    for number, seed in enumerate(seeds):
        test = sample.fold >= 0
        if len(sample.train) > 1:
            photos = np.random.default_rng(seeds[0]).permutation(np.unique(groups))
            count = max(1, round(TESTED * len(photos)))
            test = np.isin(groups, np.take(photos, number * count + np.arange(count), mode="wrap"))
        own = np.flatnonzero(learnt & ~test)
        drawn = np.random.default_rng((seed, 1)).choice(own, len(own))
        made.append(Draw(seed, drawn, np.flatnonzero(test)))
    return made


def train_and_test(
    backbone: Backbone,
    images: Sequence[NDArray[np.uint8]],
    tokens: Tensor,
    sample: Sample,
    drawn: Sequence[Draw],
    *,
    trainings: Sequence[str] = TRAININGS,
    epochs: int,
    steps: int,
) -> pd.DataFrame:
    """Train a head on the frozen backbone, then both together, and score all of them.

    Training end to end starts from the head that was fitted on the frozen tokens, as an untrained
    head would first spoil what the backbone knows (Kumar et al., "Fine-Tuning can Distort
    Pretrained Features and Underperform Out-of-Distribution", ICLR 2022).

    Parameters
    ----------
    images, tokens, sample
        uint8 ``(H, W, 3)`` each, their tokens and labels; see
        `dinolizer.study.samples.crop_sample`.
    drawn
        See `draws`.
    trainings
        Some of `TRAININGS`, the frozen one among them.
    epochs
        Of the heads on frozen tokens.
    steps
        Of the end-to-end trainings, `BATCH` crops each.

    Returns
    -------
    A row per tested crop, draw and training, as of `window_rows`, with the
    columns ``backbone, training, seed``.
    """
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    weights = torch.zeros(len(drawn), len(pixels))
    for number, draw in enumerate(drawn):
        weights[number] = torch.from_numpy(np.bincount(draw.train, minlength=len(pixels)))
    heads = Heads({"draw": len(drawn)}, tokens.shape[1])
    fit(heads, tokens, sample.targets, weights, epochs=epochs, seed=drawn[0].seed)
    rows = []
    for number, draw in enumerate(drawn):
        tested = torch.from_numpy(draw.test)
        for training in trainings:
            if training == FROZEN:
                head = heads.linear(draw=number).cpu()
                logits = head(tokens[tested].float())
            else:
                lora = training == LORA
                learning = adapted(backbone, Lora(), draw.seed) if lora else unfrozen(backbone)
                network = Network(learning, heads.select(draw=number))
                _train(network, pixels, sample.targets, draw, LEARNING_RATES[training], steps)
                logits = _logits(network, pixels[tested])
            name = {"backbone": backbone.spec.name, "training": training, "seed": draw.seed}
            rows.append(window_rows(logits, _of(sample, draw.test), [name]))
    return pd.concat(rows, ignore_index=True)


def training_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """IoU of every backbone and training, for generators that trainings meet and for others.

    Returns
    -------
    As of `ablations.compare`, a line per ``generators`` (``"seen"`` or ``"held out"``),
    ``backbone`` and ``training``; changes are against the same backbone frozen. Crops without an
    edit count in both.
    """
    unedited = rows["iou"].isna()
    both = [("seen", rows["seen"]), ("held out", ~rows["seen"])]
    shown = [(name, of) for name, of in both if (of & ~unedited).any()]
    doubled = pd.concat([rows[of | unedited].assign(generators=name) for name, of in shown])
    return compare(doubled, ["generators", "backbone", "training"], {"training": FROZEN}, seed)


def difference(
    rows: pd.DataFrame, first: str, second: str, seed: int = 0
) -> tuple[float, float, float]:
    """Macro IoU of one backbone less that of another, crop by crop, and its 95 % interval, of rows
    of `train_and_test` of one training."""
    table = macro_table(rows, ["backbone"], "iou", {"backbone": second}, seed=seed)
    line = table[table["backbone"] == first].iloc[0]
    return line["iou_change"], line["iou_change_low"], line["iou_change_high"]


def _train(
    network: Network, pixels: Tensor, targets: Tensor, draw: Draw, rate: float, steps: int
) -> None:
    """Minimise soft Dice over steps of `BATCH` crops each."""
    rng = np.random.default_rng((draw.seed, 2))
    passes = -(-steps * BATCH // len(draw.train))
    order = np.concatenate([rng.permutation(draw.train) for _ in range(passes)])

    def batches(first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(first, last):
            chosen = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
            yield pixels[chosen], targets[chosen]

    def loss_of(model: nn.Module, crops: Tensor, labels: Tensor) -> Tensor:
        return dice_loss(model(crops), labels)

    optimise(network, batches, loss_of, steps=steps, lr=rate, label=f"seed {draw.seed}")


@torch.inference_mode()
def _logits(network: Network, pixels: Tensor) -> Tensor:
    """float32 ``(N, 1, h, w)`` on the CPU."""
    device = network.backbone.device
    batches = pixels.split(batch_size(device))
    return torch.cat([network(batch.to(device)).cpu() for batch in batches])


def _of(sample: Sample, chosen: NDArray[np.int64]) -> Sample:
    """Some of the crops, all of them tested."""
    numbers = torch.from_numpy(chosen)
    return replace(
        sample,
        targets=sample.targets[numbers],
        rows=sample.rows.iloc[chosen].reset_index(drop=True),
        fold=np.zeros(len(chosen), dtype=np.int64),
        train=sample.train[:, numbers],
    )
