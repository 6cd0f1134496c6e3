"""How the paper's claims fare: verdicts, by a rule from a table's numbers, and their summary."""

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dinolizer.errors import InputError, check_choice
from dinolizer.model.report import render
from dinolizer.paths import ASSETS, PROFILES

DECIMALS = 3
NUMBERS = ("number", "low", "high", "over", "under", "testable")
"""The columns that a verdict follows from."""
COLUMNS = ("claim", "verdict", *NUMBERS, "rule", "scale")
SMALLEST = 0.01
"""The smallest difference that would matter, in AP, IoU, accuracy, or a share of pixels or of a
window; a choice of ours for all claims: tables of the field are read to the second decimal."""
DEMONSTRATION = "embedded demonstration"
"""The scale of what is tested with a pocket backbone begins so."""
VERDICT_CAPTION = (
    "Verdicts on the paper's claims. A rule asks for a number between over and under or, where "
    "over is the higher, for one beyond either. Supported: the whole 95 % interval does what the "
    "rule asks; contradicted: no part of it does; undecided: a part does; not testable here: the "
    "profile lacks what the rule needs, or there is no interval"
)
PARTS = {
    "claims": "Claims of the abstract",
    "mechanisms": "Mechanisms: why it should work",
    "experiments": "First experiments: what the result depends on",
    "questions": "Open questions, put as statements",
    "checks": "Next checks, which are ours",
}
"""Of the summary, by the column ``part`` of ``assets/claims.csv``."""


class Claim(NamedTuple):
    """A statement, its part of the summary, the notebook that tests it, and what the ``paper`` says
    of it: stated (with a figure, where one is known), named, left open, or nothing."""

    part: str
    notebook: str
    paper: str
    statement: str


with (ASSETS / "claims.csv").open(encoding="utf-8", newline="") as _file:
    CLAIMS = {line.pop("claim"): Claim(**line) for line in csv.DictReader(_file)}


def judge(
    claim: str,
    measured: Sequence[float],
    rule: str,
    *,
    over: float = SMALLEST,
    under: float = np.inf,
    testable: bool = True,
) -> dict[str, object]:
    """Decide one claim, a key of `CLAIMS`, by a number and the ends of its interval: a row for
    `save_verdict`. Where ``over`` is higher than ``under``, a difference to either side is claimed.
    It is not ``testable`` if the profile lacks what the rule is about."""
    check_choice("claim", claim, CLAIMS)
    # To the decimals that its table is written in: what is read back gives the same verdict.
    number, low, high = (round(float(value), DECIMALS) for value in measured)
    verdict = decide(number, low, high, over, under, testable)
    line = (claim, verdict, number, low, high, over, under, testable, rule)
    return dict(zip(COLUMNS, line, strict=False))  # the scale is the notebook's


def decide(value: float, low: float, high: float, over: float, under: float, testable: bool) -> str:
    """The verdict on a number with its ends: what holds both sides of a limit decides nothing."""
    if not testable or np.isnan([value, low, high]).any() or low > high:
        return "not testable here"
    if over > under:
        beyond, within = low > over or high < under, under <= low and high <= over
        return "supported" if beyond else "contradicted" if within else "undecided"
    if over < low and high < under:
        return "supported"
    return "contradicted" if high <= over or low >= under else "undecided"


def verdict_text(table: pd.DataFrame) -> str:
    """Markdown of a table of verdicts, for the end of a notebook."""
    return "\n".join(
        f"- **Verdict**, {CLAIMS[line['claim']].statement}: **{line['verdict']}**; "
        f"{number_text([line[of] for of in NUMBERS[:3]])}. The rule: {line['rule']}. "
        f"The scale: {line['scale']}. The paper: {CLAIMS[line['claim']].paper}."
        for line in table.to_dict("records")
    )


def number_text(measured: Sequence[float], form: str = "z.2f") -> str:
    """A number, if there is one, and its 95 % interval; ``z`` in a form avoids a -0.00."""
    number, low, high = measured
    if np.isnan(number):
        return "-"
    interval = "no interval" if np.isnan([low, high]).any() else f"{low:{form}} to {high:{form}}"
    return f"{number:{form}} ({interval})"


def summary(folder: Path) -> str:
    """The summary of a profile's results in Markdown: by part every claim and its verdicts, figures
    and tables of those notebooks, linked as from ``results/PROFILE``; empty without verdicts."""
    verdicts = read_verdicts(folder)
    if verdicts.empty:
        return ""
    parts: dict[str, list[tuple[str, ...]]] = {title: [] for title in PARTS.values()}
    for name, claim in CLAIMS.items():
        rows, before = parts[PARTS[claim.part]], (claim.statement, claim.paper)
        lines = verdicts[verdicts["claim"] == name].to_dict("records")
        for line in lines:
            number = number_text([line[of] for of in NUMBERS[:3]])
            link = notebook_link(line["notebook"])
            rows.append((*before, line["verdict"], number, line["scale"], line["rule"], link))
        if not lines:
            rows.append((*before, "not tested", "-", "-", "-", claim.notebook))
    made: dict[str, Any] = {"link": notebook_link, "captions": partial(_captions, folder)}
    made |= {"profile": profile_of(folder), "numbers": sorted(set(verdicts["notebook"]))}
    small = verdicts["scale"].str.startswith(DEMONSTRATION).any()
    return render("summary.md", parts=parts, small=small, **made)


def profile_of(folder: Path) -> str:
    """Profile of results, by the record of a verdict; the folder's name, if none is recorded."""
    for path in sorted((folder / "tables").glob("*-verdict.json")):
        if name := json.loads(path.read_text(encoding="utf-8"))["parameters"].get("profile"):
            return str(name)
    return folder.name


def read_verdicts(folder: Path) -> pd.DataFrame:
    """All verdicts of a profile's results with their ``notebook``, in the order of these."""
    tables = []
    for path in sorted((folder / "tables").glob("*-verdict.csv")):
        table = pd.read_csv(path)
        if tuple(table.columns) != COLUMNS or not set(table["claim"]) <= CLAIMS.keys():
            raise InputError(f"{path} is not a table of verdicts on known claims: make it again.")
        tables.append(table.assign(notebook=path.name.removesuffix("-verdict.csv")))
    none = pd.DataFrame(columns=[*COLUMNS, "notebook"])
    return pd.concat(tables, ignore_index=True) if tables else none


def _captions(folder: Path, pattern: str) -> dict[str, str]:
    return {
        path.name: json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["caption"]
        for path in sorted(folder.glob(pattern))
    }


def notebook_link(number: str) -> str:
    for path in PROFILES.parent.glob(f"{number}-*.ipynb"):
        return f"[{path.stem}](../../notebooks/{path.name})"
    return number
