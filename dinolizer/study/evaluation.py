"""From a manifest and methods to rows, one per image, and from rows to tables with intervals."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.degradations import Step, degrade, degrade_mask
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_pair, target
from dinolizer.errors import progress
from dinolizer.study.cache import cache_key, cached, images_hash, probe_hash
from dinolizer.study.metrics import RING, Map, Mask, score_image
from dinolizer.study.statistics import ALL_FAMILIES, Measured, macro_mean, macro_table

Image = NDArray[np.uint8]
Row = Mapping[Hashable, Any]
Predict = Callable[[Image, Row], Map]
Maps = Callable[[Image, Row], Iterable[Map]]
"""Several maps of an image at once, of methods or of heads that share a backbone's pass."""
Picture = tuple[Image, Mask, Row]
Case = tuple[Step, ...]
"""Degradations, applied in this order; without any, images are as they are."""
ABOUT = ("image", "group", "family", "kind", "seen", "condition", "area")
RATE = "false_positive_rate"
IMAGES = 25
"""At most so many in a part: minutes of work, whatever the machine."""


@dataclass(frozen=True)
class Method:
    """What draws maps: the localizer, a baseline or a peer. ``predict`` takes an image, uint8 ``(H,
    W, 3)``, and its row of the manifest to a map, float ``(H, W)``, higher = more suspicious. An
    edit is predicted over the threshold: one for all images, or for each photograph; nan for no
    mask. ``key`` is all that the maps depend on; it has maps of these ``cases``, by `case_name`."""

    name: str
    predict: Predict
    threshold: float | Mapping[str, float] = 0.5
    key: str = ""
    cases: Collection[str] | None = None


def threshold_at(threshold: float | Mapping[str, float], row: Row) -> float:
    return threshold[row["group"]] if isinstance(threshold, Mapping) else threshold


def score_maps(
    maps: Maps, names: Sequence[Mapping[str, Any]], pictures: Iterable[Picture]
) -> pd.DataFrame:
    """Score several maps of each picture: a row for each, with its one of ``names``, among it a
    ``threshold`` (by default 0, of logits), what of `ABOUT` is known, and `score_image`."""
    rows = []
    for image, truth, row in pictures:
        about = {name: row[name] for name in ABOUT if name in row}
        for name, values in zip(names, maps(image, row), strict=True):
            threshold = threshold_at(name.get("threshold", 0.0), row)
            scores = score_known(np.asarray(values), threshold, truth, row["kind"])
            rows.append({**name, **about, "threshold": threshold, **scores})
    return pd.DataFrame(rows)


def score_known(values: Map, threshold: float, truth: Mask, kind: str) -> dict[str, Any]:
    """`score_image` of the pixels whose truth is known: in a re-generated image (``fr``) not of
    those within `RING` pixels of the edit's edge, where the decoder blends both sides."""
    if kind != "fr" or values.shape != truth.shape:  # which it refuses
        return score_image(values, threshold, truth)
    around = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    wide, narrow = (change(truth.astype(np.uint8), around) for change in (cv2.dilate, cv2.erode))
    known = (wide == 0) | ((narrow == 1) if narrow.any() else truth)
    return score_image(values[known], threshold, truth[known])


def evaluate(
    method: Method, manifest: pd.DataFrame, *, steps: Case = (), seed: int = 0
) -> pd.DataFrame:
    """Run a method on every image of a manifest, degraded by ``steps``. A row per image is as of
    `score_maps`, with ``method`` and `step_columns`. An image's index and the seed decide its
    noise, so that a part of a manifest gives the same rows. What predicts is told the ``case``."""
    name, case = {"method": method.name, "threshold": method.threshold}, case_name(steps)

    def maps(image: Image, row: Row) -> list[Map]:
        return [method.predict(image, {**row, "case": case})]

    rows = score_maps(maps, [name], pictures(manifest, steps, seed))
    return rows.assign(**step_columns(steps))


def rows_of(
    methods: Iterable[Method],
    images: pd.DataFrame,
    cases: Sequence[Case] = ((),),
    seed: int = 0,
    number: int = 1,
    count: int = 1,
) -> pd.DataFrame:
    """Rows of methods on images of a manifest after each of the cases (those that a method has),
    cached in parts of one method and dataset each, so that machines can share the work: every
    ``count``-th is taken, from the ``number``-th on (counted from 1)."""
    datasets = [part for _, part in images.groupby("dataset", sort=False)]
    parts = [part.iloc[at : at + IMAGES] for part in datasets for at in range(0, len(part), IMAGES)]
    every = product(cases, methods, range(len(parts)))
    jobs = [job for job in every if job[1].cases is None or case_name(job[0]) in job[1].cases]
    jobs = jobs[number - 1 :: count]
    hashes = {at: images_hash(parts[at]) for at in {at for *_, at in jobs}}  # of all their files
    codes = {case: evaluation_hash(case) for case in {case for case, *_ in jobs}}
    rows = [pd.DataFrame()]
    for case, method, at in progress(jobs, "rows"):
        part = parts[at]
        key = cache_key(
            method=(method.name, method.key, method.threshold),
            images=(hashes[at], list(part["image"])),  # the rows name them
            case=(case, seed if case else 0),
            code=codes[case],
        )
        rows.append(cached("rows", key, partial(evaluate, method, part, steps=case, seed=seed)))
    return pd.concat(rows, ignore_index=True)


def pictures(manifest: pd.DataFrame, steps: Case = (), seed: int = 0) -> Iterator[Picture]:
    """Every image of a manifest, uint8 ``(H, W, 3)``, its `edited_truth`, both degraded by the
    steps, and its row, with the columns of a study's manifest where it lacks them."""
    rows = progress(manifest.to_dict("records"), "images")
    for number, row in zip(manifest.index, rows, strict=True):
        image, mask = read_pair(row)
        image, truth = degraded(image, edited_truth(mask, row), steps, seed, number)
        yield image, truth, {"family": row["generator"], "seen": False, "condition": "clean", **row}


def edited_truth(mask: Mask, row: Row) -> Mask:
    """What is edited in an image, bool (H, W), by its mask: not what was only re-encoded."""
    return target(mask, row["kind"], row["background"], "pristine").astype(bool)


def evaluation_hash(steps: Case = ()) -> str:
    """What degrading and scoring make of a probe, for a `cache_key`."""
    image = probe_image(48, 64)
    image, truth = degraded(image, image[..., 0] > image[..., 1], steps, seed=0)
    return probe_hash(image, *score_known(image[..., 2] / 255, 0.5, truth, "fr").values())


def probe_image(height: int, width: int) -> Image:
    """Noise that grows from top to bottom, always the same: uint8 ``(H, W, 3)``."""
    noise = np.random.default_rng(0).uniform(size=(height, width, 3))
    return (255 * noise * np.linspace(0, 1, height)[:, None, None]).astype(np.uint8)


def degraded(
    image: Image, truth: Mask, steps: Sequence[Step], seed: int, number: int = 0
) -> tuple[Image, Mask]:
    """An image and its mask after the steps, whose noise the seed and the image's number decide."""
    drawn = seed * 2**32 + number
    for name, level in steps:
        image, truth = degrade(name, level, image, drawn), degrade_mask(name, level, truth)
    return image, truth


def case_name(steps: Case) -> str:
    """A case in one word: ``none``, ``jpeg=70``, ``resize=0.9+jpeg=60``."""
    return "+".join(f"{name}={level:g}" for name, level in steps) or "none"


def step_columns(steps: Case) -> dict[str, Any]:
    """What rows say of steps: ``degradation`` and ``level`` of the last, ``before`` of the rest."""
    *earlier, (degradation, level) = steps or [("none", float("nan"))]
    before = " + ".join(f"{name} {at:g}" for name, at in earlier) or "none"
    return {"before": before, "degradation": degradation, "level": level}


def benchmark_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The `score_table` by method, family, kind and seen, and over all families, `ALL_FAMILIES`."""
    overall = score_table(rows, ["method"], seed).assign(family=ALL_FAMILIES)
    return with_overall(score_table(rows, ["method", "family", "kind", "seen"], seed), overall)


def by_dataset(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose edits are all of one sort: a table then has one line for each dataset."""
    edited = ~rows["kind"].isin(AUTHENTIC_KINDS)
    return rows.assign(kind=rows["kind"].mask(edited, "all"), seen="all")


def with_overall(table: pd.DataFrame, overall: pd.DataFrame) -> pd.DataFrame:
    """Behind each method's lines that over all of them, whose kind and seen are ``"all"``."""
    overall = overall.assign(kind="all", seen="all")
    both = pd.concat([table.astype({"seen": object}), overall])[table.columns]
    methods = pd.Categorical(both["method"], overall["method"])
    return both.iloc[methods.argsort(kind="stable")].reset_index(drop=True)


def score_table(rows: pd.DataFrame, by: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """A `macro_table` of IoU, F1, AP, best IoU and (pooled) ``micro_iou`` of edited images."""
    forged = rows[~rows["kind"].isin(AUTHENTIC_KINDS)]
    table = macro_table(forged, by, ["iou", "f1", "best_iou", "ap"], seed=seed)
    pixels = forged.groupby(list(by), sort=False, dropna=False)[["tp", "fp", "fn"]].sum()
    return table.assign(micro_iou=(pixels["tp"] / pixels.sum(axis=1)).to_numpy())


def authentic_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """False-positive rate of the pixels of images without an edit, by method and kind."""
    authentic = rows[rows["kind"].isin(AUTHENTIC_KINDS)].dropna(subset="false_positive_rate")
    if authentic.empty:
        return pd.DataFrame(columns=["method", "kind", "false_positive_rate"])
    return macro_table(authentic, ["method", "kind"], "false_positive_rate", seed=seed)


def compare_variants(
    rows: pd.DataFrame,
    by: Sequence[str],
    against: Mapping[str, object],
    seed: int = 0,
    scores: Sequence[str] = ("iou",),
) -> pd.DataFrame:
    """Table of `macro_table`: ``scores`` of every variant and, where nothing is edited, its
    ``false_positive_rate`` (all images count alike). A row is of an image (or crop), variant and
    ``seed``: ``image, group, family``, the scores, ``predicted_area`` and the columns ``by``."""
    table = macro_table(rows[rows["iou"].notna()], by, scores, against, seed=seed)
    unedited = rows[rows["iou"].isna()].drop(columns="family").drop(columns=RATE, errors="ignore")
    if unedited.empty:
        return table
    rates = macro_table(unedited.rename(columns={"predicted_area": RATE}), by, RATE, seed=seed)
    return table.merge(rates[[*by, RATE, f"{RATE}_low", f"{RATE}_high"]], "left", list(by))


def by_generators(rows: pd.DataFrame, unedited: "pd.Series[bool]") -> pd.DataFrame:
    """Rows by ``generators``, seen in training or held out, if they have edits; unedited: both."""
    seen = rows["seen"].astype(bool)
    return pd.concat(
        rows[of | unedited].assign(generators=name)
        for name, of in (("seen", seen), ("held out", ~seen))
        if (of & ~unedited).any()
    )


def leads(
    rows: pd.DataFrame, first: str, second: str = "", by: str = "method", score: str = "iou"
) -> pd.DataFrame:
    """How far a score of one value of ``by`` is above that of another, by default of the next best
    (the highest mean over families), for each image that has both: ``family, group, image, lead``.
    Several rows of an image count by their mean; no rows where nothing else has the score."""
    scores = rows.pivot_table(score, ["family", "group", "image"], by)
    others = scores[[second] if second else scores.columns.drop(first, errors="ignore")]
    best = others.groupby("family").mean().mean()
    if best.empty:
        return pd.DataFrame(columns=["family", "group", "image", "lead"])
    return (scores[first] - scores[best.idxmax()]).dropna().rename("lead").reset_index()


def mean_lead(lead: pd.DataFrame, seed: int = 0) -> Measured:
    """Mean over families of `leads`."""
    return macro_mean(lead["lead"], lead["group"], lead["family"], seed=seed)
