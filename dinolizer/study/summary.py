"""The summary page of a profile: every claim, its verdict and its number, from tables only."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import mistune
import pandas as pd

from dinolizer.errors import InputError
from dinolizer.paths import PROFILES, atomic, results_dir
from dinolizer.study.parameters import find_profile
from dinolizer.study.verdicts import CLAIMS, COLUMNS, number_text

NOT_TESTED = "not tested"
TITLE = "What becomes of the paper's claims"
HOW_TO_READ = (
    "A verdict follows from a number by the rule beside it: *supported* where the 95 % interval of "
    "the number lies, as a whole, where the rule asks; *contradicted* where it lies, as a whole, "
    "elsewhere; *undecided* where it holds both; *not testable here* where the profile lacks what "
    "the rule needs; *not tested* where no notebook has left a verdict. Written from the tables by "
    "`dinolizer study summarise`; `dinolizer verify` says whether it still follows from them."
)
STYLE = """
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif }
table { border-collapse: collapse; font-size: 0.9rem }
th, td { border-bottom: 1px solid #bbb; padding: 0.4rem; text-align: left; vertical-align: top }
img { max-width: 100% }
"""


def summarise_results(profile: str) -> list[Path]:
    """Write ``SUMMARY.md`` and ``SUMMARY.html`` of a profile's results; return both paths.

    Raises InputError for an unknown profile or unusable verdicts.
    """
    find_profile(profile)
    folder = results_dir(profile)
    pages = summary_pages(folder)
    for name, content in pages.items():
        with atomic(folder / name) as draft:
            draft.write_text(content, encoding="utf-8")
    return [folder / name for name in pages]


def summary_pages(folder: Path) -> dict[str, str]:
    """The summary of a profile's results by its file's name, as Markdown and as HTML.

    Every claim has a line for each verdict in the tables ``NN-verdict.csv``, or one that says that
    there is none; below are the figures and tables of those notebooks. Nothing else is read; the
    same tables give the same text, also where the folder is copied to: links to notebooks are as
    from ``results/PROFILE`` of the checkout.
    """
    profile = profile_of(folder)
    text = _markdown(folder, profile)
    page = mistune.create_markdown(plugins=["table"])(text)
    html = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{TITLE}: {escape(profile)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{page}</body>\n</html>\n"
    )
    return {"SUMMARY.md": text, "SUMMARY.html": html}


def profile_of(folder: Path) -> str:
    """Name of the profile that results are of, by the record of a verdict; the folder's, if none is
    recorded."""
    for path in sorted((folder / "tables").glob("*-verdict.json")):
        if name := json.loads(path.read_text(encoding="utf-8"))["parameters"].get("profile"):
            return str(name)
    return folder.name


def read_verdicts(folder: Path) -> pd.DataFrame:
    """All verdicts of a profile's results with their ``notebook``, in the order of these."""
    paths = sorted((folder / "tables").glob("*-verdict.csv"))
    if not paths:
        raise InputError(
            f"There is no table of verdicts in {folder / 'tables'}: run the notebooks first, as "
            "'make results' does."
        )
    tables = []
    for path in paths:
        table = pd.read_csv(path)
        if tuple(table.columns) != COLUMNS or not set(table["claim"]) <= CLAIMS.keys():
            raise InputError(
                f"{path} is not a table of verdicts on known claims: save it with "
                "Results.save_verdict."
            )
        tables.append(table.assign(notebook=path.name.removesuffix("-verdict.csv")))
    return pd.concat(tables, ignore_index=True)


def _markdown(folder: Path, profile: str) -> str:
    verdicts = read_verdicts(folder)
    lines = [
        line
        for claim in sorted(CLAIMS, key=lambda name: (CLAIMS[name].open, CLAIMS[name].notebook))
        for line in _claim_lines(claim, verdicts)
    ]
    small = (
        "This profile is a small demonstration: its verdicts hold for a small backbone on a few "
        "photographs, and neither confirm nor refute the paper. Those of 10-published-model alone "
        "are of the authors' released model."
    )
    header = ("claim", "verdict", "number (95 % interval)", "rule", "notebook")
    blocks = [
        f"# {TITLE}: profile {profile}",
        *([small] if profile == "pocket" else []),
        HOW_TO_READ,
        _table(header, lines),
        *(_notebook_section(folder, number) for number in sorted(set(verdicts["notebook"]))),
    ]
    return "\n\n".join(blocks) + "\n"


def _claim_lines(claim: str, verdicts: pd.DataFrame) -> list[tuple[str, ...]]:
    about = CLAIMS[claim]
    statement = about.statement + (" (an open question)" if about.open else "")
    lines: list[tuple[str, ...]] = [
        (
            statement,
            str(line["verdict"]),
            number_text(line["number"], line["low"], line["high"]),
            str(line["rule"]),
            _notebook_link(str(line["notebook"])),
        )
        for line in verdicts[verdicts["claim"] == claim].to_dict("records")
    ]
    return lines or [(statement, NOT_TESTED, "-", "-", about.notebook)]


def _notebook_section(folder: Path, number: str) -> str:
    parts = [f"## {_notebook_link(number)}"]
    for path in sorted((folder / "figures").glob(f"{number}-*.png")):
        parts += [f"![{path.stem}](figures/{path.name})", f"*{_caption(path)}*"]
    tables = sorted((folder / "tables").glob(f"{number}-*.csv"))
    parts.append(
        "\n".join(f"- [{path.name}](tables/{path.name}): {_caption(path)}" for path in tables)
    )
    return "\n\n".join(parts)


def _notebook_link(number: str) -> str:
    for path in PROFILES.parent.glob(f"{number}-*.ipynb"):
        return f"[{path.stem}](../../notebooks/{path.name})"
    return number


def _caption(path: Path) -> str:
    return str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["caption"])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown table; a bar in a cell does not start a new column."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )
