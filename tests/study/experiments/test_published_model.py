"""The third party's rows give its published aggregates; our rows are made and compared as said."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkpoints import (
    build_small_release,
    make_release,
    randomize,
    release_state,
    save_release,
)
from sklearn.metrics import roc_auc_score
from small import small_localizer
from trees import make_cocoglide

from dinolizer.data.datasets import make_manifest
from dinolizer.data.images import read_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.model.published import fetch
from dinolizer.model.specs import BACKBONES
from dinolizer.paths import ROOT
from dinolizer.study import evaluation
from dinolizer.study.experiments import published_model as model

ROWS = model.read_rows()


def test_the_aggregates_are_the_published_ones() -> None:
    """The numbers that the third party published with its rows, in all their digits."""
    table = model.aggregates(ROWS)
    values = table.pivot(index="half", columns="measure", values="value").round(4)
    names = ["macro IoU", "macro F1", "micro IoU", "image AUC"]
    assert values.loc["calibration", names].tolist() == [0.7441, 0.8246, 0.7851, 0.9891]
    names += ["sensitivity", "specificity"]
    assert values.loc["validation", names].tolist() == [
        *(0.7502, 0.8247, 0.7998, 0.9835),
        *(0.9375, 0.9531),
    ]
    lines = table[table["half"] == "validation"].set_index("measure")
    # Its own intervals, made by another bootstrap.
    for name, ends in {
        "macro IoU": (0.7196, 0.7795),
        "macro F1": (0.7954, 0.8522),
        "image AUC": (0.9745, 0.9912),
    }.items():
        assert lines.loc[name, ["low", "high"]].tolist() == pytest.approx(ends, abs=0.005)
    for half, part in ROWS.groupby("split"):
        auc = roc_auc_score(part["edited"], part["score"])
        assert values.loc[half, "image AUC"] == round(auc, 4)


def test_scores_by_size_are_the_published_ones() -> None:
    """The ranges over the two halves, as published."""
    table = model.by_size(ROWS).round(2)
    halves = table[table["half"] != "both"].groupby("to")
    for name, ranges in {
        "sensitivity": [(0.56, 0.57), (0.84, 0.91), (0.93, 0.96), (1, 1)],
        "iou": [(0.37, 0.50), (0.64, 0.72), (0.70, 0.71), (0.79, 0.81)],
    }.items():
        found = halves[name].agg(["min", "max"]).head(4)
        assert list(found.itertuples(index=False, name=None)) == ranges
    assert table.groupby("half")["n_images"].sum().tolist() == [512, 256, 256]
    assert (table["sensitivity_low"] < table["sensitivity"]).all()
    assert (table["sensitivity_low"] > 0).all()


def test_the_halves_follow_from_the_ids() -> None:
    ids = ROWS["coco_id"].unique()

    def digest(number: int) -> str:
        return hashlib.sha256(f"diffdetect-cocoglide-v1:{number:012d}".encode()).hexdigest()

    calibration = set(sorted(ids, key=digest)[:256])
    assert len(ids) == 512
    assert set(ROWS.loc[ROWS["split"] == "calibration", "coco_id"]) == calibration


def test_counts_and_shares_of_a_row_agree() -> None:
    shares = ROWS[["predicted_area", "area"]].to_numpy()
    fn, fp, tp = (ROWS[name].to_numpy() for name in ("fn", "fp", "tp"))
    np.testing.assert_allclose(shares, np.stack([tp + fp, tp + fn], 1) / 256**2, atol=1e-6)
    edits = ROWS[ROWS["edited"]]
    union = edits[["tp", "fp", "fn"]].sum(axis=1)
    np.testing.assert_allclose(edits["iou"], edits["tp"] / union, atol=1e-6)
    assert ROWS.loc[~ROWS["edited"], ["iou", "f1", "recall"]].isna().all(axis=None)


def test_a_size_of_a_window_is_that_of_the_image_enlarged() -> None:
    table = model.sizes_at_half(ROWS).set_index(["of", "rule"])["size"]
    for rule in model.RULES.values():
        assert table["window", rule] == pytest.approx(table["image", rule] * 4.06, rel=1e-3)
    # Over half of the smallest edits are detected: the size lies below them.
    assert table["image"].max() < ROWS.loc[ROWS["edited"], "area"].min()


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CocoGlide in miniature, three photographs, two of which the third party has."""
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "cocoglide.csv"
    make_manifest("cocoglide", make_cocoglide(tmp_path / "CocoGlide"), file)
    known = ROWS.head(4).assign(group=[*[f"coco-{7000:012}"] * 2, *[f"coco-{6999:012}"] * 2])
    monkeypatch.setattr(model, "read_rows", lambda: known)
    return file


def test_images_are_those_that_the_third_party_has(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(model.shared_images(str(manifest))["group"]) == sorted(model.read_rows()["group"])
    assert set(model.shared_images(str(manifest), 1)["group"]) == {f"coco-{6999:012}"}
    monkeypatch.setattr(model, "read_rows", lambda: ROWS)
    with pytest.raises(InputError, match="no photograph of CocoGlide"):
        model.shared_images(str(manifest))
    with pytest.raises(InputError, match=r"no manifest none\.csv; make it with 'dinolizer fetch"):
        model.shared_images("none.csv")


def test_our_rows_are_scored_by_hand_and_an_interrupted_run_goes_on(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    localizer, _ = small_localizer(reduce="mean", classes=3)
    table = read_manifest(manifest)
    mapped: list[str] = []
    plain = Localizer.__call__

    def counted(self: Localizer, image: np.ndarray) -> Localization:
        if image.shape[0] == 64:  # the probe is of 56 pixels
            mapped.append("")
            if len(mapped) == 5:
                raise KeyboardInterrupt
        return plain(self, image)

    monkeypatch.setattr(Localizer, "__call__", counted)
    monkeypatch.setattr(evaluation, "IMAGES", 2)
    with pytest.raises(KeyboardInterrupt):
        model.our_rows(localizer, table)
    rows = model.our_rows(localizer, table)
    assert len(mapped) == 7  # four kept, the fifth twice, the sixth
    assert rows["group"].tolist() == table["group"].tolist()
    for row, (_, about) in zip(rows.to_dict("records"), table.iterrows(), strict=True):
        result = plain(localizer, about["image"])
        assert row["score"] == pytest.approx(np.quantile(result.probability, 0.99), abs=1e-6)
        assert row["edited"] == (not about["authentic"])
        if row["edited"]:
            truth = read_image(about["mask"])[..., 0] > 127
            hits, either = (result.mask & truth).sum(), (result.mask | truth).sum()
            assert row["iou"] == pytest.approx(hits / either)


@pytest.mark.parametrize(("change", "within"), [(0.009, True), (0.011, False)])
def test_reproduced_means_within_the_tolerance(change: float, within: bool) -> None:
    names = ["score", "iou"]
    ours = {f"{name}_ours": ROWS[name] + change for name in names}
    ours["iou_ours"] = ours["iou_ours"].where(ROWS.index != ROWS.index[1], ROWS["iou"] + 0.3)
    table = model.compared(ROWS.assign(**ours)).set_index("measure")
    assert table["within"].tolist() == [within, within, True]  # a shift moves no AUC
    assert table.loc["image score", "difference"] == pytest.approx(change)
    assert table["n_images"].tolist() == [1024, 512, 1024]
    assert table.loc["macro IoU", "worst"] == pytest.approx(0.3)
    shuffled = ROWS.assign(score_ours=1 - ROWS["score"], iou_ours=ROWS["iou"])
    assert not model.compared(shuffled)["within"].iloc[2]


def test_the_notebook_runs_the_released_model_and_compares(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells of our own run, in this process: in a kernel the model could not be small."""
    small = replace(BACKBONES["dinolizer"], architecture=build_small_release, window=56, stride=14)
    monkeypatch.setitem(BACKBONES, "dinolizer", small)
    state = release_state(make_release(randomize(build_small_release())))
    fetch("dinolizer", save_release(manifest.with_name("release.ckpt"), state))
    cells = json.loads((ROOT / "notebooks" / "10-published-model.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    parameters, imports, rows, *others = sources
    names = {"cocoglide": str(manifest), "limit": 1}
    namespace: dict[str, object] = {}
    for source in (parameters, *(f"{name} = {value!r}" for name, value in names.items())):
        exec(source, namespace)
    ours = [source for source in others if source.startswith("if cocoglide")]
    assert len(ours) == 4
    for source in (imports, rows, *ours):
        exec(source, namespace)
    assert "2 images on" in capsys.readouterr().out
    results = namespace["results"].folder
    table = pd.read_csv(results / "tables" / "10-comparison.csv")
    assert table["measure"].tolist() == list(model.TOLERANCES)
    assert table["n_images"].tolist() == [2, 1, 2]
    record = json.loads((results / "figures" / "10-comparison.json").read_text())
    assert {"backbone dinolizer", "head"} <= record["sources"].keys()
