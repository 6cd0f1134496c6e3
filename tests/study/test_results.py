"""Tables and figures are written to the digit, the same each time, with their provenance."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.paths import ROOT, results_dir
from dinolizer.study import results
from dinolizer.study.results import LIST, Results, check, compare, sign, summarise_results, tables
from dinolizer.study.verdicts import judge

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


def test_figure_is_200_dpi_and_the_same_bytes_each_time(folder: Path) -> None:
    path = save_figure()
    assert path == folder / "figures" / "curve.png"
    with Image.open(path) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # the page stays white
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
    assert facts.keys() >= {"time", "seconds", "commit", "machine", "device"}
    assert not facts.keys() & record.keys()
    ignored = subprocess.run(
        ["git", "check-ignore", "results/pocket/log/03-benchmark.csv.json"],
        cwd=results.ROOT,
        check=False,
    )
    assert ignored.returncode == 0


def test_the_log_names_the_commit_and_whether_it_was_changed(tmp_path, monkeypatch) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.setattr(results, "ROOT", checkout)
    assert results.run_facts()["commit"] is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(checkout), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (checkout / "code.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert results.run_facts()["commit"] == git("rev-parse", "HEAD")
    (checkout / "code.py").write_text("2")
    assert results.run_facts()["commit"] == f"{git('rev-parse', 'HEAD')}-dirty"


def test_nothing_half_written_where_a_figure_cannot_be_drawn(folder: Path, monkeypatch) -> None:
    def fail(*arguments: object, **choices: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure()
    assert list((folder / "figures").glob("*")) == []


@pytest.fixture
def signed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results with a table, a table of verdicts and a figure, signed."""
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path))
    results = Results("pocket", results_dir("pocket"), {"profile": "pocket"})
    results.save_table(pd.DataFrame({"method": ["a", "b"], "iou": [0.25, 0.5]}), "04-iou", "IoU.")
    results.save_table(pd.DataFrame({"s": [1.5]}), "04-seconds", "Times.")
    results.save_verdict("04", "seven", judge("jpeg", (0.3, -0.1, 0.5), "the difference is over 0"))
    results.save_figure(Figure(figsize=(1, 1)), "04-curves", "Curves.")
    summarise_results("pocket")
    sign(tmp_path / "pocket")
    return tmp_path / "pocket"


def test_a_copy_anywhere_and_of_any_name_is_as_good(signed_folder: Path) -> None:
    copy = shutil.copytree(signed_folder, signed_folder.parent / "a" / "copy of it")
    assert check(copy) == []
    committed = shutil.copytree(ROOT / "results" / "pocket", signed_folder.parent / "b" / "c")
    assert check(committed) == []


def test_a_damaged_list_is_told_line_by_line(signed_folder: Path) -> None:
    (signed_folder / LIST).write_bytes(b"no list\n\xff\n" + (signed_folder / LIST).read_bytes())
    assert check(signed_folder) == [": is listed, but is not there"]


@pytest.mark.parametrize("seed", range(20))
def test_any_digit_of_a_committed_table_and_any_pixel_is_noticed(seed: int, tmp_path: Path) -> None:
    """Where it is edited is drawn at random; the list is not signed again."""
    rng = np.random.default_rng(seed)
    signed_folder = shutil.copytree(ROOT / "results" / "pocket", tmp_path / "pocket")
    table = rng.choice(sorted((signed_folder / "tables").glob("*.csv")))
    text = table.read_text()
    at = rng.choice([place for place, letter in enumerate(text) if letter.isdigit()])
    table.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    figure = rng.choice(sorted((signed_folder / "figures").glob("*.png")))
    with Image.open(figure) as image:
        x, y = rng.integers(image.size)
        image.putpixel((int(x), int(y)), image.getpixel((int(x), int(y))) ^ 1)
        image.save(figure)
    lines = check(signed_folder)
    for path in (table, figure):
        assert f"{path.relative_to(signed_folder)}: is not the file that was made" in lines


def test_what_was_made_is_as_it_was_made(signed_folder: Path) -> None:
    assert check(signed_folder) == []
    assert tables(signed_folder) == {
        "tables/04-iou.csv",
        "tables/04-verdict.csv",
    }  # not that of times


def test_the_list_is_one_that_sha256sum_reads(signed_folder: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", LIST]
    assert subprocess.run(command, cwd=signed_folder, check=True, capture_output=True).stdout == b""
    table = (signed_folder / "tables/04-iou.csv").read_bytes()
    assert (
        f"{hashlib.sha256(table).hexdigest()}  tables/04-iou.csv"
        in (signed_folder / LIST).read_text()
    )


def test_one_digit_of_a_table_is_noticed(signed_folder: Path) -> None:
    table = signed_folder / "tables/04-iou.csv"
    table.write_text(table.read_text().replace("0.250", "0.251"))
    assert check(signed_folder) == ["tables/04-iou.csv: is not the file that was made"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("04-verdict.json", text) for text in ("[]", "null", "[" * 100_000, '{"parameters": 3}')),
        ("04-verdict.csv", "not a number"),
        ("04-iou.json", '"no record"'),
    ],
)
def test_what_is_no_record_or_number_any_more_is_told(
    name: str, text: str, signed_folder: Path
) -> None:
    path = signed_folder / "tables" / name
    if path.suffix == ".csv":
        table = pd.read_csv(path).astype({"number": object})
        table.loc[0, "number"] = text
        table.to_csv(path, index=False)
    else:
        path.write_text(text)
    first, second = check(signed_folder)
    assert first == f"tables/{name}: is not the file that was made"
    assert second.startswith("The summary cannot be made from the tables")


def test_one_pixel_of_a_figure_is_noticed(signed_folder: Path) -> None:
    path = signed_folder / "figures/04-curves.png"
    pixels = np.array(Image.open(path).convert("RGB"))
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    assert check(signed_folder) == ["figures/04-curves.png: is not the file that was made"]


def test_a_verdict_that_does_not_follow_is_noticed_though_signed_again(signed_folder: Path) -> None:
    table = signed_folder / "tables/04-verdict.csv"
    table.write_text(table.read_text().replace("undecided", "supported"))
    summarise_results("pocket")
    sign(signed_folder)
    assert check(signed_folder) == [
        "tables/04-verdict.csv: jpeg is called 'supported', which does not follow from its number"
    ]


def test_a_summary_that_does_not_follow_is_noticed_though_signed_again(signed_folder: Path) -> None:
    page = signed_folder / "SUMMARY.md"
    page.write_text(page.read_text().replace("0.30 (-0.10 to 0.50)", "0.30 (0.10 to 0.50)"))
    sign(signed_folder)
    assert check(signed_folder) == ["SUMMARY.md: does not follow from the tables"]


def test_missing_and_further_files_are_named_at_the_shell(signed_folder: Path) -> None:
    (signed_folder / "tables/04-iou.tex").unlink()
    (signed_folder / "figures/05-new.png").write_bytes(b"")
    result = CliRunner().invoke(app, ["verify", "--quick", str(signed_folder)])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "dinolizer: tables/04-iou.tex: is listed, but is not there",
        "dinolizer: figures/05-new.png: is there, but not listed",
    ]


def test_a_missing_record_of_a_table_leaves_the_rest_told(signed_folder: Path) -> None:
    (signed_folder / "tables/04-iou.json").unlink()
    missing, summary = check(signed_folder)
    assert missing == "tables/04-iou.json: is listed, but is not there"
    assert summary.startswith("The summary cannot be made from the tables")


def test_a_verdict_is_decided_on_what_its_table_says(signed_folder: Path) -> None:
    # 0.8004 is over 0.8, but is written as 0.800, which is not.
    results = Results("pocket", results_dir("pocket"))
    table = results.save_verdict(
        "04", "seven", judge("jpeg", (0.9, 0.8004, 0.95), "over 0.8", over=0.8)
    )
    assert table["verdict"].tolist() == ["undecided"]
    summarise_results("pocket")
    sign(signed_folder)
    assert check(signed_folder) == []


def test_a_folder_that_is_none_of_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no list .*SHA256SUMS of what was made"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m,iou\na,0.255\nb,0.5\n", ""),  # within 0.01
        ("m,iou\na,0.27\nb,0.5\n", "At positional index 0, first diff: 0.27 != 0.25"),
        ("m,iou\na,0.25\nc,0.5\n", "At positional index 1, first diff: 'c' != 'b'"),
        ("m,iou\na,0.25\nb,\n", "At positional index 1, first diff: nan != 0.5"),
        ("m,iou\na,0.25\n", "[left]: (1, 2) [right]: (2, 2)"),
    ],
)
def test_tables_are_compared_number_by_number(text: str, expected: str, tmp_path: Path) -> None:
    for name, content in {"new": text, "old": "m,iou\na,0.25\nb,0.5\n"}.items():
        path = tmp_path / name / "tables" / "04-iou.csv"
        path.parent.mkdir(parents=True)
        path.write_text(content)
    new, old = tmp_path / "new", tmp_path / "old"
    lines = compare(new, old)
    assert len(lines) == bool(expected)
    assert all(line.startswith("tables/04-iou.csv: ") for line in lines)
    assert all(line.endswith(expected) for line in lines)


def test_a_table_that_is_not_made_any_more_is_named(signed_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    assert "tables/04-iou.csv: is not made any more" in compare(tmp_path / "fresh", signed_folder)


def test_the_committed_results_are_consistent() -> None:
    assert check(ROOT / "results" / "pocket") == []
