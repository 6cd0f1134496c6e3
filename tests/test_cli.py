"""The command does its work image by image; what is wrong is one sentence and exit code 1."""

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from processes import started
from safetensors.torch import save_file
from small import random_head
from typer.testing import CliRunner, Result

import dinolizer
from dinolizer import options
from dinolizer.cli import app
from dinolizer.data.datasets import DATASETS
from dinolizer.data.manifest import POLICIES
from dinolizer.model import localizer
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.files import say_slow
from dinolizer.model.head import HeadCard, save_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.specs import build
from dinolizer.training.recipes import PRECISIONS, VARIANTS


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
    assert names(tmp_path / "out") == ["photo.json", "photo.map.npz", "photo.mask.png"]
    saved = json.loads((tmp_path / "out/photo.json").read_text())
    assert saved["source"] == str(photo)
    line = f"{photo}  score {saved['score']:.3f} (not calibrated)  "
    line += f"predicted area {saved['predicted_area']:.1%}\n"
    assert result.stdout == line
    assert result.stderr == f"dinolizer: model 'untrained-pocket'. {saved['caution']}\n"


def test_another_precision_gives_all_but_the_same_map(head: Path, tmp_path: Path) -> None:
    """bfloat16 keeps 8 bits of a number: the maps differ, and by no more than some of these."""
    photo = make_photo(tmp_path / "photo.png")
    maps = {}
    for precision in ("float32", "bfloat16"):
        result = localize(head, tmp_path / precision, photo, "--precision", precision)
        assert result.exit_code == 0, result.output
        saved = json.loads((tmp_path / precision / "photo.json").read_text())
        assert saved["precision"] == precision
        maps[precision] = np.load(tmp_path / precision / "photo.map.npz")["probability"]
    difference = np.abs(maps["float32"].astype(float) - maps["bfloat16"])
    assert 0 < difference.mean() < 0.02


def test_image_files_get_their_results_each(head: Path, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / "in/b/two.png"), make_photo(tmp_path / "in/one.jpg")]
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert "two.png  score" in first and "one.jpg  score" in second
    assert {name.split(".")[0] for name in names(tmp_path / "out")} == {"one", "two"}


def test_a_name_is_one_line_and_gives_a_terminal_no_commands(head: Path, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / name) for name in ("in/a\n\x1b]0;b\x07.png", "in/\u202ec.png")]
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert r"a\n\x1b]0;b\x07.png  score" in first and r"\u202ec.png  score" in second


def test_a_folder_gets_a_table_and_what_else_is_asked_for(head: Path, tmp_path: Path) -> None:
    make_photo(tmp_path / "in/b/two.png")
    make_photo(tmp_path / "in/one.jpg")
    (tmp_path / "in/bad.jpg").write_text("no image")
    result = localize(head, tmp_path / "out", tmp_path / "in", "--masks")
    assert result.exit_code == 0, result.output
    file = tmp_path / "out/localized.parquet"
    first, reason = result.stdout.splitlines()
    assert first == f"{file}: 3 images, of which 1 could not be read"
    assert reason.startswith("1: ... is a text file")
    assert "3/3" in result.stderr and "image/s" in result.stderr
    table = pd.read_parquet(file)
    assert list(table["path"]) == ["b/two.png", "bad.jpg", "one.jpg"]
    assert names(tmp_path / "out") == ["localized.parquet", "masks"]
    again = localize(head, tmp_path / "out", tmp_path / "in", "--masks")
    assert again.stdout == result.stdout
    stopped = localize(head, tmp_path / "other", tmp_path / "in", "--max-failures", "0")
    assert stopped.exit_code == 1
    assert "bad.jpg is a text file" in stopped.stderr


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
    (tmp_path / "out/localized.parquet/2-of-2.parquet").unlink()
    words[-1] = str(tmp_path / "less.parquet")
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
        (["photo.png"], ["--add"], "go with one folder or manifest"),
        (["in"], ["--overwrite"], "--overwrite goes with image files"),
        (["in"], ["--shard", "3/2"], "The shard is '3/2'"),
        (["no.csv"], [], "There is no file"),
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
        for seed, name in enumerate(("a/x.png", "b/x.png", "a/X.tif", "a/y.png"))
    ]
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 0, result.output
    sources = {
        json.loads(file.read_text())["source"]: file.stem
        for file in (tmp_path / "out").glob("*.json")
    }
    # The stem, and for those that share theirs a hash of the path as it was given.
    hashes = [hashlib.sha256(bytes(photo)).hexdigest()[:8] for photo in photos]
    expected = [f"x-{hashes[0]}", f"x-{hashes[1]}", f"X-{hashes[2]}", "y"]
    assert sources == dict(zip(map(str, photos), expected, strict=True))
    assert f"saved as {expected[1]}" in result.stdout.splitlines()[1]
    assert "saved as" not in result.stdout.splitlines()[3]
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    photos.append(make_photo(tmp_path / f"{expected[0]}.png"))  # called as a result of another
    result = localize(head, tmp_path / "out", *photos, "--overwrite")
    assert result.exit_code == 1 and "would have one name" in result.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_nothing_that_is_there_is_replaced_unless_asked(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    (tmp_path / "photo.json").write_text("of another tool")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = localize(head, tmp_path, photo)
    assert refused.exit_code == 1
    assert "photo.json is there already" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    refused = localize(head, tmp_path, photo, "--overwrite")
    assert "photo.json is there already, and not an output of this project" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "photo.json").unlink()
    for words in ([], ["--overwrite"]):
        assert localize(head, tmp_path, photo, *words).exit_code == 0
    assert json.loads((tmp_path / "photo.json").read_text())["model"] == "untrained-pocket"
    assert photo.read_bytes() == before[photo]


def report(head: Path, out: Path, *arguments: str | Path) -> Result:
    options = ["--model", "untrained-pocket", "--head", head, "--out", out, "--device", "cpu"]
    return CliRunner().invoke(app, [str(word) for word in ("report", *arguments, *options)])


def test_a_report_for_each_image_and_an_index_of_several(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "in/one.png")
    single = report(head, tmp_path / "single", photo)
    assert single.exit_code == 0, single.output
    assert names(tmp_path / "single") == ["one.report.html"]
    page = tmp_path / "single/one.report.html"
    assert single.stdout.splitlines()[-1] == f"Open {page} in a browser."
    make_photo(tmp_path / "in/two.png", 1)
    (tmp_path / "in/bad.jpg").write_text("no image")
    several = report(head, tmp_path / "out", tmp_path / "in")
    assert several.exit_code == 1
    assert names(tmp_path / "out") == ["index.html", "one.report.html", "two.report.html"]
    assert several.stdout.splitlines()[-1] == f"Open {tmp_path / 'out/index.html'} in a browser."
    index = (tmp_path / "out/index.html").read_text()
    assert index.count('href="') == 2
    assert "bad.jpg is a text file" in index
    scores = [float(score) for score in re.findall(r">(\d\.\d{3})<", index)]
    assert scores == sorted(scores, reverse=True)


def test_a_report_takes_the_settings_that_localize_takes(head: Path, tmp_path: Path) -> None:
    """Of 40 x 50 pixels, resized by --small for a window of 224, there is more than one window."""
    photo = make_photo(tmp_path / "photo.png")
    words = ["--threshold", "0.25", "--stride", "56", "--small", "resize"]
    words += ["--precision", "bfloat16"]
    line = json.loads(localize(head, tmp_path / "out", photo, *words, "--json").stdout)
    assert report(head, tmp_path / "pages", photo, *words).exit_code == 0
    page = (tmp_path / "pages/photo.report.html").read_text()
    for name in ("threshold", "stride", "small", "precision", "passes", "score"):
        assert f'"{name}": {json.dumps(line[name])}' in page


def test_a_report_replaces_nothing_unasked(head: Path, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / f"in/{name}.png", seed) for seed, name in enumerate("ab")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.html").write_text("of another tool")
    refused = report(head, tmp_path / "out", *photos)
    assert refused.exit_code == 1
    assert "index.html is there already" in refused.stderr
    assert names(tmp_path / "out") == ["index.html"]
    refused = report(head, tmp_path / "out", *photos, "--overwrite")
    assert "index.html is there already, and not an output of this project" in refused.stderr
    (tmp_path / "out/index.html").unlink()
    for words in ([], ["--overwrite"]):
        assert report(head, tmp_path / "out", *photos, *words).exit_code == 0
    (tmp_path / "out/a.report.html").unlink()
    (tmp_path / "out/a.report.html").hardlink_to(photos[0])
    before = photos[0].read_bytes()
    refused = report(head, tmp_path / "out", *photos, "--overwrite")
    assert "is one of the inputs" in refused.stderr
    assert photos[0].read_bytes() == before


def test_before_a_picture_of_many_windows_a_wider_stride_is_named(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: (1,900 - 224) / 112 = 14.96, so 15 windows a side and one flush with the edge; of
    tiles 8 (1,676 / 224 = 7.48) and one."""
    usual = Localizer.from_pretrained("untrained-pocket", head, "cpu")
    Image.new("L", (1900, 1900)).save(tmp_path / "large.png")
    Image.new("L", (1400, 1400)).save(tmp_path / "medium.png")
    for name in ("large.png", "medium.png"):
        say_slow(usual, tmp_path / name)
        say_slow(usual.with_settings(stride=224), tmp_path / name)
    fewer = "--stride 224 takes 81, and gives a somewhat different map"
    assert capsys.readouterr().err == (
        f"dinolizer: {tmp_path / 'large.png'} has {16**2} windows; {fewer}.\n"
    )


@pytest.mark.parametrize("how", ["path", "symlink", "hardlink", "device"])
def test_no_input_is_written_to_whatever_its_path(how: str, head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "in/photo.png")
    (tmp_path / "out").mkdir()
    mask = tmp_path / "out/photo.mask.png"
    if how == "path":  # the mask of one image is another one
        mask = tmp_path / "in/photo.mask.png"
        mask.write_bytes(photo.read_bytes())
    elif how == "symlink":
        mask.symlink_to("../in/photo.png")
    elif how == "hardlink":
        mask.hardlink_to(photo)
    else:
        mask.symlink_to("/dev/null")
    before = photo.read_bytes()
    out = tmp_path / "in/../in" if how == "path" else tmp_path / "out"
    inputs = [photo, mask] if how == "path" else [photo]
    refused = localize(head, out, *inputs, "--overwrite")
    assert refused.exit_code == 1
    says = "is no regular file" if how == "device" else "is one of the inputs"
    assert says in refused.stderr
    assert photo.read_bytes() == before
    assert not (out / "photo.json").exists()


def test_json_is_a_line_for_each_image(head: Path, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / f"in/{name}.png") for name in "ab"]
    result = localize(head, tmp_path / "out", *photos, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [json.loads((tmp_path / f"out/{name}.json").read_text()) for name in "ab"]
    table = localize(head, tmp_path / "bulk", tmp_path / "in", "--json")
    rows = [json.loads(line) for line in table.stdout.splitlines()]
    assert [row["path"] for row in rows] == ["a.png", "b.png"]
    assert [row["score"] for row in rows] == pytest.approx(
        [line["score"] for line in lines], abs=1e-4
    )


def test_threshold_and_stride_take_the_place_of_the_heads(head: Path, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    words = ["--threshold", "0.25", "--stride", "56", "--json"]
    line = json.loads(localize(head, tmp_path / "out", photo, *words).stdout)
    assert (line["threshold"], line["stride"]) == (0.25, 56)


def test_what_is_left_out_is_counted_and_named(head: Path, tmp_path: Path) -> None:
    make_photo(tmp_path / "in/a.png")
    make_photo(tmp_path / "in/b.mask.png")
    (tmp_path / "in/notes.txt").touch()
    (tmp_path / b"in/\xff.png".decode(errors="surrogateescape")).touch()
    result = localize(head, tmp_path / "out", tmp_path / "in")
    assert result.exit_code == 0, result.output
    for text in ("1 masks of earlier results", "notes.txt", "\\xff.png"):
        assert text in result.stderr


def test_one_bad_file_among_others_is_reported_and_the_others_are_done(
    head: Path, tmp_path: Path
) -> None:
    photos = [make_photo(tmp_path / "in/a.png"), tmp_path / "in/b.jpg"]
    photos[1].write_text("no image")
    photos.append(make_photo(tmp_path / "in/c.png"))
    result = localize(head, tmp_path / "out", *photos)
    assert result.exit_code == 1
    assert [line.split("  ")[0][-5:] for line in result.stdout.splitlines()] == ["a.png", "c.png"]
    said, complaint = (line for line in result.stderr.splitlines() if "dinolizer:" in line)
    assert "model 'untrained-pocket'" in said
    assert "b.jpg is a text file" in complaint
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
        ("--model dino", "'dino' is not one of"),
        ("--head no.safetensors", "There is no head no.safetensors"),
        (f"--head {'h' * 300}", "File name too long"),
        ("--small crop", "'crop' is not one of"),
        ("--precision int8", "'int8' is not one of"),
        ("--device abacus", "device is 'abacus'"),
        ("--device meta", "device is 'meta'"),
        ("--threshold 2", "less than or equal to 1"),
        ("--stride 0", "greater than or equal to 1"),
        ("--out=", "An argument is empty"),
        ("--shard 1/1", "go with one folder or manifest"),
    ],
)
def test_wrong_options_are_one_sentence(
    options: str, says: str, head: Path, tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png")
    words = ["--model", "untrained-pocket", "--head", str(head), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["localize", str(photo), *words, *options.split()])
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["localize", "", "--out", "o"], "An argument is empty"),
        (["localize", "in", "--out", "o", "--shard", f"1/{'9' * 5000}"], "The shard is '1/999"),
        (["localize", "in", "--out", "o", "--max-failures", "-1"], "greater than or equal to 0"),
        (["localize", "x" * 5000, "--out", "o"], "x cannot be read"),
        (
            ["train", "m.csv", "--out", "h.safetensors", "--workers", "-1"],
            "greater than or equal to 0",
        ),
        (
            ["train", "m.csv", "--out", "h.safetensors", "--seed", "-1"],
            "greater than or equal to 0",
        ),
        (["train", "m.csv", "--out", "h.checkpoint"], "must end in .safetensors"),
        (["train", "in", "--out", "in"], "must end in .safetensors"),
        (["manifest", "csv", "m.csv", "-o", "m.txt"], "must end in .csv"),
        (["manifest", "csv", "m.csv", "-o", "m.csv"], "is one of the inputs"),
        (["manifest", "csv", "m.csv", "-o", "n.csv"], "n.csv is there already"),
        (["manifest", "imagenet", "in", "-o", "o.csv"], "'imagenet' is not one of"),
        (["merge", "in", "-o", "m.csv"], "holds no finished shard"),
        (["fetch", "photos", "--out", "photos"], "0850.png is there already"),
        (["fetch", "imagenet"], "'imagenet' is not one of"),
        (["study", "prepare", "none"], "Unknown profile 'none'"),
        (["study", "prepare", "none.yaml"], "none.yaml"),
        (["study", "check-parameters", "n.ipynb", "pocket"], "No notebook at n.ipynb"),
        (["study", "evaluate", "pocket", "--shard", "3/2"], "The shard is '3/2'"),
    ],
)
def test_what_can_be_typed_is_answered(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one sentence, no traceback, and without a file that was not there or is another one."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "photos/0850.png"):
        make_photo(tmp_path / name)
    for name in ("m.csv", "n.csv"):
        (tmp_path / name).write_text("image\nin/a.png\n")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert says in result.stderr
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_the_choices_are_the_keys_of_the_tables() -> None:
    for choices, table in (
        (options.ModelName, BACKBONES),
        (options.DatasetName, DATASETS),
        (options.Policy, POLICIES),
        (options.VariantName, VARIANTS),
        (options.Precision, PRECISIONS),
    ):
        assert get_args(choices) == tuple(table) or set(get_args(choices)) == set(table)
    assert set(PRECISIONS) == set(localizer.PRECISIONS)
    completed = CliRunner().invoke(
        app,
        [],
        env={"_DINOLIZER_COMPLETE": "complete_bash", "COMP_WORDS": "dinolizer ", "COMP_CWORD": "1"},
        prog_name="dinolizer",
    )
    assert completed.stdout.split() == [
        "localize",
        "report",
        "serve",
        "score",
        "export",
        "merge",
        "fetch",
        "train",
        "calibrate",
        "manifest",
        "check",
        "verify",
        "study",
    ]


def test_a_terminated_run_ends_as_an_interrupted_one_and_keeps_its_rows(
    head: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(200):
        make_photo(tmp_path / f"in/{number}.png", number)
    words = ["localize", tmp_path / "in", "--out", tmp_path / "out", "--masks", "--device", "cpu"]
    words += ["--model", "untrained-pocket", "--head", head]
    child = started(lambda: app([str(word) for word in words]))
    while len([*(tmp_path / "out/masks").glob("[!.]*")]) < 20 and child.is_alive():
        time.sleep(0.01)
    child.terminate()
    child.join()
    assert child.exitcode == 130  # as the shell says of SIGINT
    assert "Traceback" not in capfd.readouterr().err
    assert 10 < len(pd.read_parquet(tmp_path / "out/localized.parquet")) < 200


def test_an_output_folder_that_is_a_file_is_one_sentence(head: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = localize(head, tmp_path / "out", make_photo(tmp_path / "photo.png"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert (tmp_path / "out").read_text() == "a file"


def test_help_names_the_commands_without_importing_torch() -> None:
    code = "import sys, dinolizer.cli; print('torch' in sys.modules, 'pandas' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
    for words, commands in (
        (
            [],
            (
                "localize",
                "report",
                "score",
                "merge",
                "fetch",
                "manifest",
                "check",
                "train",
                "study",
            ),
        ),
        (
            ["study"],
            ("prepare", "evaluate", "export-images", "summarise", "check-parameters"),
        ),
    ):
        output = CliRunner().invoke(app, [*words, "--help"]).output
        assert all(f"  {command} " in output for command in commands)
    assert CliRunner().invoke(app, ["--version"]).output == f"{dinolizer.__version__}\n"


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
        (["study", "prepare"], "train: [nowhere.csv]\ntest: [nowhere.csv]", "There is no file"),
        (
            ["study", "evaluate"],
            "train: [nowhere.csv]\ntest: [nowhere.csv]",
            "There is no file",
        ),
        (["study", "evaluate"], "weights: nowhere.safetensors", "nowhere.safetensors"),
        (["study", "evaluate"], "images: many", "sets images to 'many'"),
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
