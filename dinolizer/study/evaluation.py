"""From a manifest and a method to rows, one per image, and from rows to tables with intervals.

Rows hold counts and scores of single images; every table is made from rows, so that a table can
be made again, or cut another way, without running a method again.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dinolizer.data.degradations import Step, degrade, degrade_mask
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_pair, target
from dinolizer.errors import InputError
from dinolizer.study.metrics import (
    Counts,
    bootstrap_interval,
    counts,
    image_scores,
    macro_mean,
    ranking_scores,
)

Row = Mapping[Hashable, Any]
Predict = Callable[[NDArray[np.uint8], Row], NDArray[np.floating]]
"""Takes an image, uint8 (H, W, 3), and its row of the manifest; gives a map, float (H, W)."""
Method = tuple[Predict, float | Mapping[str, float]]
"""What gives the maps, and the threshold: one for all images, or one for each group."""

ALL_FAMILIES = "all families"
AUTHENTIC_COLUMNS = (
    *("method", "kind", "n_images", "marked", "marked_low", "marked_high"),
    *("auc", "balanced_accuracy"),
)
SCORE_PERCENTILE = 99  # an image's score: forged, by it, when over 1 % of the pixels are marked


def score_image(
    values: NDArray[np.floating],
    threshold: float,
    truth: NDArray[np.bool_],
    *,
    ranking: bool = True,
) -> dict[str, float]:
    """Score one map.

    Parameters
    ----------
    values : float (H, W), higher = more suspicious.
    threshold : a pixel is marked when its value is ``>`` the threshold.
    truth : bool (H, W); empty for an authentic image.
    ranking : whether to compute ``best_iou`` and ``ap`` too, which sort all pixels; else nan.

    Returns
    -------
    ``tp, fp, fn, tn, iou, f1, best_iou, ap, marked, score``; see `dinolizer.study.metrics`.
    """
    found = counts(values > threshold, truth)
    ap, best_iou = ranking_scores(values, truth) if ranking else (float("nan"), float("nan"))
    return {
        **vars(found),
        "iou": found.iou,
        "f1": found.f1,
        "best_iou": best_iou,
        "ap": ap,
        "marked": found.marked,
        "score": float(np.percentile(values, SCORE_PERCENTILE)),
    }


def evaluate(
    method: str,
    predict: Predict,
    manifest: pd.DataFrame,
    threshold: float | Mapping[str, float],
    *,
    steps: Sequence[Step] = (),
    seed: int = 0,
    ranking: bool = True,
) -> pd.DataFrame:
    """Run a method on every image of a manifest.

    Parameters
    ----------
    method : its name in the tables.
    predict : gives an image's map; in cross-fitting, by the head that never saw ``row["group"]``.
    manifest : see `dinolizer.data.manifest`; the columns ``family`` (by default the generator),
        ``seen`` (the family was trained on), ``grain`` (matched) and ``condition`` are used where
        there are any. The number of an image, which with the seed decides its noise, is that of
        its row in the index: a part of a manifest gives the rows that the whole does.
    threshold : one for all images, or one for each group.
    steps : degradations applied to each image first, in this order, see
        `dinolizer.data.degradations.degrade`; `step_columns` names them in the rows.
    seed : of the degradations.
    ranking : see `score_image`.

    Returns
    -------
    A row per image: where it comes from, the counts and scores of `score_image`, and the seconds
    that ``predict`` took.
    """
    methods: dict[str, Method] = {method: (predict, threshold)}
    return evaluate_all(methods, manifest, steps=steps, seed=seed, ranking=ranking)


def evaluate_all(
    methods: Mapping[str, Method],
    manifest: pd.DataFrame,
    *,
    steps: Sequence[Step] = (),
    seed: int = 0,
    ranking: bool = True,
) -> pd.DataFrame:
    """Run several methods, as `evaluate` does one; each image is read and degraded only once."""
    rows = []
    for number, row in zip(manifest.index, manifest.to_dict("records"), strict=True):
        image, mask = read_pair(row)
        truth = edited_truth(mask, row)
        for name, at in steps:
            image = degrade(name, at, image, seed * 2**32 + number)
            truth = degrade_mask(name, at, truth)
        for method, (predict, threshold) in methods.items():
            begin = time.perf_counter()
            values = predict(image, row)
            seconds = time.perf_counter() - begin
            limit = threshold if isinstance(threshold, float | int) else _of_group(threshold, row)
            rows.append(
                {
                    "method": method,
                    "image": row["image"],
                    "group": row["group"],
                    "family": row.get("family", row["generator"]),
                    "kind": row["kind"],
                    "seen": row.get("seen", False),
                    "grain": row.get("grain", False),
                    "condition": row.get("condition", "clean"),
                    **step_columns(steps),
                    "threshold": limit,
                    **score_image(values, limit, truth, ranking=ranking),
                    "seconds": seconds,
                }
            )
    return pd.DataFrame(rows)


def step_columns(steps: Sequence[Step]) -> dict[str, Any]:
    """How rows name what was done to an image: ``degradation`` and ``level``, the last step, and
    ``before``, the steps before it; ``"none"`` and nan where there is none."""
    *earlier, (degradation, level) = steps or [("none", float("nan"))]
    before = " + ".join(f"{name} {at:g}" for name, at in earlier) or "none"
    return {"before": before, "degradation": degradation, "level": level}


def edited_truth(mask: NDArray[np.bool_], row: Row) -> NDArray[np.bool_]:
    """What is edited in an image, bool (H, W), of its mask: not what was only re-encoded."""
    return target(mask, row["kind"], row["background"], "pristine").astype(bool)


def summarise(rows: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Make the benchmark's table: a line per method, family and kind, and one over all families.

    Over all families the mean is over the families of the mean over each one's images, and the
    interval is of that statistic; ``micro_iou`` pools the pixels.

    Parameters
    ----------
    rows : of `evaluate`, of one or more methods; authentic images are left out.
    seed, resamples : of the bootstrap over photographs; intervals are 95 %.

    Returns
    -------
    Columns ``method, family, kind, seen, n_images, iou, iou_low, iou_high, f1, f1_low, f1_high,
    micro_iou, best_iou, ap``. In the lines over all families kind and seen are ``"all"``.
    """
    families = _table(rows, ["method", "family", "kind", "seen"], seed, resamples)
    overall = _table(rows, ["method"], seed, resamples)
    overall = overall.assign(family=ALL_FAMILIES, kind="all", seen="all")
    table = pd.concat([families.astype({"seen": object}), overall])[families.columns]
    order = {method: place for place, method in enumerate(rows["method"].unique())}
    return table.iloc[np.argsort(table["method"].map(order), kind="stable")].reset_index(drop=True)


def summarise_conditions(rows: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """As the lines over all families of `summarise`, per condition and matched grain or not."""
    return _table(rows, ["method", "condition", "grain"], seed, resamples)


def summarise_robustness(rows: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """As the lines over all families of `summarise`, per degradation, level and steps before."""
    return _table(rows, ["method", "before", "degradation", "level"], seed, resamples)


def summarise_authentic(rows: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Make the table of what happens where nothing was edited.

    Returns
    -------
    A line per method and authentic kind, none without such images: ``n_images``; ``marked``, the
    mean share of pixels marked, with ``marked_low, marked_high``; and ``auc, balanced_accuracy`` of
    telling these images from the method's forged ones by their scores, at the method's own
    threshold.
    """
    lines = []
    authentic_kind = rows["kind"].isin(AUTHENTIC_KINDS)
    for (method, kind), authentic in rows[authentic_kind].groupby(["method", "kind"], sort=False):
        both = pd.concat([authentic, rows[~authentic_kind & (rows["method"] == method)]])
        low, high = bootstrap_interval(
            authentic["marked"], authentic["group"], seed=seed, resamples=resamples
        )
        auc, accuracy = image_scores(
            both["score"], ~both["kind"].isin(AUTHENTIC_KINDS), both["score"] > both["threshold"]
        )
        lines.append(
            {
                "method": method,
                "kind": kind,
                "n_images": len(authentic),
                "marked": authentic["marked"].mean(),
                "marked_low": low,
                "marked_high": high,
                "auc": auc,
                "balanced_accuracy": accuracy,
            }
        )
    return pd.DataFrame(lines, columns=AUTHENTIC_COLUMNS)


def _table(rows: pd.DataFrame, by: list[str], seed: int, resamples: int) -> pd.DataFrame:
    """Summarise the forged rows, a line for each value of the named columns, in their order."""
    forged = rows[~rows["kind"].isin(AUTHENTIC_KINDS)]
    if forged.empty:
        raise InputError("There are no rows of forged images to summarise; evaluate some first.")
    groups: Iterable[tuple[Any, pd.DataFrame]] = forged.groupby(by, sort=False, dropna=False)
    return pd.DataFrame(
        [
            {**dict(zip(by, key, strict=True)), **_summary(group, seed, resamples)}
            for key, group in groups
        ]
    )


def _summary(rows: pd.DataFrame, seed: int, resamples: int) -> dict[str, float]:
    """Means over families first, with intervals for the two scores at the fixed threshold."""
    means = rows.groupby("family")[["best_iou", "ap"]].mean().mean()
    line: dict[str, float] = {"n_images": len(rows)}
    for score in ("iou", "f1"):
        mean, low, high = macro_mean(
            rows[score], rows["family"], rows["group"], seed=seed, resamples=resamples
        )
        line |= {score: mean, f"{score}_low": low, f"{score}_high": high}
    pooled = Counts(*(int(rows[name].sum()) for name in ("tp", "fp", "fn", "tn")))
    return line | {"micro_iou": pooled.iou, "best_iou": means["best_iou"], "ap": means["ap"]}


def _of_group(thresholds: Mapping[str, float], row: Row) -> float:
    if row["group"] not in thresholds:
        raise InputError(
            f"There is no threshold for the photo {row['group']!r}, only for "
            f"{', '.join(sorted(thresholds))}; give one for each photo of the manifest."
        )
    return thresholds[row["group"]]
