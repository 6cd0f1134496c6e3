"""Tables of the study of labels: of images by `dinolizer.study.experiments.labels.measure`.

Seeds are averaged on each image first; intervals are 95 % of a bootstrap over photographs.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from dinolizer.data.manifest import AUTHENTIC_KINDS
from dinolizer.study.detection import calibration_error
from dinolizer.study.experiments.labels import CLASS_NAMES, THREE, Measured
from dinolizer.study.statistics import bootstrap_interval


def over_seeds(rows: pd.DataFrame, reduce: str = "sum") -> pd.DataFrame:
    """One row for each policy and image: the mean over the seeds."""
    kept = rows[rows["reduce"] == reduce].drop(columns=["seed", "reduce"])
    about = ["method", "image", "group", "family", "kind", "seen"]
    return kept.groupby(about, sort=False).mean().reset_index()


def starred(table: pd.DataFrame) -> list[str]:
    """What the lines of a table are of; an asterisk marks generators that no training has met."""
    names = {"real": "photograph", "reencoded": "re-encoded"}
    return [
        names.get(kind, kind) + ("" if seen else "*")
        for kind, seen in zip(table["kind"], table["seen"], strict=True)
    ]


def localization(rows: pd.DataFrame) -> pd.DataFrame:
    """IoU of the edit by policy, kind and whether the generator was trained on, and over all.

    Returns
    -------
    Columns ``method, kind, seen, n_images, iou, iou_low, iou_high, iou_seeds``: the last is the
    standard deviation over the seeds of the mean over images. Over all, kind and seen are
    ``"all"``. Means are over families of the mean over each one's images.
    """
    forged = rows[~rows["kind"].isin(AUTHENTIC_KINDS) & (rows["reduce"] == "sum")]
    lines = []
    for method, own in forged.groupby("method", sort=False):
        sorts = [*own.groupby(["kind", "seen"], sort=False), (("all", "all"), own)]
        for (kind, seen), part in sorts:
            mean = over_seeds(part)
            low, high = bootstrap_interval(mean["iou"], mean["group"], strata=mean["family"])
            of_seeds = part.groupby(["seed", "family"])["iou"].mean().groupby("seed").mean()
            lines.append(
                {
                    "method": method,
                    "kind": kind,
                    "seen": seen,
                    "n_images": len(mean),
                    "iou": of_seeds.mean(),
                    "iou_low": low,
                    "iou_high": high,
                    "iou_seeds": of_seeds.std(),
                }
            )
    return pd.DataFrame(lines)


def marked_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the pixels of each class that is marked, mean over the images that have any.

    Returns
    -------
    Columns ``method, kind, seen, pixels`` (of `CLASS_NAMES`), ``n_images, share, share_low,
    share_high``. Of inpainted pixels it is the recall, of all others the false-positive rate.
    """
    mean = over_seeds(rows)
    columns = {name: f"marked {name}" for name in CLASS_NAMES}
    groups: Iterable[tuple[object, pd.DataFrame]] = mean.groupby(
        ["method", "kind", "seen"], sort=False
    )
    return pd.DataFrame(
        [
            dict(zip(("method", "kind", "seen"), key, strict=True))  # type: ignore[call-overload]
            | {"pixels": name}
            | _share(part, column)
            for key, part in groups
            for name, column in columns.items()
            if part[column].notna().any()
        ]
    )


def background_excess(rows: pd.DataFrame) -> pd.DataFrame:
    """How much more is marked of fully re-generated backgrounds than of untouched ones.

    Returns
    -------
    Columns ``method, n_photos, regenerated`` (share of the re-encoded pixels of ``fr`` images that
    is marked), ``untouched`` (of the real pixels of ``sp`` images), ``difference, low, high``:
    means over the photographs that have both.
    """
    lines = []
    for method, own in over_seeds(rows).groupby("method", sort=False):
        by_photo = {
            kind: own[own["kind"] == kind].groupby("group")[f"marked {name}"].mean().dropna()
            for kind, name in (("fr", CLASS_NAMES[1]), ("sp", CLASS_NAMES[0]))
        }
        both = pd.DataFrame(by_photo).dropna()
        difference = both["fr"] - both["sp"]
        low, high = bootstrap_interval(difference, both.index)
        lines.append(
            {
                "method": method,
                "n_photos": len(both),
                "regenerated": both["fr"].mean(),
                "untouched": both["sp"].mean(),
                "difference": difference.mean(),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(lines)


def confusion(rows: pd.DataFrame) -> pd.DataFrame:
    """What pixels of each class are called by the three-class head, for seen generators and others.

    Returns
    -------
    Columns ``seen, truth, called, n_images, share, share_low, share_high``: mean over the images
    that have pixels of the true class; the shares of one of them add up to 1.
    """
    mean = over_seeds(rows[rows["method"] == THREE])
    return pd.DataFrame(
        [
            {"seen": seen, "truth": true, "called": called} | _share(part, f"{true} as {called}")
            for seen, part in mean.groupby("seen", sort=False)
            for true in CLASS_NAMES
            if part[f"{true} as {true}"].notna().any()
            for called in CLASS_NAMES
        ]
    )


def calibration(measured: Measured) -> pd.DataFrame:
    """How good the probabilities are, with the logits of overlapping windows added or averaged.

    Returns
    -------
    Columns ``method, reduce, iou`` (mean over families), ``changed`` (share of all pixels that is
    marked otherwise than by the sum), ``ece, ece_low, ece_high`` (expected calibration error) and
    ``brier`` (mean squared error of the probability), over all pixels drawn and all seeds.
    """
    lines = []
    for (method, reduce), said in measured.probability.items():
        truth, groups = (np.tile(each, len(said)) for each in (measured.edited, measured.group))
        ece, low, high = calibration_error(truth, said.ravel(), groups)
        rows = measured.rows
        own = rows[(rows["method"] == method) & (rows["reduce"] == reduce)]
        lines.append(
            {
                "method": method,
                "reduce": reduce,
                "iou": own.groupby("family")["iou"].mean().mean(),
                "changed": own["changed"].mean(),
                "ece": ece,
                "ece_low": low,
                "ece_high": high,
                "brier": brier_score_loss(truth, said.ravel()),
            }
        )
    return pd.DataFrame(lines)


def _share(part: pd.DataFrame, column: str) -> dict[str, float]:
    known = part[part[column].notna()]
    low, high = bootstrap_interval(known[column], known["group"])
    mean = known[column].mean()
    return {"n_images": len(known), "share": mean, "share_low": low, "share_high": high}
