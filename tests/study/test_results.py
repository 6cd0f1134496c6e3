"""Tables and figures are written to the digit, the same each time, with their provenance."""

import hashlib
import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dinolizer.study import results

PARAMETERS = {"profile": "pocket", "seed": 7, "backbone": "pocket"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "pocket"


def save_table(decimals: int = 3, **choices: object) -> Path:
    frame = pd.DataFrame({"method_name": ["a_b", "c"], "n": [3, 4], "iou": [0.12345, float("nan")]})
    made = results.Results("pocket", PARAMETERS, **choices)
    return made.save_table(frame, "03-benchmark", "Share in % of all.", decimals=decimals)


def save_figure(name: str = "curve") -> Path:
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], label="line")
    axes.legend()
    return results.Results("pocket", PARAMETERS).save_figure(figure, name, "A line.")


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
        assert image.info["Description"] == "A line. Profile: pocket."
    first = [path.with_suffix(suffix).read_bytes() for suffix in (".png", ".svg")]
    save_figure()
    assert [path.with_suffix(suffix).read_bytes() for suffix in (".png", ".svg")] == first
    assert b"A line. Profile: pocket." in first[1]


def test_the_footer_of_a_figure_says_that_the_pocket_profile_is_small() -> None:
    pocket, paper = (results.Results(profile, {}) for profile in ("pocket", "paper"))
    assert pocket.note("n = 3") == "profile: pocket (a small demonstration); n = 3"
    assert paper.note() == "profile: paper"


def test_provenance_says_where_a_table_comes_from(tmp_path: Path) -> None:
    elsewhere = tmp_path / "photo.png"
    elsewhere.write_bytes(b"abc")
    within = results.ROOT / "pyproject.toml"
    path = save_table(inputs=[elsewhere, within], device="cuda")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["parameters"] == PARAMETERS
    assert record["seed"] == 7
    assert record["device"] == "cuda"
    assert record["caption"] == "Share in % of all. Profile: pocket."
    assert record["inputs"] == {
        # FIPS 180-2, appendix B.1: the digest of "abc".
        "photo.png": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "pyproject.toml": hashlib.sha256(within.read_bytes()).hexdigest(),
    }
    assert set(results.PACKAGES) | {"python"} == set(record["versions"])
    assert record["seconds"] >= 0
    assert str(tmp_path) not in path.with_suffix(".json").read_text()


def test_provenance_names_the_commit_and_whether_it_was_changed(tmp_path, monkeypatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "results").mkdir(parents=True)
    monkeypatch.setattr(results, "ROOT", checkout)

    def record() -> dict[str, object]:
        return json.loads(results.Results("pocket", {}).provenance(""))

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
    assert list((folder / "figures").iterdir()) == []
