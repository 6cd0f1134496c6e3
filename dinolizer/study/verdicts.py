"""How the paper's claims fare: verdicts, by a rule from a table's numbers, and their summary."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dinolizer.errors import InputError, check_choice
from dinolizer.model.report import render
from dinolizer.paths import PROFILES

DECIMALS = 3
COLUMNS = ("claim", "verdict", "number", "low", "high", "over", "under", "testable", "rule")
VERDICT_CAPTION = (
    "Verdicts on the paper's claims. Supported: the 95 % interval of the number lies between over "
    "and under, as a whole; contradicted: outside of them, as a whole; undecided: neither; not "
    "testable here: the profile lacks what the rule needs, or has no interval"
)


class Claim(NamedTuple):
    """A statement, and the notebook that tests it; ``open`` if the paper leaves it open."""

    statement: str
    notebook: str
    open: bool = False


CLAIMS = {
    "next-best": Claim("DinoLizer's IoU is better than the next best method's", "03"),
    "post-processing": Claim(
        "DinoLizer's lead over the next best grows after post-processing", "04"
    ),
    "resize": Claim("DinoLizer is robust to resizing", "04"),
    "noise": Claim("DinoLizer is robust to noise", "04"),
    "jpeg": Claim("DinoLizer is robust to JPEG compression", "04"),
    "double-jpeg": Claim("DinoLizer is robust to double JPEG compression", "04"),
    "frozen": Claim("With a frozen backbone DINOv2 is better than DINOv3", "05"),
    "end-to-end": Claim("Trained end to end, DINOv3 is better than DINOv2", "05"),
    "small-edits": Claim("Edits below 12 to 20 % of a window are missed", "06"),
    "labels": Claim("Labels that count the auto-encoded as pristine are better", "07"),
    "regenerated": Claim("Fully re-generated backgrounds give false positives", "07"),
    "small-training": Claim("Training with small edits lets smaller edits be found", "06", True),
    "features": Claim("The tokens of DINOv2 and DINOv3 differ in what they hold", "05", True),
    "three-classes": Claim("A class of its own for the auto-encoded is better", "07", True),
    "forensic": Claim("Pre-training to tell generated from real helps", "08", True),
}


def judge(
    claim: str,
    measured: Sequence[float],
    rule: str,
    *,
    over: float = 0.0,
    under: float = np.inf,
    testable: bool = True,
) -> dict[str, object]:
    """Decide one claim, a key of `CLAIMS`, by a number and the ends of its interval: a row for
    `save_verdict`. It is not ``testable`` if the profile lacks what the rule is about."""
    check_choice("claim", claim, CLAIMS)
    # To the decimals that its table is written in: what is read back gives the same verdict.
    number, low, high = (round(float(value), DECIMALS) for value in measured)
    verdict = decide(number, low, high, over, under, testable)
    line = (claim, verdict, number, low, high, over, under, testable, rule)
    return dict(zip(COLUMNS, line, strict=True))


def decide(value: float, low: float, high: float, over: float, under: float, testable: bool) -> str:
    """The verdict on a number with its ends: what holds both sides of a limit decides nothing."""
    if not testable or np.isnan([value, low, high]).any() or low > high:
        return "not testable here"
    if over < low and high < under:
        return "supported"
    return "contradicted" if high <= over or low >= under else "undecided"


def verdict_text(table: pd.DataFrame) -> str:
    """Markdown of a table of verdicts, for the end of a notebook."""
    return "\n".join(
        f"- **Verdict**, {CLAIMS[line['claim']].statement}: **{line['verdict']}** in this profile; "
        f"{number_text(line['number'], line['low'], line['high'])}. The rule: {line['rule']}."
        for line in table.to_dict("records")
    )


def number_text(number: float, low: float, high: float) -> str:
    """A number and its 95 % interval to two decimals; a dash where there is none."""
    if np.isnan(number):
        return "-"
    interval = "no interval" if np.isnan([low, high]).any() else f"{low:.2f} to {high:.2f}"
    return f"{number:.2f} ({interval})"


def summary(folder: Path) -> str:
    """The summary of a profile's results in Markdown: every claim and its verdicts, and figures and
    tables of those notebooks, linked as from ``results/PROFILE``; empty without verdicts."""
    verdicts, rows = read_verdicts(folder), []
    if verdicts.empty:
        return ""
    for name, claim in sorted(CLAIMS.items(), key=lambda item: (item[1].open, item[1].notebook)):
        said = claim.statement + (" (an open question)" if claim.open else "")
        lines = verdicts[verdicts["claim"] == name].to_dict("records")
        for line in lines:
            number = number_text(line["number"], line["low"], line["high"])
            link = notebook_link(line["notebook"])
            rows.append((said, line["verdict"], number, line["rule"], link))
        if not lines:
            rows.append((said, "not tested", "-", "-", claim.notebook))
    made: dict[str, Any] = {"link": notebook_link, "captions": partial(_captions, folder)}
    made |= {"profile": profile_of(folder), "numbers": sorted(set(verdicts["notebook"]))}
    return render("summary.md", rows=rows, **made)


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
