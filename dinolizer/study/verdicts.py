"""How the paper's claims fare: one verdict per line, decided by a rule from a table's numbers.

A notebook ends with ``results.save_verdict("04", judge("jpeg", (number, low, high), rule), ...)``:
the table ``04-verdict``, which `dinolizer.study.summary` collects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dinolizer.errors import InputError

DECIMALS = 3
COLUMNS = ("claim", "verdict", "number", "low", "high", "over", "under", "testable", "rule")
VERDICTS = ("supported", "contradicted", "undecided", "not testable here")
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTABLE = VERDICTS
VERDICT_CAPTION = (
    "Verdicts on the paper's claims. Supported: the 95 % interval of the number lies between over "
    "and under, as a whole; contradicted: outside of them, as a whole; undecided: neither; not "
    "testable here: the profile lacks what the rule needs, or has no interval"
)


@dataclass(frozen=True)
class Claim:
    """A statement that is tested, and the number of the notebook that tests it; ``open`` if it is
    not a claim of the paper, but a question that it leaves open, put as a statement."""

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
    """Decide one claim, a key of `CLAIMS`: a row with `COLUMNS`.

    ``measured`` is the deciding number and the two ends of its interval; ``rule`` says in words
    what it is, and what it is held against; it is not ``testable`` if the profile lacks what it is
    about. The verdict is `decide`'s.
    """
    if claim not in CLAIMS:
        raise InputError(f"The claim is {claim!r}, but it must be one of {', '.join(CLAIMS)}.")
    # To the decimals that its table is written in: what is read back gives the same verdict.
    number, low, high = (round(float(value), DECIMALS) for value in measured)
    verdict = decide(number, low, high, over, under, testable)
    line = (claim, verdict, number, low, high, over, under, testable, rule)
    return dict(zip(COLUMNS, line, strict=True))


def decide(
    number: float, low: float, high: float, over: float, under: float, testable: bool
) -> str:
    """One of `VERDICTS`, from a number, the ends of its interval, and the limits that the claim
    puts on it: an interval that holds both sides of a limit decides nothing."""
    if not testable or np.isnan([number, low, high]).any():
        return NOT_TESTABLE
    if over < low and high < under:
        return SUPPORTED
    return CONTRADICTED if high <= over or low >= under else UNDECIDED


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
