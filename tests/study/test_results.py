"""Tables and figures are written to the digit, the same each time, with their provenance."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dinolizer.paths import results_dir
from dinolizer.study import results

PARAMETERS = {"profile": "pocket", "seed": 7, "backbone": "pocket"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "pocket"


def save_table(decimals: int = 3, **choices: object) -> Path:
    frame = pd.DataFrame({"method_name": ["a_b", "c"], "n": [3, 4], "iou": [0.12345, float("nan")]})
    made = results.Results("pocket", results_dir("pocket"), PARAMETERS, **choices)
    return made.save_table(frame, "03-benchmark", "Share in % of all.", decimals=decimals)


def save_figure(name: str = "curve") -> Path:
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], label="line")
    axes.legend()
    return results.Results("pocket", results_dir("pocket")).save_figure(figure, name, "A line.")


def test_csv_has_fixed_decimals_and_no_index(folder: Path) -> None:
    assert save_table() == folder / "tables" / "03-benchmark.csv"
    assert save_table().read_text() == "method_name,n,iou\na_b,3,0.123\nc,4,\n"
    assert save_table(decimals=2).read_text().splitlines()[1] == "a_b,3,0.12"


def test_latex_is_booktabs_with_text_escaped_and_the_profile_in_the_caption() -> None:
    lines = save_table().with_suffix(".tex").read_text().splitlines()
    assert r"\toprule" in lines
    assert r"\bottomrule" in lines
    assert r"\caption{Share in \% of all. Profile: pocket.}" in lines
    assert r"\label{tab:03-benchmark}" in lines
    assert r"method\_name & n & iou \\" in lines
    assert r"a\_b & 3 & 0.123 \\" in lines
    assert r"c & 4 & -- \\" in lines


def test_figure_is_150_dpi_and_the_same_bytes_each_time(folder: Path) -> None:
    path = save_figure()
    assert path == folder / "figures" / "curve.png"
    with Image.open(path) as image:
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert image.mode == "P"
    first = path.read_bytes()
    save_figure()
    assert path.read_bytes() == first
    assert {one.name for one in path.parent.iterdir()} == {"curve.png", "curve.json"}


def test_the_footer_of_a_figure_says_that_the_pocket_profile_is_small() -> None:
    pocket, paper = (results.Results(profile, Path()) for profile in ("pocket", "paper"))
    assert pocket.note("n = 3") == "profile: pocket (a small demonstration); n = 3"
    assert paper.note() == "profile: paper"


def test_provenance_says_where_a_table_comes_from_and_is_the_same_each_time(folder: Path) -> None:
    made = {"sources": {"backbone pocket": "a" * 64}, "command": "papermill 03-benchmark.ipynb"}
    path = save_table(**made).with_suffix(".json")
    record = json.loads(path.read_text())
    assert record["parameters"] == PARAMETERS
    assert record["caption"] == "Share in % of all. Profile: pocket."
    assert record["sources"] == made["sources"]
    assert record["command"] == made["command"]
    assert set(results.PACKAGES) | {"python"} == set(record["versions"])
    first = path.read_bytes()
    save_table(**made)
    assert path.read_bytes() == first
    # What changes with every run lies beside, in a folder that git leaves alone.
    facts = json.loads((folder / "log" / "03-benchmark.csv.json").read_text())
    assert facts.keys() >= {"time", "seconds", "commit", "dirty", "machine", "device"}
    assert not facts.keys() & record.keys()
    ignored = subprocess.run(
        ["git", "check-ignore", "results/pocket/log/03-benchmark.csv.json"],
        cwd=results.ROOT,
        check=False,
    )
    assert ignored.returncode == 0


def test_the_log_names_the_commit_and_whether_it_was_changed(tmp_path, monkeypatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "results").mkdir(parents=True)
    monkeypatch.setattr(results, "ROOT", checkout)
    record = results.run_facts
    assert (record()["commit"], record()["dirty"]) == (None, None)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(checkout), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (checkout / "code.py").write_text("1")
    (checkout / "results" / "table.csv").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    (checkout / "results" / "table.csv").write_text("2")  # made anew: no change of the code
    assert (record()["commit"], record()["dirty"]) == (git("rev-parse", "HEAD"), False)
    (checkout / "code.py").write_text("2")
    assert record()["dirty"] is True


def test_nothing_half_written_where_a_figure_cannot_be_drawn(folder: Path, monkeypatch) -> None:
    def fail(*arguments: object, **choices: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure()
    assert list((folder / "figures").glob("*")) == []
