"""The paper's profile, end to end, on miniatures of the datasets and of the checkpoint.

What a user would do at the shell is done in this process: a manifest of every dataset, the
checkpoint, the jobs, every notebook. Only the spec of B-Free is made small (one block of 32 values,
windows of 56 pixels), and so is an untrained DINOv3, which takes part in place of one from the hub:
the hub is not asked, and a DINOv2 from there is reported as not run.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import timm
import trees
import yaml
from checkpoints import build_small_bfree, randomize, save_bfree
from execution import execute, miniature
from safetensors import safe_open
from test_workflow import declared, files

from dinolizer.data.datasets import make_manifest
from dinolizer.data.manifest import generator_family, read_manifest
from dinolizer.model.published import fetch
from dinolizer.model.specs import BACKBONES
from dinolizer.paths import PROFILES, read_checked
from dinolizer.study.experiments import cost
from dinolizer.study.methods import BASELINES
from dinolizer.study.parameters import parameters_for
from dinolizer.study.setup import compute_rows, prepare

DATASETS = ("bfree", "tgif", "cocoglide", "sagid", "btb", "brgen", "opensdi", "autosplice")
NOTEBOOKS = [name for name, made in declared().items() if made.get("only", "paper") == "paper"]
SIDE = 84
ROTARY = "untrained-dinov3-base"


def small_rotary() -> object:
    return timm.create_model(
        "vit_base_patch16_dinov3",
        img_size=56,
        patch_size=7,
        num_classes=0,
        depth=2,
        embed_dim=32,
        num_heads=2,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Datasets, profile, cache and results, after the jobs that compute rows."""
    folder = tmp_path_factory.mktemp("paper")
    with miniature(folder) as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
        for name in ("bfree", "untrained-bfree"):
            small = replace(BACKBONES[name], architecture=build_small_bfree, window=56, stride=28)
            patch.setitem(BACKBONES, name, small)
        small = replace(BACKBONES[ROTARY], architecture=small_rotary, patch=7, window=56, stride=28)
        patch.setitem(BACKBONES, ROTARY, small)
        save_bfree(folder / "model_epoch_best.pth", randomize(build_small_bfree()))
        fetch("bfree", folder / "model_epoch_best.pth")
        for name in DATASETS:
            source = trees.MAKERS[name](folder / "datasets" / name, side=SIDE)
            make_manifest(name, source, folder / f"{name}.csv")
        write_profile(folder)
        prepare(folder / "paper.yaml")
        for number in (1, 2):
            compute_rows(folder / "paper.yaml", number, 2)
        (folder / "computed").touch()
        patch.setattr(cost, "LARGE", 2 * SIDE)
        yield folder


def write_profile(folder: Path) -> None:
    """The profile, with what is too large or absent here replaced."""
    profile = yaml.safe_load((PROFILES / "paper.yaml").read_text())
    for split in ("train", "test"):
        profile[split] = [str(folder / Path(path).name) for path in profile[split]]
    profile |= {"pair": ["bfree", ROTARY], "steps": 2, "images": 40, "epochs": 5, "seeds": 2}
    profile["families"] = ["sd2"]
    (folder / "paper.yaml").write_text(yaml.safe_dump(profile))


Run = Callable[[str], Path]
"""Executes the notebook of that name, if it was not yet, and gives the folder of the results."""


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DINOLIZER_RESULTS", str(folder / "results"))

    def run(name: str) -> Path:
        marker, notebook = folder / name, PROFILES.parent / f"{name}.ipynb"
        if name == "00-quickstart":
            run("02-train-head")  # the profile says that the quickstart uses its head
        if not marker.exists():
            execute(notebook, parameters_for(notebook, folder / "paper.yaml"))
            marker.touch()
        return folder / "results" / "paper"

    return run


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_makes_what_the_workflow_says(name: str, run: Run) -> None:
    made = {path.name: path for path in run(name).rglob(f"{name[:2]}-*")}
    expected = [Path(file).name for file in files(declared()[name]) if "heads/" not in file]
    assert [file for file in expected if file not in made] == []
    for file in expected:
        if file.endswith(".json"):
            assert "Profile: paper." in made[file].read_text()
            assert "demonstration" not in made[file].read_text()


def test_every_dataset_is_in_the_benchmark(folder: Path, run: Run) -> None:
    """Counted anew from the manifests: the edited test images of each dataset, and of each family
    of generators and kind."""
    listed = yaml.safe_load((PROFILES / "paper.yaml").read_text())["test"]
    assert {Path(path).stem for path in listed} == set(DATASETS) - {"bfree"}
    images = pd.concat([read_manifest(folder / Path(path).name) for path in listed])
    edited = images[(images["split"] == "test") & ~images["authentic"]]
    tables = run("03-benchmark") / "tables"
    table = pd.read_csv(tables / "03-benchmark.csv")
    own = table[table["method"].eq("DinoLizer (paper)")].set_index("family")
    *datasets, mean = own.index
    assert own.loc[datasets, "n_images"].to_dict() == edited.groupby("dataset").size().to_dict()
    assert own.loc[mean, "n_images"] == len(edited)
    assert own.loc[mean, "ap"] == pytest.approx(own.loc[datasets, "ap"].mean(), abs=2e-3)
    assert table["method"].nunique() == 1 + len(BASELINES)
    assert own["iou"].between(0, 1).all()
    lines = pd.read_csv(tables / "03-generators.csv").query("method == 'DinoLizer (paper)'")
    made = edited["generator"].map(generator_family)
    expected = edited.groupby([made, "kind"]).size().to_dict()
    assert lines.set_index(["generator", "kind"])["n_images"].to_dict() == expected
    assert expected["sd2", "fr"] == expected["sd2", "sp"] == 4  # of TGIF: two photos, two masks


def test_the_head_is_a_linear_one_of_the_checkpoint(run: Run) -> None:
    with safe_open(run("02-train-head") / "heads" / "bfree.safetensors", "pt") as head:
        shapes = [tuple(head.get_tensor(name).shape) for name in head.keys()]  # noqa: SIM118
        assert sorted(shapes) == [(1,), (1, 32, 1, 1)]
        assert '"bfree"' in head.metadata()["backbone"]


def test_a_wide_stride_lays_fewer_windows(run: Run) -> None:
    table = pd.read_csv(run("09-cost") / "tables" / "09-strides.csv").set_index("stride")
    # The smallest mosaic has 168 pixels a side: every 28 at 0, 28, 56, 84 and 112; side by side 3.
    assert table.loc[28, "passes"] >= 5**2 > 3**2 <= table.loc[56, "passes"]
    assert table["iou"].between(0, 1).all()


def test_jobs_compute_every_row_and_the_notebooks_none(folder: Path, run: Run) -> None:
    run("03-benchmark")
    run("04-robustness")
    files = [*(folder / "cache" / "rows").iterdir()]
    computed = (folder / "computed").stat().st_mtime_ns
    assert max(path.stat().st_mtime_ns for path in files) <= computed
    rows = pd.concat([pd.read_parquet(io.BytesIO(read_checked(path))) for path in files])
    # Of the benchmark: every test image, by each of the methods; and of the robustness study as
    # many as after any of its degradations.
    images = pd.concat([read_manifest(folder / f"{name}.csv") for name in DATASETS[1:]])
    plain = rows[rows["degradation"] == "none"]
    again = (rows["degradation"] == "webp") & (rows["level"] == 60)
    tested = plain["image"].isin(images["image"])
    methods = 1 + len(BASELINES)
    assert (
        tested.sum() == methods * (images["split"] == "test").sum() + again.sum() > again.sum() > 0
    )
    # And of training's unedited images, by the baselines, which are cut by them.
    assert (~tested).sum() == len(BASELINES) * (
        read_manifest(folder / "bfree.csv")["kind"] == "real"
    ).sum()
