"""Every command and snippet of the README works as it stands.

Blocks run in order in a temporary folder that holds ``photo.jpg`` and a link to ``notebooks``:
python blocks share their names, and commands of this project are run in this process. Of those that
set up a checkout, download or take minutes, what they refer to is checked instead: a make target, a
file, a name, the parameters of a notebook.
"""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from PIL import Image
from skimage import data
from trees import make_folder
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.manifest import read_manifest
from dinolizer.model.specs import BACKBONES
from dinolizer.options import FetchName
from dinolizer.paths import ROOT
from dinolizer.study.parameters import read_defaults

BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_RUN = ("git clone", "python3 -m venv ", "cd ", "make ", "conda ", "pip ", "dinolizer fetch ")


def check(command: str) -> None:
    """Hold a command that is not run against the checkout."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), command
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"[a-z]+", words[2])
        assert set(extras) <= set(PROJECT["optional-dependencies"]), command
    elif words[:2] == ["dinolizer", "fetch"]:
        assert words[2] in get_args(FetchName), command
    elif words[:3] == ["conda", "env", "create"]:
        assert (ROOT / words[words.index("-f") + 1]).is_file(), command


def run(command: str) -> None:
    words = shlex.split(command, comments=True)
    if not words:
        return
    if words[0] == "dinolizer":
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}"
    elif words[0] == "papermill":
        values = dict(
            zip(words[words.index("-p") + 1 :: 3], words[words.index("-p") + 2 :: 3], strict=True)
        )
        assert values.keys() <= read_defaults(Path(words[1])).keys()
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)


def test_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BLOCKS
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.astronaut()).save("photo.jpg", quality=95)
    for name in ("notebooks", "pretraining"):
        Path(name).symlink_to(ROOT / name)
    namespace: dict[str, object] = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), namespace)
            continue
        for line in text.splitlines():
            (check if line.startswith(NOT_RUN) else run)(line)


def test_the_worked_example_of_own_pictures_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "data" / "README.md").read_text()
    section = text.partition("## Your own pictures, end to end\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.astronaut()[:256, :256]).save("photo.jpg", quality=95)
    make_folder(Path("mine"), number=5, side=256)
    for line in block.splitlines():
        run(line)
    assert Path("scores/scores.png").is_file() and Path("found/photo.mask.png").is_file()
    splits = read_manifest(Path("mine.csv")).groupby("split")["image"].size()
    assert splits.to_dict() == {"train": 9, "valid": 3, "test": 3}  # three of each photograph
    assert len(pd.read_csv("scores/image-scores.csv")) == 3


def test_every_file_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)[^)\s]*\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_the_readme_shows_of_stderr_is_what_is_said() -> None:
    said = f"dinolizer: model 'dinolizer'. {BACKBONES['dinolizer'].caution}\n"
    assert f"```text\n{said}```\n" in (ROOT / "README.md").read_text()
