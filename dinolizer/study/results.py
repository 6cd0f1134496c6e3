"""Tables and figures as files, each with a JSON that says where it comes from."""

import io
import json
import os
import platform
import subprocess
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
from dinolizer.model.backbones import pick_device
from dinolizer.paths import ROOT, atomic
from dinolizer.study.cache import LIBRARIES
from dinolizer.study.verdicts import COLUMNS, DECIMALS, VERDICT_CAPTION

PACKAGES = ("dinolizer", *LIBRARIES, "pandas", "scikit-image", "matplotlib")
# A notebook imports this module in its first cell: its seconds are counted from there.
_STARTED = time.monotonic()
_LATEX = str.maketrans({character: rf"\{character}" for character in "%_&#$"})


@dataclass(frozen=True)
class Results:
    """Where a notebook's tables and figures go, and what they come from.

    ``profile`` ends every caption. ``folder`` gets ``tables``, ``figures`` and, for what changes
    with every run, ``log``, which is not tracked. ``parameters`` are all of the notebook's;
    ``command`` makes the results again; ``sources``, filled on loading, map inputs to SHA-256.
    """

    profile: str
    folder: Path
    parameters: Mapping[str, object] = field(default_factory=dict)
    command: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    def note(self, *facts: str) -> str:
        """Footer of a figure: the profile, for what it is, and further facts."""
        small = " (a small demonstration)" if self.profile == "pocket" else ""
        return "; ".join((f"profile: {self.profile}{small}", *facts))

    def save_table(
        self, frame: pd.DataFrame, name: str, caption: str, *, decimals: int = 3
    ) -> Path:
        """Write a table as CSV, LaTeX (booktabs) and JSON to ``tables``; return the CSV's path.

        The index is left out. The caption is plain text: what is shown, and by which rules.
        """
        path = self.folder / "tables" / f"{name}.csv"
        look: dict[str, Any] = {"index": False, "float_format": f"%.{decimals}f"}
        title = self._caption(caption).translate(_LATEX)
        latex = frame.to_latex(**look, na_rep="--", escape=True, caption=title, label=f"tab:{name}")
        _write(path, frame.to_csv(**look))
        _write(path.with_suffix(".tex"), latex)
        self._write_provenance(path, caption)
        return path

    def save_verdict(self, notebook: str, *lines: dict[str, object]) -> pd.DataFrame:
        """Write the table ``NN-verdict`` of a notebook's number and lines of `judge`; return it."""
        table = pd.DataFrame(list(lines), columns=COLUMNS)
        self.save_table(table, f"{notebook}-verdict", VERDICT_CAPTION, decimals=DECIMALS)
        return table

    def save_figure(self, figure: Figure, name: str, caption: str) -> Path:
        """Write a figure as PNG (150 dpi) and JSON to ``figures``; return the PNG's path.

        The same figure gives the same bytes. A palette of 256 colours makes it a third of the size.
        """
        path = self.folder / "figures" / f"{name}.png"
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=150, bbox_inches="tight")
        _write(path, palette_png(drawn.getvalue()))
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
            _write(file, json.dumps(facts, indent=2, default=str) + "\n")

    def _caption(self, caption: str) -> str:
        return f"{caption.removesuffix('.')}. Profile: {self.profile}."


def _write(path: Path, content: str | bytes) -> None:
    with atomic(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def run_facts() -> dict[str, object]:
    """What changes with every run.

    ``commit`` is null outside a git checkout; ``dirty`` says whether a committed file other than
    the results has changed; ``seconds`` counts from the import of this module.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - _STARTED, 1),
        "commit": commit,
        "dirty": None if commit is None else bool(changes),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": pick_device().type,
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout, or None without git or a checkout."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
