"""Every command and snippet of the README works as it stands.

Blocks run in order in a temporary folder that holds ``photo.jpg`` and a link to ``notebooks``:
python blocks share their names, bash blocks are run whole. Of commands that set up a checkout or
take minutes, what they refer to is checked instead: a make target, a file.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from dinolizer.paths import ROOT

BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
NOT_RUN = ("git clone", "cd ", "make ", "conda ")


def check(command: str) -> None:
    """Hold a command that is not run against the checkout."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), command
    elif words[:3] == ["conda", "env", "create"]:
        assert (ROOT / words[words.index("-f") + 1]).is_file(), command


def test_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BLOCKS
    monkeypatch.chdir(tmp_path)
    # The programs of the environment that runs this test, whether or not it is activated.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    Image.fromarray(data.astronaut()).save("photo.jpg", quality=95)
    Path("notebooks").symlink_to(ROOT / "notebooks")
    namespace: dict[str, object] = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), namespace)
            continue
        lines = text.splitlines(keepends=True)
        for line in lines:
            if line.startswith(NOT_RUN):
                check(line)
        script = "".join(line for line in lines if not line.startswith(NOT_RUN))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_every_file_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
