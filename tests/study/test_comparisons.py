"""Comparisons are of means over families, paired by image, and said as they are."""

import numpy as np
import pandas as pd
import pytest

from dinolizer.study.evaluation import (
    compare_variants,
    leads,
    mean_lead,
)
from dinolizer.study.experiments import generations


def rows_of(variant: str, shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    count = 40
    edited = np.arange(count) % 5 > 0
    frame = pd.DataFrame(
        {
            "variant": variant,
            "kind_of": "k",
            "image": [f"i{number}" for number in range(count)],
            "group": [str(number % 4) for number in range(count)],
            "family": np.where(np.arange(count) < 10, "rare", "frequent"),
            "iou": np.where(edited, rng.random(count) / 2 + shift, np.nan),
            "predicted_area": 0.25 + shift,
        }
    )
    return pd.concat([frame.assign(seed=seed, iou=frame["iou"] + seed / 10) for seed in (0, 1)])


def test_iou_is_macro_and_changes_are_paired() -> None:
    rows = pd.concat([rows_of("a", 0.0), rows_of("b", 0.2)])
    table = compare_variants(rows, ["variant", "kind_of"], {"variant": "a", "kind_of": "k"})
    a, b = (line for _, line in table.iterrows())
    first = rows_of("a", 0.0).dropna()
    families = [first.loc[first["family"] == name, "iou"].mean() for name in ("rare", "frequent")]
    assert a["iou"] == pytest.approx(np.mean(families))
    assert a["n_images"] == 32
    assert a["iou_sd"] == pytest.approx(0.1 / np.sqrt(2))
    assert a["iou_change"] == a["iou_change_low"] == a["iou_change_high"] == 0
    assert [b["iou_change"], b["iou_change_low"], b["iou_change_high"]] == pytest.approx([0.2] * 3)
    assert b["false_positive_rate"] == pytest.approx(0.45)
    assert a["iou_low"] < a["iou"] < a["iou_high"]


def test_the_lead_is_over_the_next_best_of_all_images() -> None:
    # Families x (photos a, b) and y (photo a); "good" is the next best: 0.5 and 0.2 over families.
    ious = {"own": (0.6, 0.8, 0.5), "good": (0.4, 0.6, 0.2), "bad": (0.9, 0.0, 0.0)}
    rows = pd.DataFrame(
        [
            {"method": method, "family": family, "group": group, "image": image, "iou": iou}
            for method, values in ious.items()
            for (family, group, image), iou in zip(
                [("x", "a", "1"), ("x", "b", "2"), ("y", "a", "3")], values, strict=True
            )
        ]
    )
    found = leads(rows, "own")
    assert found["lead"].tolist() == pytest.approx([0.2, 0.2, 0.3])
    assert mean_lead(found)[0] == pytest.approx((0.2 + 0.3) / 2)


def test_the_difference_of_two_backbones_is_of_the_same_crops() -> None:
    """By hand: family f: 0.5 - 0.2 and 0.3 - 0.4, mean 0.1; family g: 0.4; over both 0.25."""
    lines = [("f", "a", "1", 0.5, 0.2), ("f", "b", "2", 0.3, 0.4), ("g", "a", "3", 0.9, 0.5)]
    rows = pd.DataFrame(
        [
            {"family": family, "group": group, "image": image, "backbone": name, "iou": iou}
            | {"seed": 0, "predicted_area": 0.0}
            for family, group, image, *ious in lines
            for name, iou in zip(("v2", "v3"), ious, strict=True)
        ]
    )
    assert mean_lead(leads(rows, "v2", "v3", by="backbone"))[0] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bfree", "forensic"),
        ("pocket", "forensic"),
        ("dinov2-base", "generic"),
        ("dinov3-large", "generic"),
        ("untrained-bfree", "untrained"),
    ],
)
def test_what_a_backbone_was_trained_for(name: str, kind: str) -> None:
    assert generations.pretraining(name) == kind
