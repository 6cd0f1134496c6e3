"""What tokens hold: how alike two backbones are, how far tokens agree, what tells patches apart.

Tokens are ``(N, D, h, w)`` of N crops, on the CPU. Every number has a 95 % interval by a bootstrap
over photographs (see `dinolizer.study.statistics.bootstrap_means`).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from dinolizer.data.degradations import Step, degrade
from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, Backbone
from dinolizer.study.dataset import Dataset
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.samples import Sample, crop_sample
from dinolizer.study.statistics import (
    bootstrap_draws,
    bootstrap_means,
    macro_mean,
    macro_table,
    percentile_interval,
)
from dinolizer.training.tokens import extract_layers

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
"""Most patches that a classifier is fitted on, drawn by the seed."""


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
        crop_sample(dataset, backbone.spec, count, seed, policy="three-class")
        for backbone in backbones.values()
    ]
    (images, _), *others = made
    assert all(np.array_equal(images, same) for same, _ in others)
    return images, {name: sample for name, (_, sample) in zip(backbones, made, strict=True)}


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
    A line per pair, each once: ``first, first_layer, second, second_layer, cka, low, high``.
    """
    grid = min((tuple(tokens.shape[2:]) for tokens in layers.values()), key=np.prod)
    photos, photo = np.unique(np.asarray(groups), return_inverse=True)
    blocks = torch.from_numpy(photo * min(BLOCKS, len(photos)) // len(photos))
    features = {name: _features(tokens, grid) for name, tokens in layers.items()}
    names = list(features)
    pairs = [(a, b) for number, a in enumerate(names) for b in names[number:]]
    count = int(blocks.max()) + 1
    of_blocks = {(a, b): _products(features[a], features[b], blocks) for a, b in pairs}
    drawn = np.concatenate([np.ones((1, count)), *bootstrap_draws(count, seed, RESAMPLES)])
    found: dict[object, list[float]] = {pair: [] for pair in pairs}
    for some in torch.from_numpy(drawn).float().split(50):  # all at once would take gigabytes
        moments = {pair: _centred(products, some) for pair, products in of_blocks.items()}
        for first, second in pairs:
            own = (moments[first, second], moments[first, first], moments[second, second])
            found[first, second] += map(_alignment, *own)
    lines = []
    for first, second in pairs:
        value, *resampled = found[first, second]
        ends = (np.nan, np.nan) if count < 2 else percentile_interval(np.array(resampled))
        lines.append((*first, *second, value, *ends))
    columns = ["first", "first_layer", "second", "second_layer", "cka", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def similarity_panels(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Both halves of every square of a `cka_table`, by the names of its two backbones: ``layer``
    (of the first), ``other layer`` and ``cka``."""
    sides = ["first", "first_layer", "second", "second_layer"]
    swapped = table.rename(columns=dict(zip(sides, sides[2:] + sides[:2], strict=True)))
    both = pd.concat([table, swapped]).drop_duplicates(sides).sort_values(sides[1::2])
    both = both.rename(columns={"first_layer": "layer", "second_layer": "other layer"})
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    pairs = [(name, name) for name in names] + list(combinations(names, 2))
    return {
        f"{one}\nand {other}": both.loc[
            (both["first"] == one) & (both["second"] == other), ["layer", "other layer", "cka"]
        ]
        for one, other in pairs
    }


def autocorrelation(
    tokens: Tensor, patch: int, groups: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Correlation of tokens with those some way off, across or down, in the same crop.

    ``sum <t_i - m, t_j - m> / sum |t_i - m|^2``, each as a mean over its pairs and places, with m
    the mean of all tokens. What is left far off is what the tokens of a crop have in common.

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
        found = _ratio(shared, power, groups, seed)
        lines.append({"lag": lag, "distance": lag * patch, **_named("correlation", found)})
    return pd.DataFrame(lines)


def change(
    tokens: Tensor, after: Tensor, groups: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """How far tokens move, against how far apart two tokens are that have nothing in common.

    ``mean |t' - t|^2 / (2 mean |t - m|^2)``, with m the mean of all tokens: 0 where nothing moves,
    1 where t' is as far from t as any other token.

    Returns
    -------
    change, low, high.
    """
    before = tokens.float()
    moved = (after.float() - before).square().sum(1).mean((1, 2))
    spread = (before - before.mean((0, 2, 3), keepdim=True)).square().sum(1).mean((1, 2))
    return _ratio(moved, 2 * spread, groups, seed)


def change_table(
    backbone: Backbone,
    images: Sequence[NDArray[np.uint8]],
    groups: Sequence[str],
    layers: Sequence[int],
    seed: int = 0,
) -> pd.DataFrame:
    """`change` of the tokens of each layer after each of `DEGRADED`.

    Parameters
    ----------
    images, groups
        uint8 ``(H, W, 3)`` crops, and the photograph of each.

    Returns
    -------
    A line for each degradation, level and layer: ``degradation, level, layer`` and ``change`` with
    its interval.
    """
    before = extract_layers(backbone, images, layers)
    lines = []
    for name, level in DEGRADED:
        degraded = [degrade(name, level, image, seed + n) for n, image in enumerate(images)]
        after = extract_layers(backbone, degraded, layers)
        for layer in layers:
            found = change(before[layer], after[layer], groups, seed)
            line = {"degradation": name, "level": level, "layer": layer}
            lines.append(line | _named("change", found))
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
    A row per tested crop and class that it has: ``image, group, family, seen, truth, correct``,
    the last the share of its patches that is classified rightly.
    """
    share, label = sample.targets.flatten(2).max(1)  # (N, h w)
    pure = share >= PURE
    features = tokens.flatten(2).transpose(1, 2)  # (N, h w, D)
    about = ["image", "group", "family", "seen"]
    tables = [pd.DataFrame(columns=[*about, "truth", "correct"])]
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
        correct = classifier.predict(features[crop, patch].float().numpy()) == truth
        rows = sample.rows.iloc[crop][about].assign(truth=np.array(CLASS_NAMES)[truth])
        by = rows.assign(correct=correct).groupby([*about, "truth"], sort=False)
        tables.append(by["correct"].mean().reset_index())
    return pd.concat(tables[1:] or tables)


def accuracy_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Balanced accuracy, the mean over the classes of the share classified rightly.

    Parameters
    ----------
    rows
        Of `linear_probe`, with the columns ``backbone`` and ``layer``.

    Returns
    -------
    As of `macro_table`, ``accuracy`` (a third by chance) for each backbone, layer and
    ``generators`` (``"seen"`` in training or ``"held out"``); real patches count in both.
    """
    real = rows["truth"] == CLASS_NAMES[0]
    both = [("seen", rows["seen"]), ("held out", ~rows["seen"].astype(bool))]
    doubled = pd.concat(
        rows[edited | real].assign(generators=name) for name, edited in both if edited.any()
    )
    doubled = doubled.assign(family=doubled["truth"]).rename(columns={"correct": "accuracy"})
    return macro_table(doubled, ["backbone", "layer", "generators"], "accuracy", seed=seed)


def accuracy_lead(
    rows: pd.DataFrame, first: str, second: str, seed: int = 0
) -> tuple[float, float, float]:
    """Balanced accuracy of one backbone less that of another, with its interval, over the crops and
    classes that both have; ``rows`` of `linear_probe` with the column ``backbone``."""
    wide = rows.pivot(index=["truth", "group", "image"], columns="backbone", values="correct")
    lead = (wide[first] - wide[second]).dropna().reset_index(name="lead")
    return macro_mean(lead["lead"], lead["truth"], lead["group"], seed=seed)


def pca_pictures(tokens: Tensor, shown: Sequence[int]) -> list[NDArray[np.float64]]:
    """The first three principal components of all tokens as red, green and blue.

    Returns
    -------
    Of each crop in ``shown`` float ``(h, w, 3)`` from 0 to 1: from the 2nd to the 98th percentile
    over all crops.
    """
    count, dim, height, width = tokens.shape
    flat = tokens.float().permute(0, 2, 3, 1).reshape(-1, dim).numpy()
    parts = PCA(3, random_state=0).fit_transform(flat)
    low, high = np.quantile(parts, [0.02, 0.98], axis=0)
    colours = np.clip((parts - low) / (high - low), 0, 1).reshape(count, height, width, 3)
    return [np.asarray(colours[number]) for number in shown]


def _features(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Tokens on a common grid, ``(N, places, D)``, less their mean."""
    pooled = F.adaptive_avg_pool2d(tokens.float(), (grid[0], grid[1])).flatten(2).transpose(1, 2)
    return pooled - pooled.mean((0, 1))


def _products(x: Tensor, y: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each block of crops the sums of ``x y'``, of x and of y, and the number of tokens."""
    parts = [
        (x[blocks == block].flatten(0, 1), y[blocks == block].flatten(0, 1))
        for block in range(int(blocks.max()) + 1)
    ]
    products = torch.stack([of_x.T @ of_y for of_x, of_y in parts])
    x_sums, y_sums = (torch.stack([part[side].sum(0) for part in parts]) for side in (0, 1))
    return products, x_sums, y_sums, torch.tensor([float(len(of_x)) for of_x, _ in parts])


def _centred(of_blocks: tuple[Tensor, Tensor, Tensor, Tensor], drawn: Tensor) -> Tensor:
    """Centred cross-products ``(R, p, q)`` of the blocks, as often as each was drawn, (R, B)."""
    products, x_sums, y_sums, sizes = of_blocks
    total = torch.tensordot(drawn, products, dims=1)
    means = torch.einsum("rp,rq->rpq", drawn @ x_sums, drawn @ y_sums)
    return total - means / (drawn @ sizes)[:, None, None]


def _alignment(cross: Tensor, first: Tensor, second: Tensor) -> float:
    """CKA of centred cross-products ``(p, q)``, ``(p, p)`` and ``(q, q)``."""
    return (cross.square().sum() / (first.norm() * second.norm())).item()


def _named(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def _ratio(
    above: Tensor, below: Tensor, groups: Sequence[str], seed: int
) -> tuple[float, float, float]:
    """Ratio of the means of two values of each crop, and its interval."""
    means = [bootstrap_means(part.numpy(), groups, seed=seed) for part in (above, below)]
    ends = percentile_interval(means[0] / means[1])
    return float(above.mean() / below.mean()), *ends
