"""Tables and figures as files with their provenance, and whether these are still what is made."""

import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from dinolizer.data.images import palette_png
from dinolizer.errors import InputError
from dinolizer.model.backbones import pick_device
from dinolizer.paths import ROOT, file_hash, results_dir, write_file
from dinolizer.study import verdicts
from dinolizer.study.cache import LIBRARIES
from dinolizer.study.parameters import find_profile
from dinolizer.study.verdicts import decide, profile_of, read_verdicts, summary

PACKAGES = ("dinolizer", *LIBRARIES, "pandas", "scikit-image", "matplotlib")
# A notebook imports this module in its first cell: its seconds are counted from there.
_STARTED = time.monotonic()
PAGE, LIST = "SUMMARY.md", "SHA256SUMS"
"""The summary of a profile's results, and the list of all, which `sha256sum --check` reads too."""
DPI = 200
"""Of figures 7 inches wide: a notebook shows them at half their pixels."""
TOLERANCE = 0.01
"""By how much a number may differ when another machine makes it again."""
UNTRACKED = re.compile(r"(log|notebooks)/|.*-seconds|\.")
_LATEX = str.maketrans({character: rf"\{character}" for character in "%_&#$"})


@dataclass(frozen=True)
class Results:
    """Where a notebook's tables and figures go, and what they come from. ``profile`` ends every
    caption. ``folder`` gets ``tables``, ``figures`` and, for what changes with every run, ``log``.
    ``parameters`` are all of the notebook's; ``command`` makes the results again; ``sources``,
    filled on loading, map inputs to SHA-256."""

    profile: str
    folder: Path
    parameters: Mapping[str, object] = field(default_factory=dict)
    command: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether they are the embedded demonstration's."""
        return "pocket" in str(self.parameters.get("backbone", self.profile))

    def note(self, *facts: str) -> str:
        """Footer of a figure: the profile, for what it is, and further facts."""
        small = " (a small demonstration)" if self.small else ""
        return "; ".join((f"profile: {self.profile}{small}", *facts))

    def save_table(self, rows: pd.DataFrame, name: str, caption: str, *, decimals: int = 3) -> Path:
        """Write a table as CSV, LaTeX (booktabs) and JSON to ``tables``; return the CSV's path. The
        caption is plain text: what is shown, and by which rules."""
        path = self.folder / "tables" / f"{name}.csv"
        look: dict[str, Any] = {"index": False, "float_format": f"%.{decimals}f"}
        title = self._caption(caption).translate(_LATEX)
        latex = rows.to_latex(**look, na_rep="--", escape=True, caption=title, label=f"tab:{name}")
        write_file(path, rows.to_csv(**look))
        write_file(path.with_suffix(".tex"), latex)
        self._write_provenance(path, caption)
        return path

    def save_verdict(self, notebook: str, scale: str, *lines: dict[str, object]) -> pd.DataFrame:
        """Write the table ``NN-verdict`` of a notebook's number, lines of `judge`, and on what they
        were tested, the ``scale``, if there is a number; return it."""
        table = pd.DataFrame(list(lines), columns=verdicts.COLUMNS)
        table["scale"] = table["number"].notna().map({True: scale, False: "not run"})
        name = f"{notebook}-verdict"
        self.save_table(table, name, verdicts.VERDICT_CAPTION, decimals=verdicts.DECIMALS)
        return table

    def save_figure(self, figure: Figure, name: str, caption: str) -> Path:
        """Write a figure as PNG and JSON to ``figures``; return its path."""
        path = self.folder / "figures" / f"{name}.png"
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=DPI, bbox_inches="tight")
        write_file(path, palette_png(drawn.getvalue()))
        self._write_provenance(path, caption)
        return path

    def _write_provenance(self, path: Path, caption: str) -> None:
        """JSON beside a result, always the same; and what changes with every run, in the log."""
        record = {
            "caption": self._caption(caption),
            "command": self.command,
            "parameters": dict(self.parameters),
            "sources": self.sources,
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in PACKAGES},
        }
        log = self.folder / "log" / f"{path.name}.json"
        for file, facts in ((path.with_suffix(".json"), record), (log, run_facts())):
            write_file(file, json.dumps(facts, indent=2, default=str) + "\n")

    def _caption(self, caption: str) -> str:
        return f"{caption.removesuffix('.')}. Profile: {self.profile}."


def run_facts() -> dict[str, object]:
    """What changes with every run; ``commit`` is None without a checkout."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - _STARTED, 1),
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": pick_device().type,
    }


def summarise_results(profile: str) -> list[Path]:
    """Write the `PAGE`, if there is one, and the `LIST` of a profile's results; return both."""
    find_profile(profile)
    folder = results_dir(profile)
    if text := summary(folder):
        write_file(folder / PAGE, text)
    return [*([folder / PAGE] if text else []), sign(folder)]


def sign(folder: Path) -> Path:
    """Write the `LIST` of all results in a profile's folder; return its path."""
    if not tables(folder):
        raise InputError(f"There is no table in {folder}: run 'make results' first.")
    lines = (f"{file_hash(folder / name)}  {name}\n" for name in _names(folder))
    write_file(folder / LIST, "".join(lines))
    return folder / LIST


def check(folder: Path) -> list[str]:
    """A line for each result that differs from its list, its numbers, or the summary of both."""
    path = folder / LIST
    if not path.is_file():
        raise InputError(f"There is no list {path} of what was made; give a folder of results.")
    said = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in said)}
    present = {name: file_hash(folder / name) for name in _names(folder)}
    wrong = [f"{name}: is listed, but is not there" for name in sorted(listed.keys() - present)]
    wrong += [f"{name}: is there, but not listed" for name in sorted(present.keys() - listed)]
    changed = (name for name in sorted(listed.keys() & present) if listed[name] != present[name])
    wrong += [f"{name}: is not the file that was made" for name in changed]
    try:
        lines, text = read_verdicts(folder).to_dict("records"), summary(folder)
        for line in lines:
            if line["verdict"] != decide(*(line[name] for name in verdicts.NUMBERS)):
                wrong.append(
                    f"tables/{line['notebook']}-verdict.csv: {line['claim']} is called "
                    f"{line['verdict']!r}, which does not follow from its number"
                )
    except Exception as error:  # of what was edited by hand, almost any
        return [*wrong, f"The summary cannot be made from the tables and what is beside: {error}"]
    page = folder / PAGE
    if text and (not page.is_file() or page.read_text(encoding="utf-8") != text):
        wrong.append(f"{PAGE}: does not follow from the tables")
    return wrong


def compare(fresh: Path, committed: Path) -> list[str]:
    """A line for every table of two folders that differs, or in a number by over `TOLERANCE`."""
    close: dict[str, Any] = {"check_exact": False, "rtol": 0, "atol": TOLERANCE}
    lines = [f"{name}: is not made any more" for name in sorted(tables(committed) - tables(fresh))]
    lines += [f"{name}: is not committed" for name in sorted(tables(fresh) - tables(committed))]
    for name in sorted(tables(fresh) & tables(committed)):
        new, old = (pd.read_csv(folder / name) for folder in (fresh, committed))
        try:
            pd.testing.assert_frame_equal(new, old, check_dtype=False, obj="table", **close)
        except AssertionError as error:
            lines.append(f"{name}: {' '.join(str(error).split())}")
    return lines


def reproduce(folder: Path, cores: int) -> list[str]:
    """Make a profile's results again in a scratch folder, and `compare` them."""
    profile = profile_of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
        programs = Path(sys.executable).parent  # the workflow calls them by name
        path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
        run = subprocess.run(
            [*command, "--quiet", "rules", "host", "--config", f"profile={profile}"],
            cwd=ROOT,
            env=os.environ | {"DINOLIZER_RESULTS": scratch, "PATH": path},
        )
        if run.returncode:
            raise InputError(f"{folder} was not made again: the workflow's own lines say why.")
        return compare(Path(scratch) / profile, folder)


def tables(folder: Path) -> set[str]:
    """Names of a profile's tables, but for those of times."""
    return {name for name in _names(folder) if re.fullmatch(r"tables/.*\.csv", name)}


def _names(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != LIST and not UNTRACKED.match(name))
