"""What `dinolizer score` writes, against scikit-learn on masks that `dinolizer localize` writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score
from trees import make_autosplice
from typer.testing import CliRunner, Result

from dinolizer.cli import app
from dinolizer.data.datasets import make_manifest
from dinolizer.data.manifest import read_manifest, read_pair, write_manifest

FILES = {
    *("scores.csv", "authentic-scores.csv", "detection-scores.csv", "image-scores.csv"),
    *("scores.png", "scores.json"),
}


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, each with edits."""
    folder = tmp_path_factory.mktemp("score")
    make_autosplice(folder / "AutoSplice", number=3, side=96)
    make_manifest("autosplice", folder / "AutoSplice", folder / "list.csv")
    return folder / "list.csv"


@pytest.fixture
def maps(manifest: Path, tmp_path: Path) -> Path:
    """What another method drew: the truth, and as much again beside it."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for row in read_manifest(manifest).to_dict("records"):
        _, mask = read_pair(row)
        drawn = np.concatenate([mask, np.zeros_like(mask)], axis=1)[:, : mask.shape[1]]
        np.save(folder / f"{Path(row['image']).stem}.npy", 9 * drawn.astype(np.uint8))
    (folder / "peer.yaml").write_text("name: Peer\npolarity: high = edited\nrange: [0, 9]\n")
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, words)])


def test_a_model_scores_as_its_masks_do(manifest: Path, tmp_path: Path) -> None:
    done = run(manifest, "--model", "pocket", "--out", tmp_path / "scores")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "scores").iterdir()} == FILES
    rows = pd.read_csv(tmp_path / "scores/image-scores.csv").set_index("image")
    frame = read_manifest(manifest)
    assert set(rows.index) == set(frame["image"])
    ious, marked = [], []
    words = ["localize", *frame["image"], "--model", "pocket", "--out", str(tmp_path / "masks")]
    assert CliRunner().invoke(app, words).exit_code == 0
    for row in frame.to_dict("records"):
        mask = np.array(Image.open(tmp_path / f"masks/{Path(row['image']).stem}.mask.png")) > 0
        _, truth = read_pair(row)
        marked += [mask.mean()] if row["authentic"] else []
        ious += [] if row["authentic"] else [jaccard_score(truth.ravel(), mask.ravel())]
    table = pd.read_csv(tmp_path / "scores/scores.csv")
    assert table["family"].tolist() == ["dall-e-2", "mean of all"]
    assert table["iou"].to_numpy() == pytest.approx(2 * [np.mean(ious)], abs=1e-5)
    unedited = pd.read_csv(tmp_path / "scores/authentic-scores.csv")
    assert unedited["false_positive_rate"].tolist() == pytest.approx([np.mean(marked)], abs=1e-5)
    assert f"{np.mean(ious):.2f}" in done.stdout
    assert json.loads((tmp_path / "scores/scores.json").read_text())["model"]["model"] == "pocket"
    again = run(manifest, "--model", "pocket", "--out", tmp_path / "scores")
    assert again.exit_code == 1 and "scores.csv is there already" in again.stderr


def test_maps_are_scored_by_themselves_and_beside_a_model(
    manifest: Path, maps: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    for words, methods in (([], ["Peer"]), (["--model", "pocket"], ["pocket", "Peer"])):
        done = run(manifest, "--maps", maps, *words, "--out", out, "--overwrite")
        assert done.exit_code == 0, done.output
        table = pd.read_csv(out / "scores.csv")
        assert list(table["method"].unique()) == methods
        assert set(table.loc[table["method"] == "Peer", "iou"]) == {1}
        assert pd.read_csv(out / "image-scores.csv")["method"].value_counts().nunique() == 1


def test_too_few_photographs_are_told(manifest: Path, maps: Path, tmp_path: Path) -> None:
    frame = read_manifest(manifest)
    few = frame[frame["group"] != frame["group"].min()]
    write_manifest(few[~few["authentic"]], tmp_path / "few.csv")
    done = run(tmp_path / "few.csv", "--maps", maps, "--out", tmp_path / "scores")
    assert done.exit_code == 0, done.output
    assert "Intervals need 3 photographs" in done.stderr and "are of 2" in done.stderr
    table = pd.read_csv(tmp_path / "scores/scores.csv")
    assert table["iou"].notna().all() and table["iou_low"].isna().all()
    assert pd.read_csv(tmp_path / "scores/detection-scores.csv").empty


def test_what_cannot_be_scored_is_one_sentence(
    manifest: Path, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores"
    done = run(manifest, "--maps", maps, "--split", "train", "--out", out)
    assert done.exit_code == 1 and "its splits with edited images: test." in done.stderr
    for module in ("scoring", "figures"):
        monkeypatch.delitem(sys.modules, f"dinolizer.study.{module}", raising=False)
        monkeypatch.delattr(f"dinolizer.study.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "seaborn", None)  # as if not installed
    done = run(manifest, "--maps", maps, "--out", out)
    line = "'dinolizer score' needs seaborn, which is not installed; run: pip install 'dinolizer"
    assert done.exit_code == 1 and f"{line}[study]'\n" in done.stderr
    assert not out.exists()
