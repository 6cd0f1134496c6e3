"""Verdicts follow from numbers by their rule alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dinolizer.errors import InputError
from dinolizer.paths import results_dir
from dinolizer.study.results import Results
from dinolizer.study.verdicts import (
    CLAIMS,
    COLUMNS,
    judge,
    number_text,
    verdict_text,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "limits", "verdict"),
    [
        (0.1, 0.3, {}, "supported"),
        (-0.1, 0.3, {}, "undecided"),
        (0.0, 0.3, {}, "undecided"),  # touching is not over
        (0.1, 0.3, {"over": 0.2}, "undecided"),
        (-0.3, 0.0, {}, "contradicted"),  # nor is touching from below
        (0.1, 0.3, {"over": 0.4}, "contradicted"),
        (0.5, 0.6, {"over": -np.inf, "under": 0.4}, "contradicted"),
        (0.1, 0.3, {"over": -np.inf, "under": 0.4}, "supported"),
        (0.1, 0.3, {"over": -np.inf, "under": 0.2}, "undecided"),
        (0.1, 0.3, {"over": 0.05, "under": 0.35}, "supported"),
        (0.1, 0.3, {"testable": False}, "not testable here"),
        (NAN, NAN, {}, "not testable here"),
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
    table = Results("pocket", results_dir("pocket"), {"seed": 1}).save_verdict("04", *lines)
    assert tuple(table.columns) == COLUMNS
    saved = (tmp_path / "pocket" / "tables" / "04-verdict.csv").read_text().splitlines()
    assert saved == [
        "claim,verdict,number,low,high,over,under,testable,rule",
        'jpeg,supported,0.250,0.100,0.300,0.000,inf,True,"a, b"',
        "noise,not testable here,0.200,,,0.000,inf,True,c",
    ]


def test_the_text_says_claim_verdict_number_and_rule() -> None:
    text = verdict_text(pd.DataFrame([judge("jpeg", (0.256, 0.1, 0.3), "it is over 0")]))
    assert text == (
        f"- **Verdict**, {CLAIMS['jpeg'].statement}: **supported** in this profile; "
        "0.26 (0.10 to 0.30). The rule: it is over 0."
    )


def test_numbers_to_two_decimals() -> None:
    assert number_text(0.256, -0.1, 0.3) == "0.26 (-0.10 to 0.30)"
    assert number_text(0.256, NAN, NAN) == "0.26 (no interval)"
    assert number_text(NAN, NAN, NAN) == "-"


def test_every_notebook_that_tests_a_claim_is_named_by_two_digits() -> None:
    assert all(len(claim.notebook) == 2 and claim.notebook.isdigit() for claim in CLAIMS.values())
    assert pd.Series([claim.statement for claim in CLAIMS.values()]).is_unique
