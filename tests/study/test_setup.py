"""One line opens a study, checked before anything is made, and says where its results come from."""

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from small import small_backbone, small_manifest

from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.model.batches import batch_size
from dinolizer.paths import PROFILES, ROOT, results_dir
from dinolizer.study import setup
from dinolizer.study.experiments.robustness import CASES
from dinolizer.study.parameters import read_defaults
from dinolizer.study.samples import Dataset
from dinolizer.study.setup import Study, hours_text

NOTEBOOK = "03-benchmark"
CELL = read_defaults(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb")


def opened(**changed: Any) -> Study:
    return Study.open(NOTEBOOK, {"unrelated": object(), **CELL, **changed})


def test_a_name_that_papermill_puts_in_and_no_cell_knows_is_refused() -> None:
    from papermill.translators import PythonTranslator

    for values, unknown in (({"seed": 1}, None), ({"sede": 1, "seed": float("nan")}, "sede")):
        cells = ["", "import numpy", PythonTranslator.codify(values), "later = 1"]
        if unknown is None:
            opened(In=cells)
            continue
        with pytest.raises(InputError, match="has no parameter sede: use only profile, backbone"):
            opened(In=cells)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results go where they would without the variable, but below another root."""
    monkeypatch.delenv("DINOLIZER_RESULTS")
    monkeypatch.setattr("dinolizer.paths.ROOT", tmp_path)
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    return tmp_path


def test_a_notebook_run_by_hand_writes_over_no_committed_result(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changed in ({}, {"backbone": "untrained-pocket"}, {"seed": 1}, {"profile": "mine"}):
        other = opened(**changed)
        assert other.results.folder == checkout / "data" / "out" / other.parameters["profile"]
    monkeypatch.setenv("DINOLIZER_RESULTS", str(checkout / "results"))  # as the workflow does
    laptop = Study.of_profile(NOTEBOOK, PROFILES / "laptop.yaml")
    assert laptop.results.folder == checkout / "results" / "laptop"


def test_all_parameters_and_hashes_are_recorded_by_themselves(monkeypatch) -> None:
    images = pd.DataFrame({"image": [], "mask": []})
    monkeypatch.setattr(setup, "load", lambda *_, **__: Dataset(images, None, {"images": "abc"}))
    study = opened()
    assert (study.model.spec.name, study.dataset.train) == ("pocket", None)
    study.load_model("untrained-pocket")
    study.results.save_table(pd.DataFrame({"a": [1]}), "03-benchmark", "A table")
    record = json.loads((results_dir("pocket") / "tables" / "03-benchmark.json").read_text())
    assert record["parameters"] == CELL  # as the notebook's file says, however many there are
    assert record["sources"] == {
        "backbone pocket": load_backbone("pocket").hash,
        "images": "abc",
        "backbone untrained-pocket": load_backbone("untrained-pocket").hash,
    }


def test_the_recorded_command_makes_the_same_study_again() -> None:
    command = shlex.split(opened().results.command)
    assert command[0] == "snakemake"
    assert command[-1] == NOTEBOOK
    assert "profile=pocket" in command
    changed = {"seed": 3, "peers": ["a b", "c"], "weights": "w.safetensors"}
    command = shlex.split(opened(**changed).results.command)
    assert command[:2] == ["papermill", f"notebooks/{NOTEBOOK}.ipynb"]
    assert yaml.safe_load(command[command.index("-y") + 1]) == CELL | changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backbone": "dinov9"}, "dinov9"),
        ({"seed": -1}, "-1"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"limit": float("nan")}, "nan"),
        ({"photos": None}, "None"),
        ({"peers": "maps"}, "'maps'"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_forged(
    changed: dict[str, Any], words: str, monkeypatch
) -> None:
    monkeypatch.setattr(setup, "load", lambda *_, **__: pytest.fail("forged"))
    with pytest.raises(InputError, match=words):
        opened(**changed)


def test_windows_and_hours_are_counted_by_hand(tmp_path: Path, monkeypatch) -> None:
    """Images of 70 x 90 pixels have 2 x 3 windows of 56 every 28. Nine are tested, the three that
    are spliced degraded, and twelve trained on in fifty epochs; a window takes 9 seconds."""
    batch = batch_size(small_backbone().device, 56)
    monkeypatch.setattr(setup, "median_seconds", lambda run, least: run() is not None and 9 * batch)
    tested = read_manifest(small_manifest(tmp_path / "test", 9, ("test",)))
    tested = tested.assign(family="x", seen=True, condition="clean")
    training = read_manifest(small_manifest(tmp_path / "train"))
    given = {"profile": "mine", "epochs": 50, "families": [], "images": 0, "seed": 0}
    for train, windows in ((training, 50 * 12), (None, 0)):
        study = Study("04-robustness", given)
        study.__dict__.update(model=small_backbone(), dataset=Dataset(tested, train))
        said = hours_text(study)
        windows += 6 * 9 + 6 * 3 * len(CASES)
        assert said.startswith(f"mine: about {windows:,} windows of the head")
        hours = 9 * windows / 3600
        time = f"{hours:.0f} h" if train is not None else f"{60 * hours:.0f} min"
        assert said.endswith(f"; at 0.111 per second here: about {time}")


def test_an_unknown_family_is_refused_where_photographs_are_forged(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("profile: small\nfamilies: [telea, sd2]\n")
    with pytest.raises(InputError, match=r"sets families\.1 to 'sd2': input should be 'telea'"):
        Study.of_profile("04-robustness", path)
    path.write_text("profile: small\nfamilies: [sd2]\ntrain: [a.csv]\ntest: [b.csv]\n")
    assert Study.of_profile("04-robustness", path).parameters["families"] == ["sd2"]


def test_a_study_without_its_parameters_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="no value of 'seed': run its parameters cell"):
        Study.open(NOTEBOOK, {name: value for name, value in CELL.items() if name != "seed"})
    with pytest.raises(InputError, match="No notebook"):
        Study.open("99-none", CELL)
