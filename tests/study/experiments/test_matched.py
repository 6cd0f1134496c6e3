"""Maps that are ramps, whose rates can be counted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dinolizer.data.images import write_image
from dinolizer.study.evaluation import Method
from dinolizer.study.experiments.comparisons import matched_rows

SIDE = 40
RAMP = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
METHOD = Method("ramp", lambda image, row: RAMP)


@pytest.fixture
def manifest(tmp_path: Path) -> pd.DataFrame:
    """Of two photographs one image unedited, and one whose lower tenth is edited."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[-4:] = 255
    write_image(tmp_path / "image.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    write_image(tmp_path / "mask.png", mask)
    rows = [
        {"kind": kind, "group": group, "authentic": kind == "real", "background": "real"}
        | {"image": str(tmp_path / "image.png"), "family": "f", "generator": "g"}
        | {"mask": str(tmp_path / "mask.png") if kind == "sp" else ""}
        | {"width": SIDE, "height": SIDE}
        for group in "ab"
        for kind in ("real", "sp")
    ]
    return pd.DataFrame(rows)


def test_rates_are_those_of_unedited_photographs(manifest: pd.DataFrame) -> None:
    """Over its 95 % quantile the ramp has its last twentieth: one half of the edit, all edited."""
    rows, curves = matched_rows([METHOD], manifest)
    assert rows["group"].tolist() == ["a", "b"]
    np.testing.assert_allclose(rows["recall_at_5"], 0.5, atol=0.01)
    np.testing.assert_allclose(rows["iou_at_5"], 0.5, atol=0.01)
    np.testing.assert_allclose(rows["iou_at_1"], 0.1, atol=0.01)
    assert rows["auc"].tolist() == [1, 1]  # all of the edit is over all of the rest
    assert curves["true"].tolist() == [1] * len(curves)


def test_without_other_photographs_there_is_no_threshold(manifest: pd.DataFrame) -> None:
    rows, _ = matched_rows([METHOD], manifest[manifest["group"] == "a"])
    assert rows[["iou_at_1", "recall_at_1", "iou_at_5", "recall_at_5"]].isna().all(axis=None)
    assert rows["auc"].tolist() == [1]
