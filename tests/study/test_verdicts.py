"""Verdicts follow from numbers by their rule alone."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.paths import ROOT, results_dir
from dinolizer.study.results import Results, summarise_results
from dinolizer.study.verdicts import (
    CLAIMS,
    COLUMNS,
    PARTS,
    judge,
    number_text,
    read_verdicts,
    verdict_text,
)

NAN = float("nan")
SCALE = "embedded demonstration, 7 photographs forged here"


@pytest.mark.parametrize(
    ("low", "high", "limits", "verdict"),
    [
        (0.1, 0.3, {}, "supported"),
        (-0.1, 0.3, {}, "undecided"),
        (0.01, 0.3, {}, "undecided"),  # touching is not over
        (0.002, 0.008, {}, "contradicted"),  # clear, and too small to matter
        (0.1, 0.3, {"over": 0.2}, "undecided"),
        (-0.3, 0.0, {}, "contradicted"),  # nor is touching from below
        (0.1, 0.3, {"over": 0.4}, "contradicted"),
        (0.5, 0.6, {"over": -np.inf, "under": 0.4}, "contradicted"),
        (0.1, 0.3, {"over": -np.inf, "under": 0.4}, "supported"),
        (0.1, 0.3, {"over": -np.inf, "under": 0.2}, "undecided"),
        (0.1, 0.3, {"over": 0.05, "under": 0.35}, "supported"),
        (0.1, 0.3, {"over": 0.05, "under": -0.05}, "supported"),  # a difference to either side
        (-0.3, -0.1, {"over": 0.05, "under": -0.05}, "supported"),
        (-0.05, 0.04, {"over": 0.05, "under": -0.05}, "contradicted"),
        (-0.1, 0.04, {"over": 0.05, "under": -0.05}, "undecided"),
        (0.1, 0.3, {"testable": False}, "not testable here"),
        (NAN, NAN, {}, "not testable here"),
        (0.88, -0.95, {"over": -1}, "not testable here"),  # no interval
    ],
)
def test_the_whole_interval_decides(
    low: float, high: float, limits: dict[str, float], verdict: str
) -> None:
    assert judge("jpeg", (0.2, low, high), "a rule", **limits)["verdict"] == verdict  # type: ignore[arg-type]


def test_without_a_number_nothing_is_decided() -> None:
    assert judge("jpeg", (NAN, 0.1, 0.2), "a rule")["verdict"] == "not testable here"


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(InputError, match=r"claim is 'jpg', but it must be one of .'next-best', "):
        judge("jpg", (0.2, 0.1, 0.3), "a rule")


def test_the_table_is_saved_under_the_number_of_its_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path))
    lines = [judge("jpeg", (0.25, 0.1, 0.3), "a, b"), judge("noise", (0.2, NAN, NAN), "c")]
    table = Results("pocket", results_dir("pocket"), {"seed": 1}).save_verdict(
        "04", "seven", *lines
    )
    assert tuple(table.columns) == COLUMNS
    saved = (tmp_path / "pocket" / "tables" / "04-verdict.csv").read_text().splitlines()
    assert saved == [
        "claim,verdict,number,low,high,over,under,testable,rule,scale",
        'jpeg,supported,0.250,0.100,0.300,0.010,inf,True,"a, b",seven',
        "noise,not testable here,0.200,,,0.010,inf,True,c,seven",
    ]


def test_the_text_says_claim_verdict_number_and_rule() -> None:
    line = judge("next-best", (0.256, 0.1, 0.3), "it is over 0")
    assert verdict_text(pd.DataFrame([line | {"scale": "seven photographs"}])) == (
        f"- **Verdict**, {CLAIMS['next-best'].statement}: **supported**; 0.26 (0.10 to 0.30). "
        "The rule: it is over 0. The scale: seven photographs. "
        "The paper: stated: by 12 % of IoU on average."
    )


def test_numbers_to_two_decimals() -> None:
    assert number_text((0.256, -0.1, 0.3)) == "0.26 (-0.10 to 0.30)"
    assert number_text((0.0256, -0.1, 0.3), "+.3f") == "+0.026 (-0.100 to +0.300)"
    assert number_text((-0.004, -0.02, 0.001)) == "0.00 (-0.02 to 0.00)"
    assert number_text((0.256, NAN, NAN)) == "0.26 (no interval)"
    assert number_text((NAN, NAN, NAN)) == "-"


def test_every_notebook_that_tests_a_claim_is_named_by_two_digits() -> None:
    assert all(len(claim.notebook) == 2 and claim.notebook.isdigit() for claim in CLAIMS.values())
    assert pd.Series([claim.statement for claim in CLAIMS.values()]).is_unique


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results with two tables of verdicts, and a figure."""
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path))
    results = Results("pocket", results_dir("pocket"))
    results.save_verdict(
        "07", SCALE, judge("labels", (-0.1, -0.2, 0.1), "the difference is over 0")
    )
    results.save_verdict(
        "04",
        SCALE,
        judge("jpeg", (0.912, 0.85, 0.95), "at least 80 % is left | or more", over=0.8),
        judge("post-processing", (0.1, 0.0, 0.2), "the lead grows", testable=False),
    )
    results.save_figure(Figure(figsize=(1, 1)), "04-curves", "IoU <against> quality.")
    return tmp_path / "pocket"


def markdown_lines(folder: Path) -> dict[str, list[str]]:
    """Cells of the tables of claims, by the claim's statement."""
    text = summarise_results("pocket")[0].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return {line[0]: line[1:] for line in cells if line[0] not in ("item", "---")}


def test_every_claim_has_a_line_in_its_part_of_the_summary(folder: Path) -> None:
    assert [*markdown_lines(folder)] == [claim.statement for claim in CLAIMS.values()]
    text = (folder / "SUMMARY.md").read_text()
    named = re.findall(r"^## ([^\[\n]+)$", text, flags=re.M)
    assert named == [*PARTS.values()]
    of_parts = dict(zip(named, re.split(r"^## .*$", text, flags=re.M)[1:], strict=False))
    for claim in CLAIMS.values():
        assert f"| {claim.statement} | {claim.paper} |" in of_parts[PARTS[claim.part]]


def test_verdict_number_rule_and_notebook_are_those_of_the_table(folder: Path) -> None:
    lines = markdown_lines(folder)
    assert lines[CLAIMS["jpeg"].statement] == [
        "stated",
        "supported",
        "0.91 (0.85 to 0.95)",
        SCALE,
        r"at least 80 % is left \| or more",
        "[04-robustness](../../notebooks/04-robustness.ipynb)",
    ]
    assert lines[CLAIMS["post-processing"].statement][1] == "not testable here"
    assert lines[CLAIMS["labels"].statement][1] == "undecided"
    assert lines[CLAIMS["frozen"].statement] == ["stated", "not tested", "-", "-", "-", "05"]
    text = (folder / "SUMMARY.md").read_text()
    assert "small demonstration" in text


def test_links_lead_to_files_that_exist_and_to_nothing_elsewhere(folder: Path) -> None:
    text = (folder / "SUMMARY.md").read_text() if summarise_results("pocket") else ""
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert "figures/04-curves.png" in links
    inside = [link for link in links if not link.startswith("../../notebooks/")]
    assert all((folder / link).is_file() for link in inside)
    committed = ROOT / "results" / "pocket"  # from where a link to a notebook leads
    assert all((committed / link).is_file() for link in set(links) - set(inside))
    assert "://" not in text


def test_the_same_tables_give_the_same_bytes(folder: Path) -> None:
    first = [path.read_bytes() for path in summarise_results("pocket")]
    assert [path.read_bytes() for path in summarise_results("pocket")] == first


def test_verdicts_come_in_the_order_of_the_notebooks(folder: Path) -> None:
    assert read_verdicts(folder)["notebook"].tolist() == ["04", "04", "07"]


def test_what_is_missing_or_damaged_is_one_sentence(folder: Path) -> None:
    table = folder / "tables" / "04-verdict.csv"
    table.write_text(table.read_text().replace("jpeg,", "jpg,"))
    with pytest.raises(InputError, match=r"04-verdict\.csv is not a table of verdicts on known"):
        summarise_results("pocket")
    for path in folder.glob("tables/*-verdict.csv"):
        path.unlink()
    with pytest.raises(InputError, match="There is no table in"):
        summarise_results("pocket")
    # Results of no claim have no summary, but a list.
    (folder / "tables" / "11-areas.csv").write_text("area,iou\n0.1,0.5\n")
    assert [path.name for path in summarise_results("pocket")] == ["SHA256SUMS"]
    with pytest.raises(InputError, match="Unknown profile 'poket'"):
        summarise_results("poket")
    assert not (folder.parent / "poket").exists()


def test_at_the_shell(folder: Path) -> None:
    done = CliRunner().invoke(app, ["study", "summarise", "pocket"])
    assert done.exit_code == 0, done.output
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "SUMMARY.md",
        "SHA256SUMS",
    ]
    failed = CliRunner().invoke(app, ["study", "summarise", "poket"])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("dinolizer: Unknown profile")
