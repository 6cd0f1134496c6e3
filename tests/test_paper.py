"""The paper's profile, end to end, on miniatures of the datasets and of the checkpoint.

A copy of the checkout runs as a user would: a manifest of every dataset, the checkpoint, snakemake.
Only the rows of B-Free are made small in the copy (one block of 32 values, windows of 56 pixels),
and so is an untrained DINOv3, which takes part in place of one from the hub: the hub is not asked,
and a DINOv2 from there is reported as not run. One of the two jobs that compute rows kills itself
once.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import trees
import yaml
from checkpoints import build_small_bfree, randomize, save_bfree

from dinolizer.data.manifest import read_manifest
from dinolizer.paths import ROOT

SMALL = """

for name in ("bfree", "untrained-bfree"):
    BACKBONES[name] = replace(
        BACKBONES[name],
        architecture=lambda: timm.create_model(
            "vit_base_patch14_reg4_dinov2",
            img_size=56,
            num_classes=1,
            depth=1,
            embed_dim=32,
            num_heads=2,
        ),
        window=56,
        stride=28,
    )
name = "untrained-dinov3-base"
BACKBONES[name] = replace(
    BACKBONES[name],
    architecture=lambda: timm.create_model(
        "vit_base_patch16_dinov3", img_size=64, num_classes=0, depth=2, embed_dim=32, num_heads=2
    ),
    window=64,
    stride=32,
)
"""
# The command itself; the first job for shard 1 kills itself when it has computed three parts.
WORKER = """#!{python}
import os, signal, sys
from pathlib import Path
from dinolizer.cli import app
if sys.argv[1:2] == ["evaluate"] and "1/2" in sys.argv and not Path("killed").exists():
    from dinolizer.study.jobs import Part
    compute, left = Part._compute, iter(range(3))
    def compute_or_die(part):
        if next(left, None) is None:
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(part)
    Part._compute = compute_or_die
app()
"""
DATASETS = ("bfree", "tgif", "cocoglide", "sagid", "btb", "brgen", "opensdi", "autosplice")
SIDE = 84


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy, after the run of the profile."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("dinolizer", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "bulk.smk"):
        shutil.copy(ROOT / name, folder)
    with (folder / "dinolizer" / "model" / "specs.py").open("a") as specs:
        specs.write(SMALL)
    worker = folder / "bin" / "dinolizer"
    worker.parent.mkdir()
    worker.write_text(WORKER.format(python=sys.executable))
    worker.chmod(0o755)
    save_bfree(folder / "model_epoch_best.pth", randomize(build_small_bfree()))
    run(folder, "dinolizer", "fetch", "bfree", "--from-file", "model_epoch_best.pth")
    for name in DATASETS:
        source = trees.MAKERS[name](folder / "datasets" / name, side=SIDE)
        run(folder, "dinolizer", "manifest", name, str(source), "-o", f"data/{name}.csv")
    profile = "notebooks/profiles/paper.yaml"
    text = (folder / profile).read_text()
    pair = 'pair: ["dinov2-base", "dinov3-base"]'
    assert pair in text
    text = text.replace(pair, 'pair: ["bfree", "untrained-dinov3-base"]').replace("steps: 500", "")
    (folder / profile).write_text(text)
    run(folder, "snakemake", "--cores", "2", "--configfile", profile)
    return folder


def run(folder: Path, module: str, *arguments: str) -> None:
    programs = (folder / "bin", Path(sys.executable).parent, os.environ["PATH"])
    environment = os.environ | {
        "PATH": os.pathsep.join(map(str, programs)),
        "PYTHONPATH": str(folder),  # the copy and not the installed package
        "DINOLIZER_CACHE": str(folder / "cache"),
        "DINOLIZER_RESULTS": str(folder / "results"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
    }
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_dataset_is_in_the_benchmark(checkout: Path) -> None:
    """Counted anew from the manifests: the edited test images of each family and kind."""
    listed = yaml.safe_load((checkout / "notebooks/profiles/paper.yaml").read_text())["test"]
    assert {Path(path).stem for path in listed} == set(DATASETS) - {"bfree"}
    images = pd.concat([read_manifest(checkout / path) for path in listed])
    edited = images[(images["split"] == "test") & ~images["authentic"]]
    expected = edited.groupby([edited["dataset"] + " " + edited["generator"], "kind"]).size()
    table = pd.read_csv(checkout / "results" / "paper" / "tables" / "03-benchmark.csv")
    own = table[table["method"].eq("DinoLizer (paper)")]
    counted = own[own["kind"] != "all"].set_index(["family", "kind"])["n_images"]
    assert counted.to_dict() == expected.to_dict()
    assert own.loc[own["kind"] == "all", "n_images"].item() == len(edited)
    assert table["method"].nunique() == 4
    assert own["iou"].between(0, 1).all()


def test_the_head_is_a_linear_one_of_the_checkpoint(checkout: Path) -> None:
    from safetensors import safe_open

    with safe_open(checkout / "results/paper/heads/bfree.safetensors", "pt") as head:
        shapes = [tuple(head.get_tensor(name).shape) for name in head.keys()]  # noqa: SIM118
        assert sorted(shapes) == [(1,), (1, 32, 1, 1)]
        assert '"bfree"' in head.metadata()["backbone"]


def test_the_exact_mode_takes_every_window(checkout: Path) -> None:
    """Of 56 pixels every 28, in images of 84: at 0 and 28, down and across."""
    table = pd.read_csv(checkout / "results" / "paper" / "tables" / "09-modes.csv")
    exact = table[table["mode"] == "exact"]
    assert exact["passes"].item() == 4
    assert exact["tokens"].item() == 4 * (56 // 14) ** 2
    assert exact["iou"].between(0, 1).all()


def test_no_caption_calls_it_a_demonstration(checkout: Path) -> None:
    paper = checkout / "results" / "paper"
    captions = [path.read_text() for path in paper.rglob("*.json")]
    assert captions
    assert len(captions) == len([*paper.rglob("*.csv"), *paper.rglob("*.png")])
    assert all("Profile: paper." in caption for caption in captions)


def test_jobs_compute_every_row_and_the_notebooks_none(checkout: Path) -> None:
    assert (checkout / "killed").exists()
    jobs = [
        path.stat().st_mtime for path in (checkout / "cache/paper").glob("evaluated-*-of-2.done")
    ]
    assert len(jobs) == 2
    rows = [pd.read_parquet(path) for path in (checkout / "cache/rows").glob("[!.]*.parquet")]
    written = [path.stat().st_mtime for path in (checkout / "cache/rows").iterdir()]
    assert max(written) <= max(jobs)
    # Of the benchmark: every test image, by each of four methods.
    listed = yaml.safe_load((checkout / "notebooks/profiles/paper.yaml").read_text())["test"]
    images = pd.concat([read_manifest(checkout / path) for path in listed])
    plain = pd.concat([part for part in rows if part["ap"].notna().any()])
    assert len(plain) == 4 * (images["split"] == "test").sum()
