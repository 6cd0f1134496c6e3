"""From a manifest to a head on the disk, cached or streamed, on one process or two."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small import small_backbone, small_manifest
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.localizer import Localizer
from dinolizer.paths import ROOT
from dinolizer.training import recipes as variants
from dinolizer.training.crops import Crops
from dinolizer.training.heads import fit_head
from dinolizer.training.recipes import Training, train
from dinolizer.training.tokens import extract, token_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 rows of each split: train, valid and test."""
    return small_manifest(tmp_path_factory.mktemp("images"), 27, ("train", "valid", "test"))


@pytest.fixture(scope="module")
def manifest(path: Path) -> pd.DataFrame:
    return read_manifest(path)


def trained(manifest: pd.DataFrame, out: Path, variant: str = "v1", **options: object) -> Training:
    settings = {"device": "cpu", "epochs": 2, "batch": 4}
    return train(manifest, small_backbone(), out, variant, **settings | options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_size_is_counted_by_hand_and_decides(
    manifest: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 18 crops of 16 patches, 32 numbers of 2 bytes for each and a label of 4.
    size = 18 * 16 * (32 * 2 + 4)
    assert token_bytes(small_backbone(), 18, 1) == size
    trained(manifest, tmp_path / "cached.safetensors", cache_gb=size / 1e9)
    assert (
        "Tokens of 18 crops, one an image: 1.96e-05 GB of at most 1.9584e-05; cached, "
        "2 epochs over these crops." in capsys.readouterr().out
    )
    trained(manifest, tmp_path / "streamed.safetensors", cache_gb=(size - 1) / 1e9)
    assert "; streamed, 2 epochs of new crops." in capsys.readouterr().out
    trained(manifest, tmp_path / "v2.safetensors", "v2")
    assert "; streamed" in capsys.readouterr().out


def test_the_papers_cache_would_be_as_large_as_counted() -> None:
    # Of 7 x 51,517 images 36 x 36 tokens each, of 768 float16 numbers and one float32 label.
    backbone = small_backbone()
    backbone.dim = 768
    backbone.spec = replace(backbone.spec, window=504)
    assert token_bytes(backbone, 1, 1) == 1296 * 1540 == 1_995_840
    assert token_bytes(backbone, 7 * 51_517, 1) == 360_619 * 1_995_840


def test_a_cached_head_is_that_of_fit_head_on_the_first_crops(
    manifest: pd.DataFrame, tmp_path: Path, cache: Path
) -> None:
    backbone = small_backbone()
    made = trained(manifest, tmp_path / "head.safetensors", seed=5)
    data = []
    for split, augmentations in (("train", variants.Augmentations()), ("valid", None)):
        rows = manifest[manifest["split"] == split]
        some = Crops(rows, "pristine", 56, 14, 5, augmentations)
        pairs = [some[item] for item in range(9)]
        images = [image.permute(1, 2, 0).numpy() for image, _ in pairs]
        data.append((extract(backbone, images), torch.stack([target for _, target in pairs])))
    tokens, targets = (torch.cat(both) for both in zip(*data, strict=True))
    expected = fit_head(
        tokens, targets, epochs=2, seed=5, batch_size=4, validation=torch.arange(18) >= 9
    )
    torch.testing.assert_close(made.head.weight, expected.head.weight, rtol=0, atol=0)
    pd.testing.assert_frame_equal(made.history, expected.history)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "head-history.csv"), expected.history)
    assert len(list((cache / "tokens").iterdir())) == 2


def test_cached_and_streamed_learn_the_same_thing(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """On crops that are always the same: the image is the window, and nothing is augmented."""
    frame = manifest.assign(image=[str(_cut(path, tmp_path)) for path in manifest["image"]])
    plain = variants.Augmentations(flip=0, colour=0, blur=0, noise=0, jpeg=0)
    options = {"epochs": 30, "batch": 9, "augmentations": plain, "patience": 30}
    cached = trained(frame, tmp_path / "a.safetensors", **options)
    streamed = trained(frame, tmp_path / "b.safetensors", cache_gb=0, **options)
    # One batch is all crops, so the order is nothing; tokens in the cache are rounded to half.
    np.testing.assert_allclose(streamed.history["loss"], cached.history["loss"], atol=5e-3)


def _cut(path: str, folder: Path) -> Path:
    from PIL import Image

    out = folder / Path(path).name
    Image.open(path).crop((20, 0, 76, 56)).save(out)
    return out


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_what_is_returned_is_what_the_file_gives(
    variant: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "heads/head.safetensors"
    made = trained(manifest, out, variant, cache_gb=0)
    assert names(out.parent) == ["head-history.csv", "head.safetensors"]
    classes, lora = {"v1": (1, False), "v2": (3, True)}[variant]
    assert made.head.out_channels == classes
    assert (made.card.lora is not None) == lora
    assert made.card.reduce == ("mean" if variant == "v2" else "sum")
    assert made.card.backbone_hash == small_backbone().hash
    assert (made.backbone.hash != small_backbone().hash) == lora
    assert "small" in made.card.about and "Apache-2.0" in made.card.about
    image = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    assert Localizer(made.backbone, made.head, made.card)(image).mask.shape == (80, 90)
    if variant == "v2":
        assert made.card.lora.rank == made.card.lora.alpha == 64
        assert sum(name.startswith("adapter.") for name in load_file(out)) == 2 * 2 * 2


def test_the_splits_go_by_their_other_names(manifest: pd.DataFrame, tmp_path: Path) -> None:
    expected = trained(manifest, tmp_path / "a.safetensors")
    for training, validation in (("training", "validation"), ("train", "val")):
        renamed = manifest.replace({"split": {"train": training, "valid": validation}})
        made = trained(renamed, tmp_path / "b.safetensors")
        assert torch.equal(made.head.weight, expected.head.weight)


def test_test_images_are_never_opened(manifest: pd.DataFrame, tmp_path: Path) -> None:
    expected = trained(manifest, tmp_path / "a.safetensors")
    gone = manifest["image"].where(manifest["split"] != "test", "there/is/none.png")
    made = trained(manifest.assign(image=gone), tmp_path / "b.safetensors")
    assert torch.equal(made.head.weight, expected.head.weight)


def test_a_photo_in_two_splits_is_refused(manifest: pd.DataFrame, tmp_path: Path) -> None:
    leaking = manifest.assign(group=manifest["group"].replace({"3": "0"}))
    with pytest.raises(InputError, match="photo '0' is in the splits train and valid"):
        trained(leaking, tmp_path / "head.safetensors")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_rows_is_one_sentence(
    split: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"no row of the split '{split}', only of test"):
        trained(manifest[manifest["split"] != split], tmp_path / "head.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_training_goes_on(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(manifest, tmp_path / "whole/head.safetensors", "v2", lr=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(variants, "save_head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(manifest, tmp_path / "part/head.safetensors", "v2", lr=0.01)
    assert names(tmp_path / "part") == ["head-history.csv", "head.checkpoint"]
    with pytest.raises(InputError, match=r"made with lr = 0\.01, but this run has 0\.02"):
        trained(manifest, tmp_path / "part/head.safetensors", "v2", lr=0.02)
    made = trained(manifest, tmp_path / "part/head.safetensors", "v2", lr=0.01)
    assert names(tmp_path / "part") == ["head-history.csv", "head.safetensors"]
    assert made.backbone.hash == expected.backbone.hash
    assert torch.equal(made.head.weight, expected.head.weight)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "v3"}, "The variant is 'v3'"),
        ({"policy": "real"}, "policy is 'real'"),
        ({"precision": "fp16"}, "'fp16' needs a GPU"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"out": Path("/proc/head.safetensors")}, "cannot be written"),
        ({"out": Path("/proc")}, "is a folder"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    options: dict[str, object], says: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        trained(manifest, **{"out": tmp_path / "head.safetensors"} | options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


SHARED = """
import os, sys
import peft, torch  # once, before the fork
from torch.multiprocessing import start_processes
from dinolizer.data.manifest import read_manifest
from test_recipes import in_batches_of_three

def process(rank, folder, precision):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    in_batches_of_three(read_manifest(sys.argv[1]), folder, precision)

for folder, precision in ((sys.argv[2], "no"), (sys.argv[3], "bf16")):
    start_processes(process, (folder, precision), nprocs=2, start_method="fork")
"""
"""What torchrun does, at a third of its time: it would import torch once for each process."""


def in_batches_of_three(manifest: pd.DataFrame, folder: str | Path, precision: str = "no") -> None:
    """Of two processes one has 2 crops of a batch and the other 1: averages would differ."""
    for variant in ("v1", "v2"):
        out = Path(folder) / f"{variant}.safetensors"
        options = {"batch": 3, "cache_gb": 0, "lr": 0.003, "precision": precision}
        trained(manifest, out, variant, **options)


def test_two_processes_end_where_one_does(path: Path, tmp_path: Path) -> None:
    """The same batches, with gloo between two processes and in a single one."""
    frame = read_manifest(path).query("split != 'test'").iloc[:-2]  # 9 and 7 rows
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    in_batches_of_three(frame, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment |= {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}{os.pathsep}{ROOT / 'tests' / 'training'}"
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SHARED,
            tmp_path / "manifest.csv",
            tmp_path / "two",
            tmp_path / "half",
        ],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("streamed") == 4  # once a run: only the first process speaks
    assert names(tmp_path / "two") == names(tmp_path / "one")
    for variant in ("v1", "v2"):
        one, two, half = (
            load_file(tmp_path / name / f"{variant}.safetensors") for name in ("one", "two", "half")
        )
        assert one.keys() == two.keys()
        assert one["weight"].abs().mean() > 5e-3  # from 0
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
        logs = [
            pd.read_csv(tmp_path / name / f"{variant}-history.csv")
            for name in ("one", "two", "half")
        ]
        pd.testing.assert_frame_equal(logs[1], logs[0], rtol=0, atol=1e-5)
        # In bfloat16 (8 bits of precision) nearly the same, but not: it is really used.
        pd.testing.assert_frame_equal(logs[2], logs[0], rtol=0, atol=0.02)
        assert not torch.allclose(half["weight"], one["weight"], rtol=0, atol=1e-5)


def test_another_precision_in_the_same_process_is_one_sentence(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    trained(manifest, tmp_path / "head.safetensors")
    with pytest.raises(InputError, match="has trained with another precision"):
        trained(manifest, tmp_path / "head.safetensors", precision="bf16")


OPTIONS = ["--model", "untrained-pocket", "--device", "cpu", "--epochs", "1", "--batch", "3"]
OPTIONS += ["--workers", "0", "--cache-gb", "0", "--variant", "v2"]


def test_the_command_trains_a_head_that_localize_takes(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    done = CliRunner().invoke(app, ["train", str(path), "--out", str(out), *OPTIONS])
    assert done.exit_code == 0, done.output
    localizer = Localizer.from_pretrained("untrained-pocket", head=out, device="cpu")
    assert localizer.card.lora is not None
    assert localizer.backbone.hash != localizer.card.backbone_hash
    assert localizer(path.parent / "0.png").mask.shape == (70, 90)


def test_the_command_says_in_a_sentence_what_is_wrong(path: Path, tmp_path: Path) -> None:
    for words, says in (
        ([str(tmp_path / "no.csv")], "There is no file"),
        ([str(path), str(path), "--model", "dino"], "The model is 'dino'"),
        ([str(path), "--variant", "v3"], "The variant is 'v3'"),
    ):
        done = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "h.safetensors")])
        assert done.exit_code == 1
        assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "h.safetensors").exists()
