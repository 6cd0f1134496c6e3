"""Whatever is edited in committed results is noticed."""

import hashlib
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
from dinolizer.study.results import LIST, Results, check, compare, sign, summarise_results, tables
from dinolizer.study.verdicts import judge


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results with a table, a table of verdicts and a figure, signed."""
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path))
    results = Results("pocket", results_dir("pocket"), {"profile": "pocket"})
    results.save_table(pd.DataFrame({"method": ["a", "b"], "iou": [0.25, 0.5]}), "04-iou", "IoU.")
    results.save_table(pd.DataFrame({"s": [1.5]}), "04-seconds", "Times.")
    results.save_verdict("04", judge("jpeg", (0.3, -0.1, 0.5), "the difference is over 0"))
    results.save_figure(Figure(figsize=(1, 1)), "04-curves", "Curves.")
    summarise_results("pocket")
    sign(tmp_path / "pocket")
    return tmp_path / "pocket"


def test_a_copy_anywhere_and_of_any_name_is_as_good(folder: Path) -> None:
    copy = shutil.copytree(folder, folder.parent / "a" / "copy of it")
    assert check(copy) == []
    committed = shutil.copytree(ROOT / "results" / "pocket", folder.parent / "b" / "c")
    assert check(committed) == []


def test_a_damaged_list_is_told_line_by_line(folder: Path) -> None:
    (folder / LIST).write_bytes(b"no list\n\xff\n" + (folder / LIST).read_bytes())
    assert check(folder) == [": is listed, but is not there"]


@pytest.mark.parametrize("seed", range(20))
def test_any_digit_of_a_committed_table_and_any_pixel_is_noticed(seed: int, tmp_path: Path) -> None:
    """Where it is edited is drawn at random; the list is not signed again."""
    rng = np.random.default_rng(seed)
    folder = shutil.copytree(ROOT / "results" / "pocket", tmp_path / "pocket")
    table = rng.choice(sorted((folder / "tables").glob("*.csv")))
    text = table.read_text()
    at = rng.choice([place for place, letter in enumerate(text) if letter.isdigit()])
    table.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    figure = rng.choice(sorted((folder / "figures").glob("*.png")))
    with Image.open(figure) as image:
        x, y = rng.integers(image.size)
        image.putpixel((int(x), int(y)), image.getpixel((int(x), int(y))) ^ 1)
        image.save(figure)
    lines = check(folder)
    for path in (table, figure):
        assert f"{path.relative_to(folder)}: is not the file that was made" in lines


def test_what_was_made_is_as_it_was_made(folder: Path) -> None:
    assert check(folder) == []
    assert tables(folder) == {"tables/04-iou.csv", "tables/04-verdict.csv"}  # not that of times


def test_the_list_is_one_that_sha256sum_reads(folder: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", LIST]
    assert subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout == b""
    table = (folder / "tables/04-iou.csv").read_bytes()
    assert f"{hashlib.sha256(table).hexdigest()}  tables/04-iou.csv" in (folder / LIST).read_text()


def test_one_digit_of_a_table_is_noticed(folder: Path) -> None:
    table = folder / "tables/04-iou.csv"
    table.write_text(table.read_text().replace("0.250", "0.251"))
    assert check(folder) == ["tables/04-iou.csv: is not the file that was made"]


def test_one_pixel_of_a_figure_is_noticed(folder: Path) -> None:
    path = folder / "figures/04-curves.png"
    pixels = np.array(Image.open(path).convert("RGB"))
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    assert check(folder) == ["figures/04-curves.png: is not the file that was made"]


def test_a_verdict_that_does_not_follow_is_noticed_though_signed_again(folder: Path) -> None:
    table = folder / "tables/04-verdict.csv"
    table.write_text(table.read_text().replace("undecided", "supported"))
    summarise_results("pocket")
    sign(folder)
    assert check(folder) == [
        "tables/04-verdict.csv: jpeg is called 'supported', which does not follow from its number"
    ]


def test_a_summary_that_does_not_follow_is_noticed_though_signed_again(folder: Path) -> None:
    page = folder / "SUMMARY.md"
    page.write_text(page.read_text().replace("0.30 (-0.10 to 0.50)", "0.30 (0.10 to 0.50)"))
    sign(folder)
    assert check(folder) == ["SUMMARY.md: does not follow from the tables"]


def test_missing_and_further_files_are_named_at_the_shell(folder: Path) -> None:
    (folder / "tables/04-iou.tex").unlink()
    (folder / "figures/05-new.png").write_bytes(b"")
    result = CliRunner().invoke(app, ["verify", "--quick", str(folder)])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "dinolizer: tables/04-iou.tex: is listed, but is not there",
        "dinolizer: figures/05-new.png: is there, but not listed",
    ]


def test_a_missing_record_of_a_table_leaves_the_rest_told(folder: Path) -> None:
    (folder / "tables/04-iou.json").unlink()
    missing, summary = check(folder)
    assert missing == "tables/04-iou.json: is listed, but is not there"
    assert summary.startswith("The summary cannot be made from the tables")


def test_a_verdict_is_decided_on_what_its_table_says(folder: Path) -> None:
    # 0.8004 is over 0.8, but is written as 0.800, which is not.
    results = Results("pocket", results_dir("pocket"))
    table = results.save_verdict("04", judge("jpeg", (0.9, 0.8004, 0.95), "over 0.8", over=0.8))
    assert table["verdict"].tolist() == ["undecided"]
    summarise_results("pocket")
    sign(folder)
    assert check(folder) == []


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


def test_a_table_that_is_not_made_any_more_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    assert "tables/04-iou.csv: is not made any more" in compare(tmp_path / "fresh", folder)


def test_the_committed_results_are_consistent() -> None:
    assert check(ROOT / "results" / "pocket") == []
