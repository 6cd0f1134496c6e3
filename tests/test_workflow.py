"""The Snakefile, run on miniature notebooks that make empty files of the right names."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dinolizer.paths import ROOT

CHOSEN = "A1-pocket"  # it needs nothing prepared
PYTHON = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
MAKES = """
from dinolizer.paths import results_dir
for file in {files}:
    path = results_dir(profile) / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
"""


DIES_ONCE = """#!/usr/bin/env bash
case "$2" in
    prepare) echo prepare >> jobs ;;
    *) echo "evaluate ${@: -1}" >> jobs ;;
esac
if [ "${@: -1}" = 1/2 ] && mkdir died 2> /dev/null; then kill -9 $$; fi
"""


def declared() -> dict[str, dict[str, Any]]:
    """The literal at the top of the Snakefile."""
    source = (ROOT / "Snakefile").read_text()
    return ast.literal_eval(source.split("NOTEBOOKS = ", 1)[1].split("\n}\n", 1)[0] + "\n}")


def files(made: dict[str, Any]) -> list[str]:
    return (
        [
            f"tables/{name}.{end}"
            for name in made.get("tables", [])
            for end in ("csv", "tex", "json")
        ]
        + [f"figures/{name}.{end}" for name in made.get("figures", []) for end in ("png", "json")]
        + (["heads/pocket.safetensors"] if made.get("heads") else [])
    )


def write_notebook(folder: Path, name: str, *extra: str) -> None:
    cells = [
        new_code_cell(
            'profile = "pocket"\nbackbone = ""\nseed = 0', metadata={"tags": ["parameters"]}
        ),
        new_code_cell(MAKES.format(files=files(declared()[name]))),
        *map(new_code_cell, extra),
    ]
    nbformat.write(
        new_notebook(cells=cells, metadata=PYTHON), folder / "notebooks" / f"{name}.ipynb"
    )


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    for name in declared():
        write_notebook(tmp_path, name)
    for name in ("Snakefile", "bulk.smk"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "the results"))
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "a cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def planned(checkout: Path) -> set[str]:
    """Names of the rules that would run now."""
    said = snakemake(checkout, "--dry-run", "--quiet", "rules")
    assert said.returncode == 0, said.stderr
    return {name for name in declared() if f"\n{name} " in said.stdout + said.stderr}


def test_a_notebook_is_run_once(checkout: Path) -> None:
    done = snakemake(checkout, "--", CHOSEN)
    assert done.returncode == 0, done.stderr
    executed = checkout / "the results" / "pocket" / "notebooks" / f"{CHOSEN}.ipynb"
    assert 'profile = "pocket"' in nbformat.read(executed, 4).cells[1].source
    assert not (checkout / "a cache" / "pocket" / f"{CHOSEN}.ipynb").exists()
    assert planned(checkout) == set(declared()) - {CHOSEN}


def test_a_fresh_clone_makes_all_and_later_only_what_is_missing(checkout: Path) -> None:
    for made in declared().values():  # committed results alone spare no run
        for file in files(made):
            path = checkout / "the results" / "pocket" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert planned(checkout) == set(declared())
    # As if this one had been run: the markers and its executed copy are there.
    executed = checkout / "the results" / "pocket" / "notebooks" / f"{CHOSEN}.ipynb"
    executed.parent.mkdir()
    executed.touch()
    assert snakemake(checkout, "--touch", "--", CHOSEN).returncode == 0
    (checkout / "the results" / "pocket" / files(declared()[CHOSEN])[0]).unlink()
    assert CHOSEN in planned(checkout)


def test_a_failed_run_keeps_its_notebook_and_names_the_cell(checkout: Path) -> None:
    write_notebook(checkout, CHOSEN, "1 / 0")
    failed = snakemake(checkout, "--retries", "0", "--", CHOSEN)
    assert failed.returncode == 1
    # The cell that papermill adds for the profile is the second, so that the third of ours is 4.
    assert 'Exception encountered at "In [4]"' in failed.stderr
    assert (
        f"notebooks/{CHOSEN}.ipynb failed, kept as far as it ran: a cache/pocket" in failed.stderr
    )
    kept = nbformat.read(checkout / "a cache" / "pocket" / f"{CHOSEN}.ipynb", 4)
    assert "ZeroDivisionError" in str(kept.cells[-1].outputs)
    assert not (checkout / "the results" / "pocket" / "notebooks" / f"{CHOSEN}.ipynb").exists()


def test_make_results_shows_a_line_for_each_step_and_what_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "profiles"), prepend=os.pathsep)
    write_notebook(checkout, CHOSEN, "1 / 0")
    both = ("--keep-going", "--retries", "0", "--", CHOSEN, "10-published-model")
    done = snakemake(checkout, "--logger", "lines", *both)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    step = re.compile(r"\[1/2\] 10-published-model \d+:\d\d, about \d+:\d\d left")
    assert any(map(step.fullmatch, lines)), lines  # what a failed kernel said may come first
    assert "ZeroDivisionError" in done.stderr
    assert f"{CHOSEN} failed; what it said is above." in lines


def test_a_job_that_dies_is_started_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a command in place of the real one: it dies at shard 1 the first time."""
    command = checkout / "bin" / "dinolizer"
    command.parent.mkdir()
    command.write_text(DIES_ONCE)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    markers = [f"a cache/pocket/evaluated-{number}-of-2.done" for number in (1, 2)]
    done = snakemake(checkout, "--", *markers)
    assert done.returncode == 0, done.stderr
    jobs = (checkout / "jobs").read_text().splitlines()
    assert sorted(jobs) == ["evaluate 1/2", "evaluate 1/2", "evaluate 2/2", "prepare"]


def test_rows_are_shared_among_as_many_jobs_as_asked_for(checkout: Path) -> None:
    for asked, jobs in (([], 2), (["--config", "shards=3"], 3)):
        said = snakemake(checkout, "--dry-run", *asked)
        assert said.returncode == 0, said.stderr
        assert said.stdout.count("rule evaluate:") == jobs
        for name in ("03-benchmark", "04-robustness"):
            inputs = said.stdout.split(f"rule {name}:\n    input: ")[1].splitlines()[0]
            assert inputs.count(f"-of-{jobs}.done") == jobs


@pytest.mark.parametrize(
    ("profile", "rules", "table"),
    [
        ("published", {"all", "10-published-model", "summary"}, "10-comparison"),
        ("real", {"all", "11-real-inpaintings", "summary"}, "11-generators"),
    ],
)
def test_some_profiles_run_one_notebook(
    profile: str, rules: set[str], table: str, checkout: Path
) -> None:
    said = snakemake(checkout, "--dry-run", "--config", f"profile={profile}")
    assert said.returncode == 0, said.stderr
    assert set(re.findall(r"^(?:local)?rule (\S+):$", said.stdout, re.M)) == rules
    assert f"tables/{table}.csv" in said.stdout


def test_an_unknown_profile_is_refused_before_anything_is_run(checkout: Path) -> None:
    refused = snakemake(checkout, "--config", "profile=poket")
    assert refused.returncode == 1
    assert "Unknown profile 'poket'" in refused.stderr
