"""From a manifest to a head on the disk, on fixed or fresh crops, in one process or two."""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from small import small_backbone, small_manifest
from torch.multiprocessing import start_processes
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.localizer import Localizer
from dinolizer.training import recipes
from dinolizer.training.crops import Augmentations, Crops
from dinolizer.training.recipes import history_path, train
from dinolizer.training.tokens import token_bytes


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


def trained(manifest: pd.DataFrame, out: Path, variant: str = "v1", **options: object) -> Localizer:
    settings = {"device": "cpu", "epochs": 2, "batch": 4}
    return train(manifest, small_backbone(), out, variant, **settings | options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_fixed_crops_take_the_memory_that_is_counted_by_hand(
    manifest: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 18 crops of 16 patches, 32 numbers of 2 bytes for each and a label of 4.
    size = 18 * 16 * (32 * 2 + 4)
    assert token_bytes(small_backbone(), 18, 1) == size
    trained(manifest, tmp_path / "a.safetensors", cache_gb=size / 1e9)
    said = capsys.readouterr().out
    assert "18 fixed crops, one per image, with 1.96e-05 GB of tokens." in said
    with pytest.raises(InputError, match=r"18 fixed crops.* 1\.96e-05 GB.* or choose fresh crops"):
        trained(manifest, tmp_path / "b.safetensors", cache_gb=(size - 1) / 1e9)
    assert names(tmp_path) == ["a-history.csv", "a.safetensors"]


def test_how_crops_are_taken_does_not_depend_on_memory_and_is_recorded(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    first, second = (
        trained(manifest, tmp_path / f"{gigabytes}.safetensors", crops="fresh", cache_gb=gigabytes)
        for gigabytes in (0, 8)
    )
    assert torch.equal(first.head.weight, second.head.weight)
    assert "crops='fresh'" in first.card.about
    fixed = trained(manifest, tmp_path / "fixed.safetensors")
    assert "crops='fixed'" in fixed.card.about
    assert not torch.equal(fixed.head.weight, first.head.weight)


def test_the_papers_cache_would_be_as_large_as_counted() -> None:
    # Of 7 x 51,517 images 36 x 36 tokens each, of 768 float16 numbers and one float32 label.
    backbone = small_backbone()
    backbone.dim = 768
    backbone.spec = replace(backbone.spec, window=504)
    assert token_bytes(backbone, 1, 1) == 1296 * 1540 == 1_995_840
    assert token_bytes(backbone, 7 * 51_517, 1) == 360_619 * 1_995_840


def test_fixed_crops_are_those_of_the_first_epoch_and_their_tokens_are_kept(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch of fresh crops is one of fixed crops, but for the rounding of tokens to half."""
    options = {"epochs": 1, "seed": 5}
    fixed = trained(manifest, tmp_path / "a.safetensors", **options)
    fresh = trained(manifest, tmp_path / "b.safetensors", crops="fresh", **options)
    torch.testing.assert_close(fixed.head.weight, fresh.head.weight, rtol=0, atol=2e-3)
    read = []
    crop = Crops.__getitem__
    monkeypatch.setattr(Crops, "__getitem__", lambda crops, n: read.append(n) or crop(crops, n))
    trained(manifest, tmp_path / "c.safetensors", epochs=3)
    assert sorted(read) == sorted(2 * list(range(9)))  # one crop of each image, once
    assert len(pd.read_csv(tmp_path / "c-history.csv")) == 3


def test_both_ways_of_taking_crops_learn_the_same_thing_and_keep_the_best_epoch(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """On crops that are always the same: the image is the window, and nothing is augmented."""
    files = {name: [_cut(path, tmp_path) for path in manifest[name]] for name in ("image", "mask")}
    frame = manifest.assign(**files)
    plain = Augmentations(flip=0, colour=0, blur=0, noise=0, jpeg=0)
    options = {"epochs": 12, "batch": 9, "augmentations": plain, "patience": 30}
    fixed = trained(frame, tmp_path / "a.safetensors", **options)
    fresh = trained(frame, tmp_path / "b.safetensors", crops="fresh", **options)
    # One batch is all crops, so the order is nothing; tokens that are kept are rounded to half.
    histories = (pd.read_csv(history_path(tmp_path / f"{name}.safetensors")) for name in "ab")
    losses, others = (history["loss"] for history in histories)
    np.testing.assert_allclose(losses, others, atol=5e-3)
    torch.testing.assert_close(fixed.head.weight, fresh.head.weight, rtol=0, atol=0.05)


def _cut(path: str, folder: Path) -> str:
    if path:
        out = folder / Path(path).name
        Image.open(path).crop((20, 0, 76, 56)).save(out)
        return str(out)
    return path


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_what_is_returned_is_what_the_file_gives(
    variant: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "heads/head.safetensors"
    made = trained(manifest, out, variant, crops="fresh")
    assert names(out.parent) == ["head-history.csv", "head.safetensors"]
    classes, lora = {"v1": (1, False), "v2": (3, True)}[variant]
    assert made.head.out_channels == classes
    assert (made.card.lora is not None) == lora
    assert made.card.reduce == ("mean" if variant == "v2" else "sum")
    assert made.card.backbone_hash == small_backbone().hash
    assert (made.backbone.hash != small_backbone().hash) == lora
    assert "small" in made.card.about and "Apache-2.0" in made.card.about
    image = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    assert made(image).mask.shape == (80, 90)
    if variant == "v2":
        assert made.card.lora.rank == made.card.lora.alpha == 64
        assert sum(name.startswith("adapter.") for name in load_file(out)) == 2 * 2 * 2


def test_equal_trainings_give_files_of_equal_bytes(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """Left to chance, the 12 names of the metadata have one order of 12!."""
    for variant in ("v1", "v2"):
        files = [tmp_path / folder / f"{variant}.safetensors" for folder in ("a", "b")]
        for file in files:
            trained(manifest, file, variant)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_splits_go_by_their_other_names(manifest: pd.DataFrame, tmp_path: Path) -> None:
    expected = trained(manifest, tmp_path / "a.safetensors")
    for training, validation in (("training", "validation"), ("train", "val")):
        renamed = manifest.replace({"split": {"train": training, "valid": validation}})
        made = trained(renamed, tmp_path / f"{training}.safetensors")
        assert torch.equal(made.head.weight, expected.head.weight)


def test_test_images_are_never_opened(manifest: pd.DataFrame, tmp_path: Path) -> None:
    expected = trained(manifest, tmp_path / "a.safetensors")
    gone = manifest["image"].where(manifest["split"] != "test", "there/is/none.png")
    made = trained(manifest.assign(image=gone), tmp_path / "b.safetensors")
    assert torch.equal(made.head.weight, expected.head.weight)


def test_a_photo_in_two_splits_is_refused(manifest: pd.DataFrame, tmp_path: Path) -> None:
    leaking = manifest.assign(group=manifest["group"].str.replace("3", "0"))
    with pytest.raises(InputError, match=r"photo '\w+ 0' is in the splits train and valid"):
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
        patch.setattr(recipes, "save_head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
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
        ({"precision": "float16"}, "'float16' needs a GPU"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"out": Path("/proc/head.safetensors")}, "cannot be written"),
        ({"out": Path("/proc")}, "must end in"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"lr": 1e300}, "lr is 1e.300"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    options: dict[str, object], says: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        trained(manifest, **{"out": tmp_path / "head.safetensors"} | options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "head.safetensors"
    first = trained(manifest, out)
    with pytest.raises(InputError, match="is there already"):
        trained(manifest, out)
    second = trained(manifest, out, seed=1, overwrite=True)
    assert not torch.equal(first.head.weight, second.head.weight)
    monkeypatch.setattr(recipes, "fit_recipe", lambda *_, **__: pytest.fail("work was begun"))
    for name in ("x.checkpoint", "manifest.csv", "x"):
        with pytest.raises(InputError, match=r"must end in \.safetensors"):
            trained(manifest, tmp_path / name)
    (tmp_path / "new-history.csv").write_text("image,mask\n")
    with pytest.raises(InputError, match=r"new-history\.csv is there already"):
        trained(manifest, tmp_path / "new.safetensors")
    assert (tmp_path / "new-history.csv").read_text() == "image,mask\n"


def test_the_checkpoint_of_another_training_stays(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """An interrupted training on fresh crops is not thrown away by one on fixed crops."""
    out = tmp_path / "head.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "save_head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(manifest, out, crops="fresh")
    kept = (tmp_path / "head.checkpoint").read_bytes()
    with pytest.raises(InputError, match="made with crops = 'fresh', but this run has 'fixed'"):
        trained(manifest, out)
    assert (tmp_path / "head.checkpoint").read_bytes() == kept


def in_batches_of_three(
    path: Path, folder: Path, variants: Sequence[str], precision: str = "float32"
) -> None:
    """Of two processes one has 2 crops of a batch and the other 1: averages would differ."""
    for variant in variants:
        out = folder / f"{variant}.safetensors"
        options = {"batch": 3, "crops": "fresh", "lr": 0.003, "precision": precision}
        trained(read_manifest(path), out, variant, **options)


def process(rank: int, *arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # the test's own, from before the fork
    in_batches_of_three(*arguments)


def test_two_processes_end_where_one_does(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The same batches, with gloo between two processes and in a single one."""
    frame = read_manifest(path).query("split != 'test'").iloc[:-2]  # 9 and 7 rows
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    in_batches_of_three(tmp_path / "manifest.csv", tmp_path / "one", ["v1", "v2"])
    capfd.readouterr()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    for name, value in (("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, str(value))
    for name, variants, precision in (
        ("two", ["v1", "v2"], "float32"),
        ("half", ["v1"], "bfloat16"),
    ):
        arguments = (tmp_path / "manifest.csv", tmp_path / name, variants, precision)
        start_processes(process, arguments, nprocs=2, start_method="fork")
    assert capfd.readouterr().out.count("fresh crops") == 3  # only the first process speaks
    assert names(tmp_path / "two") == names(tmp_path / "one")
    for variant in ("v1", "v2"):
        one, two = (
            load_file(tmp_path / name / f"{variant}.safetensors") for name in ("one", "two")
        )
        assert one.keys() == two.keys()
        assert one["weight"].abs().mean() > 5e-3  # from 0
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    logs = [pd.read_csv(tmp_path / name / "v1-history.csv") for name in ("one", "two", "half")]
    pd.testing.assert_frame_equal(logs[1], logs[0], rtol=0, atol=1e-5)
    # In bfloat16 (8 bits of precision) nearly the same, but not: it is really used.
    pd.testing.assert_frame_equal(logs[2], logs[0], rtol=0, atol=0.02)
    half, one = (load_file(tmp_path / name / "v1.safetensors") for name in ("half", "one"))
    assert not torch.allclose(half["weight"], one["weight"], rtol=0, atol=1e-5)


def test_another_precision_in_the_same_process_is_one_sentence(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    trained(manifest, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="has trained with another precision"):
        trained(manifest, tmp_path / "b.safetensors", precision="bfloat16")


OPTIONS = ["--model", "untrained-pocket", "--device", "cpu", "--epochs", "1", "--batch", "3"]
OPTIONS += ["--workers", "0", "--variant", "v2"]


def test_the_command_trains_a_head_that_localize_takes(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    done = CliRunner().invoke(app, ["train", str(path), "--out", str(out), *OPTIONS])
    assert done.exit_code == 0, done.output
    localizer = Localizer.from_pretrained("untrained-pocket", head=out, device="cpu")
    assert localizer.card.lora is not None
    assert localizer.backbone.hash != localizer.card.backbone_hash
    assert localizer(path.parent / "0.png").mask.shape == (70, 90)
