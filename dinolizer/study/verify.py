"""Whether results are what they claim to be: unchanged since they were made, consistent with each
other, and made again by the code."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dinolizer.errors import InputError
from dinolizer.paths import ROOT, atomic, file_hash
from dinolizer.study.verdicts import decide, profile_of, read_verdicts, summary_pages

LIST = "SHA256SUMS"
"""The signed-off list of a profile's results; `sha256sum --check` reads it too."""
TOLERANCE = 0.01
"""By how much a number may differ when another machine makes it again."""
UNTRACKED = re.compile(r"(log|notebooks)/|.*-seconds|\.")


def sign(folder: Path) -> Path:
    """Write the `LIST` of all results in a profile's folder, but for what changes with every run;
    return its path."""
    with atomic(folder / LIST) as draft:
        lines = (f"{digest}  {name}\n" for name, digest in _hashes(folder).items())
        draft.write_text("".join(lines), encoding="utf-8")
    return folder / LIST


def check(folder: Path) -> list[str]:
    """Compare a profile's results with their list, with the verdicts that follow from their numbers
    and with the summary that follows from both; return a line for everything that differs.

    Raises `InputError` where there is no such list.
    """
    path = folder / LIST
    if not path.is_file():
        raise InputError(
            f"There is no list {path} of what was made; give a folder of results, such as "
            "results/pocket, or make them with 'make results'."
        )
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    listed = {name: digest for digest, _, name in (x.partition("  ") for x in text.splitlines())}
    present = _hashes(folder)
    wrong = [f"{name}: is listed, but is not there" for name in sorted(listed.keys() - present)]
    wrong += [f"{name}: is there, but not listed" for name in sorted(present.keys() - listed)]
    changed = (name for name in sorted(listed.keys() & present) if listed[name] != present[name])
    wrong += [f"{name}: is not the file that was made" for name in changed]
    return wrong + list(_inconsistent(folder))


def _inconsistent(folder: Path) -> Iterator[str]:
    try:
        verdicts = read_verdicts(folder)
    except InputError as error:
        yield str(error)
        return
    for line in verdicts.to_dict("records"):
        given = (line[name] for name in ("number", "low", "high", "over", "under", "testable"))
        if line["verdict"] != decide(*given):
            yield (
                f"tables/{line['notebook']}-verdict.csv: {line['claim']} is called "
                f"{line['verdict']!r}, which does not follow from its number"
            )
    try:
        pages = summary_pages(folder)
    except (OSError, ValueError, LookupError) as error:
        yield f"The summary cannot be made from the tables and what lies beside them ({error})"
        return
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield f"{name}: does not follow from the tables"


def compare(fresh: Path, committed: Path) -> list[str]:
    """Compare the tables of two folders of results; return a line for every one that differs: in
    its columns or rows, in a text, or in a number by more than `TOLERANCE`."""
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
            raise InputError(
                f"{folder} was not made again, as the workflow failed; its own lines above say why."
            )
        return compare(Path(scratch) / profile, folder)


def tables(folder: Path) -> set[str]:
    """Names of a profile's tables, but for those of times."""
    return {name for name in _names(folder) if re.fullmatch(r"tables/.*\.csv", name)}


def _names(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != LIST and not UNTRACKED.match(name))


def _hashes(folder: Path) -> dict[str, str]:
    return {name: file_hash(folder / name) for name in _names(folder)}
