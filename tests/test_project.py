"""The files around the package agree with one another."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image
from skimage import data

import dinolizer
from dinolizer.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
# An entry is 'name==version ; marker \' and then its hashes, each on a line of its own.
ENTRIES = re.findall(r"^(\S.*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", LOCK, re.M)


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_every_line_of_the_lock_is_a_version_a_hash_or_a_comment() -> None:
    rest = LOCK
    for requirement, hashes in ENTRIES:
        rest = rest.replace(f"{requirement} \\\n{hashes}", "")
        assert [clause.operator for clause in Requirement(requirement).specifier] == ["=="]
    assert [line for line in rest.splitlines() if not line.lstrip().startswith("#")] == []


def test_the_lock_has_every_dependency_once() -> None:
    locked = [canonicalize_name(Requirement(text).name) for text, _ in ENTRIES]
    assert len(locked) == len(set(locked))
    wanted = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    assert names(wanted) <= set(locked)
    for extra in PROJECT["optional-dependencies"].values():
        assert len(extra) == len(names(extra))
        assert not names(extra) & names(PROJECT["dependencies"]), "an extra repeats the core"


def needed(name: str, known: set[str]) -> set[str]:
    """A distribution and all that it requires here, added to those that are known."""
    known.add(canonicalize_name(name))
    for requirement in map(Requirement, metadata.requires(name) or []):
        here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if here and canonicalize_name(requirement.name) not in known:
            needed(requirement.name, known)
    return known


LOCALIZE = """
import sys
for name in sys.argv.pop().split(","):
    sys.modules[name] = None  # as if not installed
from dinolizer.cli import app
assert not {"numpy", "timm", "torch"} & sys.modules.keys(), "importing the package is not light"
app()
"""


def test_the_core_localizes_without_the_extras(tmp_path: Path) -> None:
    """Whatever its dependencies do not bring along is hidden from the process."""
    core: set[str] = set()
    for name in names(PROJECT["dependencies"]):
        needed(name, core)
    hidden = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & (core | {"dinolizer"})
    }
    assert {"accelerate", "jupyterlab", "matplotlib", "sklearn", "snakemake"} <= hidden
    Image.fromarray(data.astronaut()[:256, :256]).save(tmp_path / "photo.jpg")
    command = [sys.executable, "-c", LOCALIZE, "localize", "photo.jpg", "--out", "."]
    done = subprocess.run(
        [*command, ",".join(hidden)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        *("photo.jpg", "photo.mask.png", "photo.map.npz", "photo.json")
    }


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"://|--index|--find-links|--trusted|file:| @ |/\w+/", LOCK)
    assert "make lock" in LOCK.splitlines()[1]


def test_conda_gets_what_pip_takes(tmp_path: Path) -> None:
    """As conda does it: the lines in a file, pip in the folder of environment.yml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert SpecifierSet(python.removeprefix("python").strip()) == SpecifierSet(
        PROJECT["requires-python"]
    )
    assert pip == "pip"
    (line,) = packages["pip"]
    extras = Requirement(line.replace("-e .", "dinolizer")).extras
    assert extras == PROJECT["optional-dependencies"].keys() - {"dev"}
    (tmp_path / "lines.txt").write_text(line)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "-r", str(tmp_path / "lines.txt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Would install dinolizer-{dinolizer.__version__}" in done.stdout


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dinolizer.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    browser = "if command -v chromium; then make browser; fi"
    assert commands == ["make test fuzz verify site", browser]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    readme = (ROOT / "README.md").read_text()
    assert "make test" in readme and "make verify" in readme


def make(*words: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=own, capture_output=True, text=True, check=False
    )


def test_make_alone_says_what_there_is_and_all_of_it_is_there() -> None:
    lines = make().stdout.splitlines()
    targets = re.findall(r"^make (\w+) +\w", "\n".join(lines), re.M)
    phony = re.search(r"^\.PHONY: help (.*)", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    assert targets == phony[1].split()
    assert len(lines) == len(phony[1].split())
    for target in targets:
        assert make("--dry-run", target, "PHOTO=photo.jpg").returncode == 0


def test_a_demo_without_a_photograph_is_refused_before_anything_is_installed() -> None:
    done = make("demo")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Which photograph? make demo PHOTO=" in done.stderr
