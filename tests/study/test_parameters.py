"""A profile is held against a notebook before anything is run."""

from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dinolizer.errors import InputError
from dinolizer.paths import ROOT
from dinolizer.study import parameters

CELL = 'profile = "pocket"\nseed = 0\nrate = 1.0e-3\nheads = ["a"]'
PYTHON = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "03-benchmark.ipynb"
    cell = new_code_cell(CELL, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell], metadata=PYTHON), path)
    return path


def profile(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


def test_defaults_are_read_as_literals(notebook: Path) -> None:
    assert parameters.read_defaults(notebook) == {
        "profile": "pocket",
        "seed": 0,
        "rate": 1.0e-3,
        "heads": ["a"],
    }
    # papermill, which will set them, finds the same names.
    assert set(papermill.inspect_notebook(notebook)) == set(parameters.read_defaults(notebook))


def test_known_names_pass(notebook: Path, tmp_path: Path) -> None:
    given = profile(tmp_path, "profile: small\nrate: 1.0e-4\n")
    assert parameters.parameters_for(notebook, given) == {"profile": "small", "rate": 1.0e-4}


def test_a_notebook_takes_what_it_has_of_what_another_has_too(
    notebook: Path, tmp_path: Path
) -> None:
    other = new_code_cell("epochs = 20", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[other], metadata=PYTHON), tmp_path / "02-train.ipynb")
    given = profile(tmp_path, "seed: 3\nepochs: 5\n")
    assert parameters.parameters_for(notebook, given) == {"seed": 3}
    assert parameters.parameters_for(tmp_path / "02-train.ipynb", given) == {"epochs": 5}


def test_unknown_names_are_refused_with_the_known_ones(notebook: Path, tmp_path: Path) -> None:
    given = profile(tmp_path, "sede: 3\nseed: 3\nprofil: small\n")
    expected = (
        "sets sede, profil, unknown to 03-benchmark.ipynb and every notebook beside it: "
        "use only heads, profile, rate, seed."
    )
    with pytest.raises(InputError, match=expected):
        parameters.parameters_for(notebook, given)


@pytest.mark.parametrize(
    "line",
    [
        "rate: 1e-4",  # YAML 1.1 wants a point in a floating-point number: this is text to it
        "rate: .nan",
        "rate: null",
        "rate: true",
        "seed: -1",
        "seed: 1.5",
        "seed: [1]",
        "heads: a",
        "heads: [1]",
        "heads: [a, null]",
        "epochs: 0",
        "profile: 3",
        "seed: 1\nseed: 2",
    ],
)
def test_a_value_that_cannot_be_used_is_refused(line: str, tmp_path: Path) -> None:
    cell = new_code_cell(f"{CELL}\nepochs = 20", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell], metadata=PYTHON), tmp_path / "one.ipynb")
    with pytest.raises(InputError, match=line.split(":")[0]):
        parameters.parameters_for(tmp_path / "one.ipynb", profile(tmp_path, line))


@pytest.mark.parametrize("text", ["", "- a\n- b", "train:\n  seed: 3", "3"])
def test_a_profile_that_is_not_flat_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not flat"):
        parameters.read_profile(profile(tmp_path, text))


DIGITS = b"seed: " + b"9" * 5000


@pytest.mark.parametrize(
    "content",
    [
        *(b"a: [", b"\xff\xfe\x00", b"#" * 10_001, b"[" * 9999, DIGITS, b"!!map a"),
        *(b"seed: 2024-13-45", b"seed: !!int a", b"rate: !!float a", b"rate: !!timestamp a"),
    ],
)
def test_a_profile_that_is_not_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match="is no short YAML file") as caught:
        parameters.read_profile(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(notebook: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*none\.yaml"):
        parameters.parameters_for(notebook, tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"No notebook at .*none\.ipynb"):
        parameters.parameters_for(tmp_path / "none.ipynb", profile(tmp_path, "seed: 3"))


@pytest.mark.parametrize("text", ["", "hello", "{}", "[]", '{"cells": [1]}'])
def test_a_file_that_is_no_notebook_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a Python notebook"):
        parameters.read_defaults(path)


def test_a_parameter_that_is_no_literal_is_refused(tmp_path: Path) -> None:
    cell = new_code_cell('where = Path("x")', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell], metadata=PYTHON), tmp_path / "one.ipynb")
    with pytest.raises(InputError, match="with plain parameters"):
        parameters.read_defaults(tmp_path / "one.ipynb")


def test_a_notebook_without_parameters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("a = 1")], metadata=PYTHON), path)
    with pytest.raises(InputError, match="has no parameters"):
        parameters.read_defaults(path)


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    assert parameters.find_profile("pocket") == ROOT / "notebooks" / "profiles" / "pocket.yaml"
    with pytest.raises(InputError, match=r"Unknown profile 'poket': choose one of .*pocket"):
        parameters.find_profile("poket")


def test_every_notebook_takes_every_profile() -> None:
    for path in sorted((ROOT / "notebooks" / "profiles").glob("*.yaml")):
        for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
            parameters.parameters_for(notebook, path)
