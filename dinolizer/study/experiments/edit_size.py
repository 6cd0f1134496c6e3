"""From which size on edits are detected, and what training on small edits changes."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from dinolizer.data.images import read_image
from dinolizer.data.manifest import read_pair
from dinolizer.pocket.forging import HELD_OUT, LEARNED, fill, past, random_mask
from dinolizer.pocket.generators import DOWNSAMPLING
from dinolizer.study.evaluation import RATE, Image, Method, Row
from dinolizer.study.metrics import RATES, Mask, score_image, with_matched
from dinolizer.study.samples import Sample, draw_rows
from dinolizer.study.statistics import Measured, Statistic, columns, interval, macro_table
from dinolizer.training.heads import Heads

SMALLEST, LARGEST = 0.005, 0.6  # shares that curves are fitted over
SHARES = (0.39, 0.25, 0.16, 0.1, 0.06, 0.04, 0.025, 0.016, 0.01, 0.006)  # to which masks shrink
PLACES = 2  # in each photograph
DETECTED = 0.5  # share of its pixels at which an edit is detected
PAPER_RANGE = (0.12, 0.20)  # the paper: edits below 12 to 20 % of a window are missed
SMALL, LARGE = 0.1, 0.2  # edits up to the one share are called small here, from the other on large
REPEATS = 5
RESAMPLES = 300
WEAK = 1e4  # inverse of the penalty on the slope: what a share that tells all apart needs
SIZE_RULE = (
    f"An edit is detected if at least {DETECTED:.0%} of its pixels are predicted as edited; the "
    "size at 50 % detection is the edited share at which a logistic curve, fitted to detection "
    "against the logarithm of the share, reaches one half"
)


def training_weights(sample: Sample, extra: Sample, drawn: Tensor) -> dict[str, Tensor]:
    """How much each window, and each ``extra`` one of enlarged images behind them, counts in each
    sampling strategy, ``(S, F, N)``, as `Sample.drawn`. Those without an edit stay in all."""
    share = np.concatenate([sample.rows["share"], extra.rows["share"]])
    native = np.arange(len(share)) < len(sample.rows)
    small = (share > 0) & (share <= SMALL)
    counted = {
        "all windows": native,
        f"small edits {REPEATS} times": native * np.where(small, REPEATS, 1),
        "small edits only": native & (small | (share == 0)),
        "enlarged images too": np.ones_like(native),
    }
    return {name: drawn * drawn.new_tensor(times) for name, times in counted.items()}


@torch.no_grad()
def matched_cuts(
    heads: Heads, tokens: Tensor, sample: Sample, weights: Mapping[str, Tensor]
) -> Tensor:
    """Logit of each head, axes ``strategy, seed, fold``, float32 ``(K,)``, at which its
    false-positive rate, on the unedited windows that it was fitted on (without any, 0), is that of
    the first strategy at 0. At one half they differ in both: who predicts more detects more."""
    clean = torch.from_numpy(np.flatnonzero(sample.rows["share"] == 0))
    used = torch.stack(list(weights.values())).flatten(0, 2)[:, clean] > 0  # (K, n)
    cuts, first = torch.zeros(len(heads)), len(heads) // len(weights)
    asked = (tokens[chosen].to(heads.bias.device, torch.float32) for chosen in clean.split(64))
    logits = torch.cat([heads(batch)[:, :, 0].cpu() for batch in asked])  # (n, K, h, w)
    for head in range(first, len(heads)):
        if used[head].any():
            rate = (logits[used[head], head % first] > 0).float().mean().item()
            cuts[head] = float(np.quantile(logits[used[head], head].numpy(), 1 - rate))
    return cuts


@dataclass(frozen=True)
class Pair:
    """An edited image and its original, uint8 ``(H, W, 3)``, the edit's mask, a manifest's row."""

    image: Image
    original: Image
    mask: Mask
    row: Row

    @cached_property
    def inwards(self) -> NDArray[np.int64]:
        """The pixels, those farthest from the mask's edge first."""
        depth = distance_transform_edt(np.pad(self.mask, 1))[1:-1, 1:-1]
        return np.argsort(-depth, axis=None, kind="stable")

    def at(self, share: float, window: int) -> tuple[Image, Mask]:
        """The picture and the mask when that covers so large a share of a window: the pixels that
        are farthest from its edge. What it no longer covers is the original again."""
        part = np.zeros_like(self.mask)
        part.flat[self.inwards[: round(share * window**2)]] = True
        return np.where(part[..., None], self.image, self.original), part


def forged_pairs(photos: Mapping[str, Path], window: int, seed: int = 0) -> Iterator[Pair]:
    """The largest of `SHARES` by each learned generator, on `PLACES` windows of each photograph."""
    side = window // DOWNSAMPLING * DOWNSAMPLING
    for number, (name, path) in enumerate(photos.items()):
        photo = read_image(path)
        for place, generator in product(range(PLACES), LEARNED):
            rng = np.random.default_rng((seed, number, place))  # one place for all generators
            original = past(photo, side, rng)
            mask = random_mask(side, side, SHARES[0], rng)
            filled = fill(original, mask, generator, photo[:, ::-1], rng)
            row: dict[Hashable, Any] = {"image": f"{name}-{place}-{generator}", "group": name}
            row |= {"family": generator, "seen": generator != HELD_OUT}
            yield Pair(np.where(mask[..., None], filled, original), original, mask, row)


def listed_pairs(manifest: pd.DataFrame, count: int = 0, seed: int = 0) -> Iterator[Pair]:
    """At most ``count`` (0: all) spliced images beside the photograph of their group and size."""
    same = ["dataset", "group", "width", "height"]
    real = manifest[manifest["kind"] == "real"].drop_duplicates(same)
    spliced = manifest[manifest["kind"] == "sp"]
    both = spliced.merge(real[[*same, "image"]], on=same, suffixes=("", "_real"))
    for row in draw_rows(both, count, seed).to_dict("records"):
        image, mask = read_pair(row)
        yield Pair(image, read_image(row["image_real"]), mask, row)


def shrinking_rows(method: Method, pairs: Iterable[Pair], window: int) -> pd.DataFrame:
    """Map every pair while its mask shrinks to each of `SHARES` of the window, and nothing else
    changes. A row of `score_image` each, of the ``case`` edited and of untouched, the same mask on
    the original's map, and one of kind ``real`` for the original; see `with_matched`."""
    rows, names = [], ("image", "group", "family", "seen")
    for pair in pairs:
        row = pair.row
        about = {name: row[name] for name in names}
        about |= {"method": method.name, "kind": "sp"}
        plain = method.predict(pair.original, row)
        scores = score_image(plain, 0.5, pair.mask & False)
        rows.append({**about, "kind": "real", "case": "original", "share": 0.0} | scores)
        for share in SHARES:
            if share * window**2 > pair.mask.sum():
                continue
            edited, part = pair.at(share, window)
            for case, values in (("edited", method.predict(edited, row)), ("untouched", plain)):
                line = {**about, "case": case, "share": share}
                rows.append(line | score_image(values, 0.5, part))
    if rows:
        return with_matched(pd.DataFrame(rows))
    numbers = ["share", *(f"recall_at_{rate}" for rate in RATES)]
    empty = pd.DataFrame(columns=[*names, "kind", "case", *numbers])
    return empty.astype(dict.fromkeys(numbers, float))


def at_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Edits of `shrinking_rows`, once for each of `RATES`, with the ``recall`` there, whether they
    are ``detected``, 0 or 1, and the ``rate`` in words; none without other photographs."""
    edits = rows[rows["kind"] != "real"]
    each = [
        edits.assign(rate=f"{rate:.0%} false positives", recall=edits[f"recall_at_{name}"])
        for name, rate in RATES.items()
    ]
    known = pd.concat(each, ignore_index=True).dropna(subset="recall")
    return known.assign(detected=(known["recall"] >= DETECTED).astype(float))


def detection_size(
    rows: pd.DataFrame, share: str, reference: pd.DataFrame | None = None, seed: int = 0
) -> Measured:
    """Size at 50 % detection, see `SIZE_RULE`, or its difference to that of other rows of the same
    photographs; of edits from `SMALLEST` to `LARGEST`, nan without any. It is 1, without an
    interval, where the whole window would not be enough, or detection does not grow with the share,
    and `SMALLEST` where half is reached at every size."""
    given = [rows] if reference is None else [rows, reference]
    compared = [of[of[share].between(SMALLEST, LARGEST)] for of in given]
    photos = np.unique(compared[0]["group"].to_numpy(str))
    if not len(photos):
        return np.nan, np.nan, np.nan
    sizes = [_size_statistic(of, share, photos) for of in compared]

    def size(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        first, *others = (of(counts) for of in sizes)
        return first - others[0] if others else first

    every = np.ones((1, len(photos)))
    value = float(size(every)[0])
    if not all(SMALLEST < of(every)[0] < 1 for of in sizes):
        return value, np.nan, np.nan
    bounds = (SMALLEST if reference is None else -1.0, 1.0)
    return value, *interval(size, len(photos), bounds=bounds, seed=seed, resamples=RESAMPLES)


def _size_statistic(edits: pd.DataFrame, share: str, photos: NDArray[np.str_]) -> Statistic:
    detected = edits["recall"].to_numpy(float) >= DETECTED
    photo = np.searchsorted(photos, edits["group"].to_numpy(str))
    # Rows of several seeds are counted together: how many of the same edit were detected, or not.
    each = np.stack([photo, np.log(edits[share].to_numpy(float))])
    edits_of, edit = np.unique(each, axis=1, return_inverse=True)
    cases = np.concatenate([np.bincount(edit.ravel(), weights=of) for of in (detected, ~detected)])
    logarithms, owner = np.tile(edits_of[1], 2)[:, None], np.tile(edits_of[0].astype(int), 2)
    yes = np.repeat([True, False], edits_of.shape[1])

    def half(weight: NDArray[np.float64]) -> float:
        """Share at which the weighted logistic curve is at one half, from `SMALLEST` to 1."""
        there = weight > 0
        if not there.any() or yes[there].all():
            return SMALLEST
        if not yes[there].any():
            return 1.0
        curve = LogisticRegression(C=WEAK, solver="newton-cholesky")
        curve.fit(logarithms[there], yes[there], sample_weight=weight[there])
        slope, offset = float(curve.coef_[0, 0]), float(curve.intercept_[0])
        return float(np.clip(np.exp(min(-offset / slope, 0.0)), SMALLEST, 1)) if slope > 0 else 1.0

    return lambda counts: np.array([half(cases * of[owner]) for of in counts])


def compare_strategies(rows: pd.DataFrame, share: str, usual: str, seed: int = 0) -> pd.DataFrame:
    """What each ``strategy`` of rows gains for small edits over the usual, and costs elsewhere:
    ``size`` at 50 % detection, its standard deviation over seeds, ``size_sd``, and ``shift``; as of
    `macro_table`, ``small_iou, large_iou`` and ``false_positive_rate``; nan without such edits."""
    of_strategies, lines = dict(list(rows.groupby("strategy", sort=False))), []
    for strategy, part in of_strategies.items():
        line = {"strategy": strategy, **columns("size", detection_size(part, share, seed=seed))}
        seeds = [detection_size(of, share)[0] for _, of in part.groupby("seed")]
        line["size_sd"] = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else np.nan
        shift = detection_size(part, share, of_strategies[usual], seed)
        lines.append(line | columns("shift", shift))
    scores = {
        "small_iou": rows["iou"].where(rows[share].between(0, SMALL, inclusive="right")),
        "large_iou": rows["iou"].where(rows[share] >= LARGE),
        RATE: rows["predicted_area"].where(rows[share] == 0),
    }
    # Windows count alike, whichever image or family they are of.
    number = rows.groupby(["strategy", "seed"]).cumcount()
    scored = rows.assign(image=number, **scores).drop(columns="family", errors="ignore")
    table = macro_table(scored, ["strategy"], [*scores], {"strategy": usual}, seed=seed)
    return pd.DataFrame(lines).merge(table.drop(columns=["n_images", "n_photos"]), on="strategy")
