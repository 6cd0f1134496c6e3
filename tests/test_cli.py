"""The command does its work image by image; what is wrong is one sentence and exit code 1."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import save_file
from small import random_head
from typer.testing import CliRunner, Result

from dinolizer.cli import app
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.head import HeadCard, save_head
from dinolizer.model.specs import build
from dinolizer.model.windows import MODES


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = load_backbone("untrained-pocket", device="cpu")
    card = HeadCard("untrained-pocket", backbone.hash, "pristine", 224, 112, small="pad")
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_head(path, random_head(backbone.dim), card)
    return path


def make_photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def localize(head: Path, out: Path, *arguments: str | Path) -> Result:
    options = ["--model", "untrained-pocket", "--head", head, "--out", out, "--device", "cpu"]
    return CliRunner().invoke(app, [str(word) for word in ("localize", *arguments, *options)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_photo_gives_one_line_and_three_files(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    result = localize(head, tmp_path / "out", photo)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == ["photo.json", "photo.npz", "photo.png"]
    saved = json.loads((tmp_path / "out/photo.json").read_text())
    assert saved["source"] == str(photo)
    line = f"{photo}  score {saved['score']:.3f}  marked {saved['marked']:.1%}\n"
    assert result.stdout == line
    assert result.stderr == ""


def test_a_faster_mode_is_asked_for_by_name(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    result = localize(head, tmp_path / "out", photo, "--mode", "whole")
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "out/photo.json").read_text())
    # 40 x 50 pixels are padded to a window of 224: 16 x 16 patches in one pass.
    assert (saved["mode"], saved["passes"], saved["tokens"]) == ("whole", 1, 256)
    refused = localize(head, tmp_path / "none", photo, "--mode", "quick")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "The mode is 'quick'" in refused.stderr
    shown = CliRunner().invoke(app, ["localize", "--help"]).stdout
    assert [mode for mode in MODES if f"'{mode}'" not in shown] == []


def test_another_precision_gives_all_but_the_same_map(head: Path, tmp_path: Path) -> None:
    """bfloat16 keeps 8 bits of a number: the maps differ, and by no more than some of these."""
    photo = make_photo(tmp_path / "photo.png")
    maps = {}
    for precision in ("float32", "bfloat16"):
        result = localize(head, tmp_path / precision, photo, "--precision", precision)
        assert result.exit_code == 0, result.output
        saved = json.loads((tmp_path / precision / "photo.json").read_text())
        assert saved["precision"] == precision
        maps[precision] = np.load(tmp_path / precision / "photo.npz")["probability"]
    difference = np.abs(maps["float32"].astype(float) - maps["bfloat16"])
    assert 0 < difference.mean() < 0.02
    refused = localize(head, tmp_path / "none", photo, "--precision", "int8")
    assert refused.exit_code == 1
    assert "The precision is 'int8'" in refused.stderr


def test_image_files_get_their_results_each(head: Path, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / "in/b/two.png"), make_photo(tmp_path / "in/one.jpg")]
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert "two.png  score" in first and "one.jpg  score" in second
    assert {name.split(".")[0] for name in names(tmp_path / "out")} == {"one", "two"}


def test_a_folder_gets_a_table_and_what_else_is_asked_for(head: Path, tmp_path: Path) -> None:
    make_photo(tmp_path / "in/b/two.png")
    make_photo(tmp_path / "in/one.jpg")
    (tmp_path / "in/bad.jpg").write_text("no image")
    result = localize(head, tmp_path / "out", tmp_path / "in", "--masks")
    assert result.exit_code == 0, result.output
    file = tmp_path / "out/localized.parquet"
    assert result.stdout == f"{file}: 3 images, of which 1 could not be read\n"
    assert "3/3" in result.stderr and "image/s" in result.stderr
    table = pd.read_parquet(file)
    assert list(table["path"]) == ["b/two.png", "bad.jpg", "one.jpg"]
    assert names(tmp_path / "out") == ["localized.parquet", "masks", "settings.json"]
    again = localize(head, tmp_path / "out", tmp_path / "in", "--masks")
    assert again.stdout == result.stdout
    stopped = localize(head, tmp_path / "other", tmp_path / "in", "--max-failures", "0")
    assert stopped.exit_code == 1
    assert "bad.jpg is not an image" in stopped.stderr


def test_shards_of_a_manifest_are_merged(head: Path, tmp_path: Path) -> None:
    for number in range(4):
        make_photo(tmp_path / f"in/{number}.png", number)
    (tmp_path / "in/list.csv").write_text("image\n" + "".join(f"{n}.png\n" for n in range(4)))
    for shard in ("1/2", "2/2"):
        result = localize(head, tmp_path / "out", tmp_path / "in/list.csv", "--shard", shard)
        assert result.exit_code == 0, result.output
    words = ["merge", str(tmp_path / "out"), "-o", str(tmp_path / "all.parquet")]
    merged = CliRunner().invoke(app, words)
    assert merged.stdout == f"{tmp_path / 'all.parquet'}: 4 images, of which 0 could not be read\n"
    (tmp_path / "out/localized-2-of-2.parquet").unlink()
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert refused.stderr == (
        "dinolizer: Of 2 shards, number 2 is not there; finish it, or give its folder too.\n"
    )


@pytest.mark.parametrize(
    ("paths", "options", "says"),
    [
        (["in", "photo.png"], [], "given together with other paths"),
        (["in", "in"], [], "given together with other paths"),
        (["photo.png"], ["--masks"], "go with one folder or manifest"),
        (["photo.png"], ["--shard", "1/2"], "go with one folder or manifest"),
        (["in"], ["--shard", "3/2"], "The shard is '3/2'"),
        (["no.csv"], [], "There is no manifest"),
    ],
)
def test_the_two_modes_are_not_mixed(
    paths: list[str], options: list[str], says: str, head: Path, tmp_path: Path
) -> None:
    make_photo(tmp_path / "photo.png")
    make_photo(tmp_path / "in/photo.png")
    result = localize(head, tmp_path / "out", *[tmp_path / path for path in paths], *options)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_images_of_one_name_do_not_overwrite_each_other(head: Path, tmp_path: Path) -> None:
    photos = [
        make_photo(tmp_path / name, seed)
        for seed, name in enumerate(("a/x.png", "b/x.png", "a/x.tif", "a/x_2.png"))
    ]
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 0, result.output
    sources = {
        file.stem: json.loads(file.read_text())["source"]
        for file in (tmp_path / "out").glob("*.json")
    }
    expected = dict(zip(("x", "x_3", "x_4", "x_2"), map(str, photos), strict=True))
    assert sources == expected
    assert "saved as x_3" in result.stdout.splitlines()[1]
    assert "saved as" not in result.stdout.splitlines()[3]


def test_running_again_replaces_the_results_whole(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    localize(head, tmp_path / "out", photo)
    (tmp_path / "out/photo.json").write_text("older")
    assert localize(head, tmp_path / "out", photo).exit_code == 0
    assert json.loads((tmp_path / "out/photo.json").read_text())["model"] == "untrained-pocket"
    assert len(names(tmp_path / "out")) == 3


def test_one_bad_file_among_others_is_reported_and_the_others_are_done(
    head: Path, tmp_path: Path
) -> None:
    photos = [make_photo(tmp_path / "in/a.png"), tmp_path / "in/b.jpg"]
    photos[1].write_text("no image")
    photos.append(make_photo(tmp_path / "in/c.png"))
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 1
    assert [line.split("  ")[0][-5:] for line in result.stdout.splitlines()] == ["a.png", "c.png"]
    complaints = [line for line in result.stderr.splitlines() if "dinolizer:" in line]
    assert len(complaints) == 1
    assert "b.jpg is not an image" in complaints[0]
    assert {name.split(".")[0] for name in names(tmp_path / "out")} == {"a", "c"}


@pytest.mark.parametrize("bad", ["missing.png", "text.png", "empty.png", "folder"])
def test_a_single_bad_path_is_one_sentence_and_nothing_is_written(
    bad: str, head: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    result = localize(head, tmp_path / "out", tmp_path / bad)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("dinolizer: ")
    assert bad in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "dino"], "The model is 'dino', but it must be one of"),
        (["--head", "no.safetensors"], "There is no head no.safetensors"),
        (["--small", "crop"], "small is 'crop'"),
        (["--device", "abacus"], "device is 'abacus'"),
    ],
)
def test_wrong_options_are_one_sentence(
    options: list[str], says: str, head: Path, tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png")
    words = ["--model", "untrained-pocket", "--head", str(head), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["localize", str(photo), *words, *options])
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_one_sentence(head: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = localize(head, tmp_path / "out", make_photo(tmp_path / "photo.png"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert (tmp_path / "out").read_text() == "a file"


def test_help_names_the_commands_without_importing_torch() -> None:
    code = "import sys, dinolizer.cli; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
    output = CliRunner().invoke(app, ["--help"]).output
    commands = ("localize", "merge", "fetch", "manifest", "train", "pretrain", "prepare")
    for command in (*commands, "evaluate", "summarise", "check-parameters"):
        assert command in output


def test_parameters_of_a_profile_are_checked(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-parameters", str(tmp_path / "no.ipynb"), "no.yaml"])
    assert result.exit_code == 1
    assert result.stderr.startswith("dinolizer: ")


def test_weights_of_the_users_own_are_used(tmp_path: Path) -> None:
    spec = BACKBONES["untrained-pocket"]
    model = build(spec)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    backbone = Backbone(spec, model)
    card = HeadCard(spec.name, backbone.hash, "pristine", 224, 112, small="pad")
    save_head(tmp_path / "head.safetensors", random_head(backbone.dim), card)
    photo = make_photo(tmp_path / "photo.png")
    head, out = tmp_path / "head.safetensors", tmp_path / "out"
    assert "was trained on" in localize(head, out, photo).stderr
    result = localize(head, out, photo, "--weights", tmp_path / "own.safetensors")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "photo.json").read_text())["backbone_hash"] == backbone.hash


@pytest.mark.parametrize(
    ("command", "line", "says"),
    [
        (["prepare"], "train: [nowhere.csv]\ntest: [nowhere.csv]", "There is no file"),
        (["evaluate"], "train: [nowhere.csv]\ntest: [nowhere.csv]", "There is no file"),
        (["evaluate"], "weights: nowhere.safetensors", "nowhere.safetensors"),
        (["evaluate", "--shard", "3/2"], "seed: 0", "The shard is '3/2'"),
        (["evaluate"], "images: many", "sets images to the text 'many'"),
    ],
)
def test_a_profile_that_cannot_be_followed_is_one_sentence(
    command: list[str], line: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(f"backbone: pocket\n{line}\n")
    result = CliRunner().invoke(app, [*command, str(tmp_path / "mine.yaml")])
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
