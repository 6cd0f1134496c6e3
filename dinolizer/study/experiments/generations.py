"""Two generations of backbones: frozen, trained end to end, and what their tokens hold.

All are compared on the same crops. Tokens are ``(N, D, h, w)`` of N crops, on the CPU; intervals
are of a bootstrap over photographs, see `dinolizer.study.statistics`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from dinolizer.data.degradations import Step, degrade
from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, Backbone, unfrozen
from dinolizer.model.batches import batch_size
from dinolizer.model.lora import Lora, adapted
from dinolizer.study.dataset import Dataset
from dinolizer.study.experiments.ablations import compare
from dinolizer.study.experiments.edit_size import window_rows
from dinolizer.study.experiments.labels import CLASS_NAMES, THREE
from dinolizer.study.samples import Sample, crop_sample
from dinolizer.study.statistics import (
    bootstrap_draws,
    bootstrap_means,
    macro_mean,
    macro_table,
    percentile_interval,
)
from dinolizer.training.heads import Heads, fit
from dinolizer.training.loop import Network, optimise
from dinolizer.training.losses import dice_loss
from dinolizer.training.tokens import extract_layers

FROZEN, LORA, FULL = TRAININGS = ("frozen", "LoRA", "full")
LEARNING_RATES = {LORA: 1e-3, FULL: 3e-5}
"""Highest learning rate of each: the best of four on forgeries of photographs that no study uses,
for the small backbones."""
BATCH = 16
TESTED = 0.4
"""Share of the photographs that a draw tests, where there is no training set."""
RESAMPLES = 500
"""Of the intervals of CKA, for which whole matrices are drawn."""
BLOCKS = 20
"""Photographs are put together into at most so many blocks for these."""
PURE = 0.9
"""Share of a patch that is of one class, at least, for it to count as of that class."""
DEGRADED: tuple[Step, ...] = (
    *(("jpeg", quality) for quality in (90, 70, 50)),
    *(("noise", std) for std in (3, 7, 11)),
)
"""Levels of the grids of `dinolizer.data.degradations`, from mild to strong."""
SENSED = 100
"""Crops that are degraded for it, at most."""
PATCHES = 20_000
"""Most patches that a probe is fitted on, drawn by the seed."""


def common_window(names: Sequence[str]) -> int:
    """Side in pixels of the largest window that backbones can share: it fits in the window of each
    and is a multiple of every patch (448 for windows of 504 by 14 and of 512 by 16)."""
    specs = [BACKBONES[name] for name in names]
    patches = math.lcm(*(spec.patch for spec in specs))
    return min(spec.window for spec in specs) // patches * patches


def common_crops(
    dataset: Dataset, backbones: Mapping[str, Backbone], count: int = 0, seed: int = 0
) -> tuple[list[NDArray[np.uint8]], dict[str, Sample]]:
    """One random crop of each image, the same pixels for all backbones, with three-class labels.

    Parameters
    ----------
    backbones
        Loaded for one window, see `common_window`.
    count, seed
        As in `dinolizer.study.samples.crop_sample`.

    Returns
    -------
    uint8 ``(window, window, 3)`` each, and from each backbone's name to the labels on its grid.

    Raises
    ------
    InputError
        If the backbones have not one window.
    """
    windows = {name: backbone.spec.window for name, backbone in backbones.items()}
    if len(set(windows.values())) > 1:
        raise InputError(
            f"The windows are {windows}, but backbones are compared on the same pixels: load them "
            f"for a window of {common_window(list(windows))}."
        )
    made = [
        crop_sample(dataset, backbone.spec, count, seed, policy=THREE)
        for backbone in backbones.values()
    ]
    (images, _), *others = made
    assert all(np.array_equal(images, same) for same, _ in others)
    return images, {name: sample for name, (_, sample) in zip(backbones, made, strict=True)}


class Draw(NamedTuple):
    """What one training learns from and is tested on: the ``seed`` of the draw, of the order of its
    crops and of an adapter's start; ``train``, int ``(n,)``, numbers of crops, as many images as
    there are, drawn with replacement; ``test``, bool ``(N,)``, crops of other photographs."""

    seed: int
    train: NDArray[np.int64]
    test: NDArray[np.bool_]


def draws(sample: Sample, seeds: Sequence[int]) -> list[Draw]:
    """Draw what each training learns from and is tested on, one for each seed.

    Without a training set, each draw tests the next `TESTED` of the photographs in an order of the
    first seed, round and round, so that the draws test all alike; else all that is tested.
    """
    fitted = sample.train.any(0).numpy()
    groups = sample.rows["group"].to_numpy(str)
    made = []
    for number, seed in enumerate(seeds):
        test = sample.fold >= 0
        if len(sample.train) > 1:
            photos = np.random.default_rng(seeds[0]).permutation(np.unique(groups))
            count = max(1, round(TESTED * len(photos)))
            test = np.isin(groups, np.take(photos, number * count + np.arange(count), mode="wrap"))
        known = np.flatnonzero(fitted & ~test)
        made.append(Draw(seed, np.random.default_rng((seed, 1)).choice(known, len(known)), test))
    return made


def train_and_test(
    backbone: Backbone,
    images: Sequence[NDArray[np.uint8]],
    tokens: Tensor,
    sample: Sample,
    drawn: Sequence[Draw],
    *,
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
        uint8 ``(H, W, 3)`` each, their tokens and labels (edited or not).
    epochs
        Of the heads on frozen tokens.
    steps
        Of the end-to-end trainings, `BATCH` crops each.

    Returns
    -------
    A row per tested crop, draw and training, as of `window_rows`, with the columns ``backbone,
    training, seed``.
    """
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    weights = np.stack([np.bincount(draw.train, minlength=len(pixels)) for draw in drawn])
    heads = Heads({"draw": len(drawn)}, tokens.shape[1])
    train = torch.from_numpy(weights)
    fit(heads, tokens, sample.targets, train, epochs=epochs, seed=drawn[0].seed)
    rows = []
    for number, draw in enumerate(drawn):
        tested, test = replace(sample, fold=np.where(draw.test, 0, -1)), torch.from_numpy(draw.test)
        for training in TRAININGS:
            head = heads.select(draw=number)
            logits = torch.full((len(tokens), 1, *tokens.shape[2:]), torch.nan)
            if training == FROZEN:
                logits[test] = head(tokens[test].float())[:, 0]
            else:
                lora = training == LORA
                learning = adapted(backbone, Lora(), draw.seed) if lora else unfrozen(backbone)
                network = Network(learning, head)
                _train(network, pixels, sample.targets, draw, LEARNING_RATES[training], steps)
                logits[test] = _logits(network, pixels[test])
            name = {"backbone": backbone.spec.name, "training": training, "seed": draw.seed}
            rows.append(window_rows(logits, tested, [name]))
    return pd.concat(rows, ignore_index=True)


def training_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """IoU of every backbone and training, for ``generators`` that trainings meet (``"seen"``) and
    others (``"held out"``): as of `compare`, with changes against the same backbone frozen. Crops
    without an edit count in both."""
    doubled = _by_generators(rows, rows["iou"].isna())
    return compare(doubled, ["generators", "backbone", "training"], {"training": FROZEN}, seed)


def lead(
    rows: pd.DataFrame, score: str, first: str, second: str, seed: int = 0
) -> tuple[float, float, float]:
    """Macro mean of a score of one ``backbone`` less that of another, and its 95 % interval, over
    the crops that both have."""
    wide = rows.pivot_table(score, ["family", "group", "image"], "backbone")
    ahead = (wide[first] - wide[second]).dropna().reset_index(name="lead")
    return macro_mean(ahead["lead"], ahead["family"], ahead["group"], seed=seed)


def cka_table(
    layers: Mapping[tuple[str, int], Tensor], groups: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Linear centred kernel alignment of every two layers, of one backbone or two.

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred tokens, in Frobenius norms (Kornblith et al., "Similarity
    of Neural Network Representations Revisited", ICML 2019, equation 1 with linear kernels): from 0
    to 1, the same up to rotation and scale; nan where tokens are constant. It is biased upwards
    where tokens are not many more than their values.

    Parameters
    ----------
    layers
        From backbone and layer to tokens of the same crops; finer grids are averaged to the
        coarsest one, so that the same positions are compared.
    groups
        ``(N,)``: the photograph of each crop.

    Returns
    -------
    A line per two layers, both ways: ``first, first_layer, second, second_layer, cka, low, high``.
    """
    height, width = min((tokens.shape[2:] for tokens in layers.values()), key=np.prod)
    pooled = [F.adaptive_avg_pool2d(of.float(), (height, width)) for of in layers.values()]
    sizes = [tokens.shape[1] for tokens in pooled]
    values = torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)  # (N, h w, D of all layers)
    values = values - values.mean((0, 1))
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    block = torch.from_numpy(photo * min(BLOCKS, len(photos)) // len(photos))
    blocks = [values[block == number].flatten(0, 1) for number in range(int(block.max()) + 1)]
    products = torch.stack([of_block.T @ of_block for of_block in blocks])
    sums = torch.stack([of_block.sum(0) for of_block in blocks])
    counts = torch.tensor([float(len(of_block)) for of_block in blocks])
    resamples = bootstrap_draws(len(blocks), seed, RESAMPLES)
    alignments = []
    for drawn in np.concatenate([np.ones((1, len(blocks))), *resamples]):
        times = torch.from_numpy(drawn).float()
        total = times @ sums
        moments = torch.tensordot(times, products, 1) - total.outer(total) / (times @ counts)
        squares = torch.tensor(
            [[part.square().sum() for part in row.split(sizes, 1)] for row in moments.split(sizes)]
        )
        norms = squares.diag().sqrt()
        alignments.append(squares / norms.outer(norms))
    value, *drawn_values = torch.stack(alignments).numpy()
    low, high = np.quantile(drawn_values, [0.025, 0.975], axis=0)
    if len(blocks) < 2:
        low, high = np.full((2, *value.shape), np.nan)
    names = list(layers)
    return pd.DataFrame(
        [
            (*names[a], *names[b], value[a, b], low[a, b], high[a, b])
            for a, b in product(range(len(names)), repeat=2)
        ],
        columns=["first", "first_layer", "second", "second_layer", "cka", "low", "high"],
    )


def autocorrelation(
    tokens: Tensor, patch: int, groups: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Correlation of tokens with those at a distance, across or down, in the same crop.

    ``sum <t_i - m, t_j - m> / sum |t_i - m|^2``, each as a mean over its pairs, with m the mean
    of all tokens. What is left far off is what the tokens of a crop have in common.

    Returns
    -------
    A line per distance, up to half the grid: ``lag`` (patches), ``distance`` (pixels) and
    ``correlation`` with its interval.
    """
    centred = tokens.float() - tokens.float().mean((0, 2, 3), keepdim=True)
    power = centred.square().sum(1).mean((1, 2))
    lines = []
    for lag in range(1, max(tokens.shape[2:]) // 2 + 1):
        across = (centred[..., lag:] * centred[..., :-lag]).sum(1)
        down = (centred[:, :, lag:] * centred[:, :, :-lag]).sum(1)
        shared = torch.cat([across.flatten(1), down.flatten(1)], dim=1).mean(1)
        ends = _ratio("correlation", shared, power, groups, seed)
        lines.append({"lag": lag, "distance": lag * patch, **ends})
    return pd.DataFrame(lines)


def change_table(
    backbone: Backbone,
    images: Sequence[NDArray[np.uint8]],
    groups: Sequence[str],
    layers: Sequence[int],
    seed: int = 0,
) -> pd.DataFrame:
    """How far tokens of each layer move by each of `DEGRADED`.

    ``mean |t' - t|^2 / (2 mean |t - m|^2)``, with m the mean of all tokens: 0 where nothing moves,
    1 where t' is as far from t as any other token.

    Returns
    -------
    A line for each ``degradation, level, layer``: ``change`` with its interval.
    """
    before = extract_layers(backbone, images, layers)
    lines = []
    for name, level in DEGRADED:
        degraded = [degrade(name, level, image, seed + n) for n, image in enumerate(images)]
        after = extract_layers(backbone, degraded, layers)
        for layer in layers:
            tokens = before[layer].float()
            moved = (after[layer].float() - tokens).square().sum(1).mean((1, 2))
            spread = (tokens - tokens.mean((0, 2, 3), keepdim=True)).square().sum(1).mean((1, 2))
            line = {"degradation": name, "level": level, "layer": layer}
            lines.append(line | _ratio("change", moved, 2 * spread, groups, seed))
    return pd.DataFrame(lines)


def linear_probe(tokens: Tensor, sample: Sample, seed: int = 0) -> pd.DataFrame:
    """Classify real, re-encoded and inpainted patches by their tokens, linearly.

    The classifier is scikit-learn's linear discriminant analysis with shrunk covariance and equal
    priors, of each fold fitted on the crops that it may be fitted on.

    Parameters
    ----------
    tokens, sample
        The labels are of three classes; patches of which less than `PURE` is of one are left out.
    seed
        Of the patches drawn.

    Returns
    -------
    A row per tested crop and class that it has: ``image, group, seen``, the class as ``family``,
    and ``accuracy``, the share of its patches that is classified rightly.
    """
    share, label = sample.targets.flatten(2).max(1)  # (N, h w)
    pure = share >= PURE
    features = tokens.flatten(2).transpose(1, 2)  # (N, h w, D)
    tables = []
    for fold, fitted in enumerate(sample.train):
        tested = torch.from_numpy(sample.fold == fold)
        rng = np.random.default_rng((seed, fold))
        crop, patch = rng.permutation((pure & fitted[:, None]).nonzero().numpy())[:PATCHES].T
        known = label[crop, patch].numpy()
        if not tested.any() or len(np.unique(known)) < len(CLASS_NAMES):
            continue
        priors = np.full(len(CLASS_NAMES), 1 / len(CLASS_NAMES))
        classifier = LinearDiscriminantAnalysis("lsqr", shrinkage="auto", priors=priors)
        classifier.fit(features[crop, patch].float().numpy(), known)
        crop, patch = (pure & tested[:, None]).nonzero().numpy().T
        truth = label[crop, patch].numpy()
        right = classifier.predict(features[crop, patch].float().numpy()) == truth
        rows = sample.rows.iloc[crop][["image", "group", "seen"]]
        rows = rows.assign(family=np.array(CLASS_NAMES)[truth], accuracy=right)
        by = ["image", "group", "seen", "family"]
        tables.append(rows.groupby(by, sort=False)["accuracy"].mean().reset_index())
    return pd.concat(tables) if tables else pd.DataFrame()


def accuracy_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Table of `macro_table`: balanced ``accuracy`` (a third by chance), of rows of `linear_probe`,
    for each ``backbone``, ``layer`` and ``generators`` (``"seen"`` in training or ``"held out"``);
    real patches count in both."""
    doubled = _by_generators(rows, rows["family"] == CLASS_NAMES[0])
    return macro_table(doubled, ["backbone", "layer", "generators"], "accuracy", seed=seed)


def pca_pictures(tokens: Tensor, shown: Sequence[int]) -> list[NDArray[np.float64]]:
    """The first three principal components of all tokens as red, green and blue.

    Returns
    -------
    Of each crop in ``shown`` float ``(h, w, 3)`` from 0 to 1: from the 2nd to the 98th percentile
    over all crops.
    """
    count, dim, height, width = tokens.shape
    flat = tokens.float().permute(0, 2, 3, 1).reshape(-1, dim).numpy()
    components = PCA(3, random_state=0).fit_transform(flat)
    low, high = np.quantile(components, [0.02, 0.98], axis=0)
    colours = np.clip((components - low) / (high - low), 0, 1).reshape(count, height, width, 3)
    return [np.asarray(colours[number]) for number in shown]


def _by_generators(rows: pd.DataFrame, unedited: "pd.Series[bool]") -> pd.DataFrame:
    """Rows by ``generators``, seen or held out, where there are any; unedited ones are of both."""
    seen = rows["seen"].astype(bool)
    parts = {"seen": seen, "held out": ~seen}
    return pd.concat(
        rows[of | unedited].assign(generators=name)
        for name, of in parts.items()
        if (of & ~unedited).any()
    )


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

    optimise(network, batches, _dice, steps=steps, lr=rate, label=f"seed {draw.seed}")


@torch.inference_mode()
def _logits(network: Network, pixels: Tensor) -> Tensor:
    """float32 ``(N, 1, h, w)`` on the CPU."""
    device = network.backbone.device
    batches = pixels.split(batch_size(device))
    return torch.cat([network(batch.to(device)).cpu() for batch in batches])


def _dice(network: Network, crops: Tensor, labels: Tensor) -> Tensor:
    return dice_loss(network(crops), labels)


def _ratio(
    name: str, above: Tensor, below: Tensor, groups: ArrayLike, seed: int
) -> dict[str, float]:
    """Ratio of the means of two values of each crop, and its interval, as columns."""
    means = [bootstrap_means(values.numpy(), groups, seed=seed) for values in (above, below)]
    low, high = percentile_interval(means[0] / means[1])
    value = float(above.mean() / below.mean())
    return {name: value, f"{name}_low": low, f"{name}_high": high}
