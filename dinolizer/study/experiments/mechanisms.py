"""Why the method works: which cue its map follows, and what overlapping windows add."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from dinolizer.data.images import read_image
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.model.windows import REDUCTIONS, Plan, assemble
from dinolizer.pocket import forging
from dinolizer.study.evaluation import Image, Picture
from dinolizer.study.metrics import Map, Mask, ranking_scores, score_image
from dinolizer.study.samples import Sample

TREATMENTS = ("nothing", "swapped", "re-encoded", "swapped, re-encoded", "generated")
NOTHING, SWAPPED, REENCODED, BOTH, GENERATED = TREATMENTS
AUTOENCODERS = ("autoencoder", forging.HELD_OUT)


def cue_pictures(paths: Mapping[str, Path], side: int, places: int, seed: int) -> Iterator[Picture]:
    """Places of every photograph, a crop each, after each of `TREATMENTS` (``condition``) by an
    auto-encoder (``family``); the mask is the truth of all. They get their own content or that of
    the next photograph by name, with a past by the same draws, as it is or through the
    auto-encoder; ``generated`` is the edit that training meets."""
    photos = [(name, read_image(path)) for name, path in sorted(paths.items())]
    for at, place, generator in product(range(len(photos)), range(places), AUTOENCODERS):
        (name, photo), (_, donor) = photos[at], photos[(at + 1) % len(photos)]
        drawn = [seed, at, place]
        own, other = (forging.past(of, side, np.random.default_rng(drawn)) for of in (photo, donor))
        rng = np.random.default_rng([*drawn, 1])
        mask = forging.random_mask(side, side, forging.log_uniform_area(rng), rng)
        contents = [own, other, *(forging.reencode(of, generator) for of in (own, other))]
        contents.append(forging.fill(own, mask, generator, donor, rng))
        about: dict[Any, Any] = {"image": f"{name} {place}", "group": name, "kind": "sp"}
        for treatment, content in zip(TREATMENTS, contents, strict=True):
            row = about | {"condition": treatment, "family": generator, "area": mask.mean()}
            yield np.where(mask[..., None], content, own), mask, row


def without_donors(sample: Sample) -> Sample:
    """Fit no head on the photograph that `cue_pictures` puts into its own, either."""
    return replace(sample, train=sample.train & sample.train.roll(-1, 0))


def overlap_rows(
    backbone: Backbone,
    heads: Mapping[str, nn.Conv2d],
    pictures: Iterable[tuple[str, Image, Mask]],
    strides: Sequence[int],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `score_image`, of logits by the head that never met a picture, by ``stride`` and
    ``reduce``, with ``passes`` and `steps`; and rows of `by_distance`. Each window is seen once."""
    card, rows, rings = card_for(backbone), [], []
    for number, (group, image, truth) in enumerate(pictures):
        about = {"image": number, "group": group}
        localizer = Localizer(backbone, heads[group], card)
        plans = [localizer.with_settings(stride=stride).plan(*truth.shape) for stride in strides]
        axes = zip(*((plan.tops, plan.lefts) for plan in plans), strict=True)
        tops, lefts = (tuple(sorted({*chain(*of)})) for of in axes)
        every = replace(plans[0], tops=tops, lefts=lefts)
        logits = torch.cat([*localizer.patch_logits(image, every)]).cpu()
        rings += [about | row for row in by_distance(every, logits[:, 0].numpy(), truth)]
        known = dict(zip(every.positions, logits[:, None], strict=True))
        for (stride, plan), reduce in product(zip(strides, plans, strict=True), REDUCTIONS):
            laid = (known[at] for at in plan.positions)
            values = assemble(replace(plan, reduce=reduce), laid)[0].numpy()
            row = about | {"stride": stride, "reduce": reduce, "passes": plan.passes}
            rows.append(row | score_image(values, 0, truth) | steps(plan, values))
    return pd.DataFrame(rows), pd.DataFrame(rings)


def steps(plan: Plan, values: Map) -> dict[str, float]:
    """Mean change of a map, from half a patch before to half a patch after, where windows begin or
    end (``border``), and where only patches do, a patch away from that (``elsewhere``)."""
    half, found = plan.patch // 2, {"border": [np.nan], "elsewhere": [np.nan]}
    for starts, of in ((plan.tops, values), (plan.lefts, values.T)):
        borders = {at + length for at in starts for length in (0, plan.window)} - {0, len(of)}
        for at in {*borders, *range(plan.patch, len(of) - half, plan.patch)}:
            near = min((abs(at - border) for border in borders), default=plan.patch)
            if near == 0 or near >= plan.patch:
                change = np.abs(of[min(at + half, len(of) - 1)] - of[max(at - half, 0)])
                found["elsewhere" if near else "border"].append(float(change.mean()))
    return {name: float(np.nanmean(of)) for name, of in found.items()}


def by_distance(plan: Plan, logits: Map, truth: Mask) -> list[dict[str, float]]:
    """ROC area ``auc`` of the patches of single windows ``(N, h, w)``, by their ``distance`` to the
    border of their window, in patches; without those that no window has in its middle."""
    margin, middle = plan.window // 2 - plan.patch, np.zeros_like(truth)
    middle[margin : truth.shape[0] - margin, margin : truth.shape[1] - margin] = True
    maps = torch.from_numpy(np.stack([truth, middle])).float()
    top_left = [maps[:, top:, left:] for top, left in plan.positions]
    windows = torch.stack([of[:, : plan.window, : plan.window] for of in top_left], dim=1)
    edited, whole = F.avg_pool2d(windows, plan.patch).numpy()
    along = np.arange(logits.shape[-1])
    nearest = np.minimum(along, along[::-1])
    rings, rows = np.minimum(nearest[:, None], nearest), []
    for distance in range(nearest.max() + 1):
        ring = (rings == distance) & (whole == 1)
        values = (np.sort(logits[ring & of]) for of in (edited > 0.5, edited <= 0.5))
        rows.append({"distance": distance} | ranking_scores(*values))
    return rows
