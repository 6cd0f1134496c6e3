"""Two generations of backbones on the same crops: frozen, trained end to end, and probed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_ind
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from dinolizer.model.backbones import BACKBONES, Backbone
from dinolizer.model.batches import batch_size
from dinolizer.model.specs import TWINS
from dinolizer.study.evaluation import leads, mean_lead
from dinolizer.study.experiments.labels import CLASS_NAMES, THREE
from dinolizer.study.heads import fit_drawn, left_out_logits, window_rows
from dinolizer.study.metrics import auc_statistic
from dinolizer.study.samples import Dataset, Sample, crop_sample
from dinolizer.study.statistics import Measured, Statistic, columns, measured
from dinolizer.training.heads import Heads, Loss, dice_loss, fit
from dinolizer.training.loop import optimise
from dinolizer.training.recipes import Network

UNTRAINED, GENERIC, FORENSIC = "untrained", "generic", "forensic"
FROZEN, FULL = "frozen", "full"
LEARNING_RATE = 3e-5
"""Of all weights: the best of four on forgeries of photographs that no study uses."""
BATCH, TESTED = 16, 0.4  # crops in a step, and the share of the photographs that a draw tests
PURE = 0.9  # share of a patch that is of one class, at least, for a probe to count it as of it
LEAD = "patches minus pooled"
PATCHES = 20_000  # that a probe is fitted on, at most


def pretraining(backbone: str) -> str:
    """What a backbone of `dinolizer.model.backbones.BACKBONES` was pre-trained for, by its name."""
    if backbone.startswith("untrained-"):
        return UNTRAINED
    known = backbone.startswith(("bfree", "pocket")) and "generic" not in backbone
    return FORENSIC if known else GENERIC


def pretrainings(design: str) -> tuple[str, ...]:
    """The backbones of one design, pre-trained alike but with other seeds."""
    return design, *TWINS.get(design, ())


def common_window(names: Sequence[str]) -> int:
    """Side in pixels of the largest window that backbones can share: it fits in the window of each
    and is a multiple of every patch (448 for windows of 504 by 14 and of 512 by 16)."""
    specs = [BACKBONES[name] for name in names]
    patches = math.lcm(*(spec.patch for spec in specs))
    return min(spec.window for spec in specs) // patches * patches


def common_crops(
    dataset: Dataset, backbones: Mapping[str, Backbone], count: int = 0, seed: int = 0
) -> tuple[list[NDArray[np.uint8]], dict[str, Sample]]:
    """One random crop of each image, the same pixels for all backbones, loaded for one
    `common_window`, as of `crop_sample`, and for each backbone three-class labels on its grid."""
    grids = {name: (one.spec.window, one.spec.patch) for name, one in backbones.items()}
    specs = {grids[name]: one.spec for name, one in backbones.items()}
    made = {at: crop_sample(dataset, spec, count, seed, policy=THREE) for at, spec in specs.items()}
    images, *others = (cut for cut, _ in made.values())
    assert all(np.array_equal(images, same) for same in others)
    return images, {name: made[grid][1] for name, grid in grids.items()}


class Draw(NamedTuple):
    """What one training learns from and is tested on: ``train``, int ``(n,)``, crops drawn with
    replacement, as many as there are; ``test``, bool ``(N,)``, crops of other photographs."""

    seed: int
    train: NDArray[np.int64]
    test: NDArray[np.bool_]


def draws(sample: Sample, seeds: Sequence[int]) -> list[Draw]:
    """Draw what each training learns from and is tested on, one for each seed. Without a training
    set, each tests the next `TESTED` of the photographs, round and round in a random order."""
    groups, made = sample.rows["group"].to_numpy(str), []
    photos = np.random.default_rng(seeds[0]).permutation(np.unique(groups))
    count = max(1, round(TESTED * len(photos)))
    for number, seed in enumerate(seeds):
        test = sample.fold >= 0
        if len(sample.train) > 1:
            test = np.isin(groups, np.take(photos, number * count + np.arange(count), mode="wrap"))
        known = np.flatnonzero(sample.train.any(0).numpy() & ~test)
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
    """Train a head on the frozen backbone for ``epochs``, then both together for ``steps``, and
    score all of them: a row per tested crop, draw and training is as of `window_rows`, with
    ``backbone, training, seed``. Of ``images``, uint8 ``(H, W, 3)``, with their tokens and labels.

    Training end to end starts from the frozen head, as an untrained one would first spoil what the
    backbone knows (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022)."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    counts = [np.bincount(draw.train, minlength=len(pixels)) for draw in drawn]
    heads, train = Heads({"draw": len(drawn)}, tokens.shape[1]), torch.from_numpy(np.stack(counts))
    fit(heads, tokens, sample.targets, train, epochs=epochs, seed=drawn[0].seed)
    rows = []
    for number, draw in enumerate(drawn):
        test = torch.from_numpy(draw.test)
        tested = replace(sample, fold=np.where(draw.test, 0, -1))
        for training in (FROZEN, FULL):
            head = heads.select(draw=number)
            logits = torch.full((len(tokens), 1, *tokens.shape[2:]), torch.nan)
            if training == FROZEN:
                logits[test] = head(tokens[test].float())[:, 0]
            else:
                learning = deepcopy(backbone)
                learning.model.requires_grad_(True)
                network = Network(learning, head)
                _train(network, pixels, sample.targets, draw, steps)
                device = backbone.device
                with torch.inference_mode():
                    parts = pixels[test].split(batch_size(device))
                    logits[test] = torch.cat([network(part.to(device)).cpu() for part in parts])
            name = {"backbone": backbone.spec.name, "training": training, "seed": draw.seed}
            rows.append(window_rows(logits, tested, [name]))
    return pd.concat(rows, ignore_index=True)


def _train(network: Network, pixels: Tensor, targets: Tensor, draw: Draw, steps: int) -> None:
    """Minimise soft Dice over steps of `BATCH` crops each."""
    rng = np.random.default_rng((draw.seed, 2))
    passes = -(-steps * BATCH // len(draw.train))
    order = np.concatenate([rng.permutation(draw.train) for _ in range(passes)])

    def batches(first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.from_numpy(order[first * BATCH : last * BATCH]).split(BATCH):
            yield pixels[chosen], targets[chosen]

    def dice(network: Network, crops: Tensor, labels: Tensor) -> Tensor:
        return dice_loss(network(crops), labels)

    optimise(network, batches, dice, steps=steps, lr=LEARNING_RATE, label=f"seed {draw.seed}")


def linear_probe(tokens: Tensor, sample: Sample, drawn: Sequence[Draw]) -> pd.DataFrame:
    """Classify real, re-encoded and inpainted patches by their tokens ``(N, D, h, w)``, by linear
    discriminant analysis with shrunk covariance and equal priors, for each draw; patches of which
    less than `PURE` is of one class are left out.

    A row per draw (``seed``), tested crop and class that it has: ``image, group, seen``, the class
    as ``family``, and ``accuracy``, the share of its patches that is classified rightly."""
    share, label = sample.targets.flatten(2).max(1)  # (N, h w)
    pure, features = share >= PURE, tokens.flatten(2).transpose(1, 2)  # (N, h w, D)
    by = ["image", "group", "seen", "family", "seed"]
    tables = [pd.DataFrame(columns=[*by, "accuracy"])]
    for draw in drawn:
        crop, patch = pure[draw.train].nonzero().numpy().T
        chosen = np.random.default_rng((draw.seed, 3)).permutation(len(crop))[:PATCHES]
        learned = draw.train[crop[chosen]], patch[chosen]
        tested = (pure & torch.from_numpy(draw.test)[:, None]).nonzero().numpy().T
        known, truth = label[*learned].numpy(), label[*tested].numpy()
        if not len(truth) or len(np.unique(known)) < len(CLASS_NAMES):
            continue
        priors = np.full(len(CLASS_NAMES), 1 / len(CLASS_NAMES))
        classifier = LinearDiscriminantAnalysis("lsqr", shrinkage="auto", priors=priors)
        classifier.fit(features[*learned].float().numpy(), known)
        right = classifier.predict(features[*tested].float().numpy()) == truth
        rows = sample.rows.iloc[tested[0]][["image", "group", "seen"]]
        rows = rows.assign(family=np.array(CLASS_NAMES)[truth], seed=draw.seed, accuracy=right)
        tables.append(rows.groupby(by, sort=False)["accuracy"].mean().reset_index())
    return pd.concat(tables[1:] or tables)


def design_lead(rows: pd.DataFrame, first: str, second: str, score: str, seed: int = 0) -> Measured:
    """How far a score of one ``design`` is above that of the other, image by image, mean over
    families. The interval reaches as far as that over photographs and, where each has several
    pre-trainings (``backbone``), that over these, Welch's t, together: what another seed of the
    pre-training would undo is no lead of a design."""
    lead, low, high = mean_lead(leads(rows, first, second, "design", score), seed)
    of_families = rows.groupby(["design", "backbone", "family"])[score].mean()
    means = of_families.groupby(["design", "backbone"]).mean()
    among = ttest_ind(means[first], means[second], equal_var=False).confidence_interval()
    return lead, float(np.fmin(low, among.low)), float(np.fmax(high, among.high))


def gains(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """What training end to end adds to a score, ``gain``, by rows of `train_and_test`."""
    of = ["design", "backbone", "seed", "family", "group", "image"]
    both = rows.pivot(index=of, columns="training", values=score)
    return (both[FULL] - both[FROZEN]).rename("gain").reset_index()


def pooled_or_patches(
    tokens: Tensor, sample: Sample, seeds: Sequence[int], epochs: int
) -> pd.DataFrame:
    """Whether anything in a crop is edited, told by a linear head on its ``pooled`` tokens (their
    mean and maximum), trained with cross-entropy, and by the highest logit of a head on its
    ``patches``, trained with Dice: a row each, ``by``, and one of their difference, with the
    ``auc`` of crops of photographs that the heads never met. Of tokens ``(N, D, h, w)``."""
    pooled = torch.cat([tokens.mean((2, 3)), tokens.amax((2, 3))], dim=1)[..., None, None]
    edited = sample.targets.amax((1, 2), keepdim=True) > 0
    heads_of: dict[str, tuple[Tensor, Sample, Loss]] = {
        "patches": (tokens, sample, "dice"),
        "pooled": (pooled, replace(sample, targets=edited.float()), "bce"),
    }
    tested = sample.fold >= 0
    statistics: dict[str, Statistic] = {}
    for name, (values, labelled, loss) in heads_of.items():
        heads = fit_drawn(values, labelled, seeds, epochs, [loss])
        scores = left_out_logits(heads, values, labelled).amax((2, 3)).mean(1)[tested]
        of_crops = scores, edited.flatten()[tested], sample.rows["group"][tested]
        statistics[name], photos = auc_statistic(*of_crops)
    first, second = statistics.values()
    statistics[LEAD] = lambda counts: first(counts) - second(counts)
    return pd.DataFrame(
        {
            "by": name,
            **columns("auc", measured(of, photos, bounds=(-1.0 if name == LEAD else 0, 1))),
        }
        for name, of in statistics.items()
    )
