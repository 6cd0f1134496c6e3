"""What tokens, ``(N, D, h, w)`` of N crops, hold, layer by layer: how alike they are, how far they
agree across an image, what a linear probe reads from them, and what degradations do to them."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from dinolizer.data.degradations import Step, degrade
from dinolizer.model.backbones import Backbone
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import LEAST, columns, ratio, student_interval
from dinolizer.training.tokens import extract_layers

BLOCKS = 20  # of photographs, where there are more, that the interval of CKA is over
PURE = 0.9  # share of a patch that is of one class, at least, for it to count as of that class
DEGRADED: list[Step] = [*product(["jpeg"], (90, 70, 50)), *product(["noise"], (3, 7, 11))]
"""Levels of the grids of `dinolizer.data.degradations`, from mild to strong."""
PATCHES = 20_000  # that a probe is fitted on, at most


def cka_table(layers: Mapping[tuple[str, int], Tensor], groups: Sequence[str]) -> pd.DataFrame:
    """Linear centred kernel alignment of every two layers, of one backbone or two, both ways:
    ``first, first_layer, second, second_layer, cka, low, high``.

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred tokens, in Frobenius norms (Kornblith et al., "Similarity
    of Neural Network Representations Revisited", ICML 2019, equation 1 with linear kernels): from 0
    to 1, the same up to rotation and scale; nan where tokens are constant; biased upwards where
    they are not many more than their values. ``layers`` is from backbone and layer to tokens of the
    same crops, of the photographs ``groups``; finer grids are averaged to the coarsest one.
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
    alignments = []
    for times in torch.cat([torch.ones(1, len(blocks)), 1 - torch.eye(len(blocks))]):
        total = times @ sums
        moments = torch.tensordot(times, products, 1) - total.outer(total) / (times @ counts)
        squares = torch.tensor(
            [[part.square().sum() for part in row.split(sizes, 1)] for row in moments.split(sizes)]
        )
        norms = squares.diag().sqrt()
        alignments.append(squares / norms.outer(norms))
    value, *left_out = torch.stack(alignments).numpy()
    low, high = np.full((2, *value.shape), np.nan)
    if len(blocks) >= LEAST:
        low, high = np.clip(student_interval(value, np.stack(left_out)), 0, 1)
    names = pd.DataFrame(
        [(*one, *other) for one, other in product(layers, repeat=2)],
        columns=["first", "first_layer", "second", "second_layer"],
    )
    return names.assign(cka=value.ravel(), low=low.ravel(), high=high.ravel())


def autocorrelation(
    tokens: Tensor, patch: int, groups: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Correlation of tokens with those at a distance, across or down, in the same crop: ``lag``
    (patches, up to half the grid), ``distance`` (pixels) and ``correlation`` with its interval.

    ``sum <t_i - m, t_j - m> / sum |t_i - m|^2``, each as a mean over its pairs, with m the mean of
    all tokens. What is left far off is what the tokens of a crop have in common.
    """
    centred, power = _centred(tokens)
    lines = []
    for lag in range(1, max(tokens.shape[2:]) // 2 + 1):
        across = (centred[..., lag:] * centred[..., :-lag]).sum(1)
        down = (centred[:, :, lag:] * centred[:, :, :-lag]).sum(1)
        shared = torch.cat([across.flatten(1), down.flatten(1)], dim=1).mean(1)
        ends = columns("correlation", ratio(shared, power, groups, seed=seed))
        lines.append({"lag": lag, "distance": lag * patch, **ends})
    return pd.DataFrame(lines)


def change_table(
    backbone: Backbone,
    images: Sequence[NDArray[np.uint8]],
    groups: Sequence[str],
    layers: Sequence[int],
    seed: int = 0,
) -> pd.DataFrame:
    """How far tokens of each layer move by each of `DEGRADED`: ``degradation, level, layer`` and
    ``change`` with its interval.

    ``mean |t' - t|^2 / (2 mean |t - m|^2)``, with m the mean of all tokens: 0 where nothing moves,
    1 where t' is as far from t as any other token.
    """
    before, lines = extract_layers(backbone, images, layers), []
    for name, level in DEGRADED:
        degraded = [degrade(name, level, image, seed + n) for n, image in enumerate(images)]
        after = extract_layers(backbone, degraded, layers)
        for layer in layers:
            moved = (after[layer].float() - before[layer].float()).square().sum(1).mean((1, 2))
            spread = 2 * _centred(before[layer])[1]
            line = {"degradation": name, "level": level, "layer": layer}
            lines.append(line | columns("change", ratio(moved, spread, groups, seed=seed)))
    return pd.DataFrame(lines)


def _centred(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens less their mean, and of each crop the mean of their squared lengths, ``(N,)``."""
    centred = tokens.float() - tokens.float().mean((0, 2, 3), keepdim=True)
    return centred, centred.square().sum(1).mean((1, 2))


def linear_probe(tokens: Tensor, sample: Sample, seed: int = 0) -> pd.DataFrame:
    """Classify real, re-encoded and inpainted patches by their tokens, by linear discriminant
    analysis with shrunk covariance and equal priors; patches of which less than `PURE` is of one
    class are left out. Each fold is fitted on patches, drawn by the seed, of the crops that it may
    be fitted on.

    A row per tested crop and class that it has: ``image, group, seen``, the class as ``family``,
    and ``accuracy``, the share of its patches that is classified rightly.
    """
    share, label = sample.targets.flatten(2).max(1)  # (N, h w)
    pure, features = share >= PURE, tokens.flatten(2).transpose(1, 2)  # (N, h w, D)
    by = ["image", "group", "seen", "family"]
    tables = [pd.DataFrame(columns=[*by, "accuracy"])]
    for fold, fitted in enumerate(sample.train):
        tested = (pure & torch.from_numpy(sample.fold == fold)[:, None]).nonzero().numpy().T
        rng = np.random.default_rng((seed, fold))
        chosen = rng.permutation((pure & fitted[:, None]).nonzero().numpy())[:PATCHES].T
        known, truth = label[*chosen].numpy(), label[*tested].numpy()
        if not len(truth) or len(np.unique(known)) < len(CLASS_NAMES):
            continue
        priors = np.full(len(CLASS_NAMES), 1 / len(CLASS_NAMES))
        classifier = LinearDiscriminantAnalysis("lsqr", shrinkage="auto", priors=priors)
        classifier.fit(features[*chosen].float().numpy(), known)
        right = classifier.predict(features[*tested].float().numpy()) == truth
        rows = sample.rows.iloc[tested[0]][["image", "group", "seen"]]
        rows = rows.assign(family=np.array(CLASS_NAMES)[truth], accuracy=right)
        tables.append(rows.groupby(by, sort=False)["accuracy"].mean().reset_index())
    return pd.concat(tables[1:] or tables)


def pca_pictures(tokens: Tensor, shown: Sequence[int]) -> list[NDArray[np.float64]]:
    """The first three principal components of all tokens as red, green and blue: of each crop in
    ``shown`` float ``(h, w, 3)`` from 0 to 1, the 2nd to the 98th percentile over all crops."""
    flat = tokens.float().permute(0, 2, 3, 1).flatten(0, 2).numpy()
    components = PCA(3, random_state=0).fit_transform(flat)
    low, high = np.quantile(components, [0.02, 0.98], axis=0)
    colours = np.clip((components - low) / (high - low), 0, 1)
    return [*colours.reshape(len(tokens), *tokens.shape[2:], 3)[list(shown)]]
