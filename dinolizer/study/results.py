"""Tables and figures as files, each with a JSON that says where it comes from."""

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from dinolizer.paths import ROOT, atomic, results_dir
from dinolizer.study.verdicts import VERDICT_CAPTION, verdict_table

PACKAGES = (
    "dinolizer",
    "torch",
    "timm",
    "numpy",
    "pandas",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "matplotlib",
)
# A notebook imports this module in its first cell: its seconds are counted from there.
_STARTED = time.monotonic()
_LATEX = str.maketrans({character: rf"\{character}" for character in "%_&#$"})


@dataclass(frozen=True)
class Results:
    """Where a notebook's tables and figures go, and what they come from.

    Attributes
    ----------
    profile
        Name of the profile: the folder in the results, and the end of every caption.
    parameters
        Those of the notebook; its ``seed`` is recorded on its own as well.
    inputs
        Files that the numbers depend on; their SHA-256 is recorded.
    device
        Where the model ran.
    """

    profile: str
    parameters: Mapping[str, object]
    inputs: Sequence[Path] = ()
    device: str = "cpu"

    def note(self, *facts: str) -> str:
        """Footer of a figure: the profile, for what it is, and further facts."""
        small = " (a small demonstration)" if self.profile == "pocket" else ""
        return "; ".join((f"profile: {self.profile}{small}", *facts))

    def save_table(
        self, frame: pd.DataFrame, name: str, caption: str, *, decimals: int = 3
    ) -> Path:
        """Write a table as CSV, LaTeX (booktabs) and JSON of provenance to ``<profile>/tables``.

        Parameters
        ----------
        frame
            The columns as they are to be read; the index is left out.
        name
            Name of the files, without a suffix.
        caption
            Plain text: what is shown, and by which rules (such as that for empty masks).
        decimals
            Digits after the point of every floating-point number, in both files.

        Returns
        -------
        Path
            The CSV.
        """
        path = results_dir(self.profile) / "tables" / f"{name}.csv"
        latex = (
            frame.style.hide(axis="index")
            .format(precision=decimals, na_rep="--", escape="latex")
            .format_index(axis="columns", escape="latex")
            .to_latex(
                hrules=True,
                position_float="centering",
                caption=self._caption(caption).translate(_LATEX),
                label=f"tab:{name}",
            )
        )
        with atomic(path) as draft:
            frame.to_csv(draft, index=False, float_format=f"%.{decimals}f")
        _write(path.with_suffix(".tex"), latex)
        _write(path.with_suffix(".json"), self.provenance(caption))
        return path

    def save_verdict(self, notebook: str, *lines: dict[str, object]) -> pd.DataFrame:
        """Write the table ``<notebook>-verdict`` of lines of `dinolizer.study.verdicts.judge`.

        Parameters
        ----------
        notebook
            Number of the notebook, such as ``"04"``.

        Returns
        -------
        DataFrame
            The table, for `dinolizer.study.verdicts.verdict_text`.
        """
        table = verdict_table(lines)
        self.save_table(table, f"{notebook}-verdict", VERDICT_CAPTION)
        return table

    def save_figure(self, figure: Figure, name: str, caption: str) -> Path:
        """Write a figure as PNG (150 dpi), SVG and JSON of provenance to ``<profile>/figures``.

        The same figure gives the same bytes: no date is written, and the ids in the SVG are drawn
        from the name. The caption, plain text, goes into the description of both files.

        Returns
        -------
        Path
            The PNG.
        """
        path = results_dir(self.profile) / "figures" / f"{name}.png"
        with mpl.rc_context({"svg.hashsalt": name}):
            for suffix, undated in ((".png", "Creation Time"), (".svg", "Date")):
                with atomic(path.with_suffix(suffix)) as draft:
                    figure.savefig(
                        draft,
                        dpi=150,
                        bbox_inches="tight",
                        metadata={"Description": self._caption(caption), undated: None},
                    )
        _write(path.with_suffix(".json"), self.provenance(caption))
        return path

    def provenance(self, caption: str) -> str:
        """JSON text that says where a result comes from.

        ``commit`` is null outside a git checkout; ``dirty`` says whether a committed file other
        than the results differed from it. ``inputs`` maps each file's path in the checkout (or its
        name, where it lies elsewhere) to its SHA-256. ``seconds`` counts from the import of this
        module.
        """
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        record = {
            "caption": self._caption(caption),
            "commit": commit,
            "dirty": None if commit is None else bool(changes),
            "parameters": dict(self.parameters),
            "seed": self.parameters.get("seed"),
            "device": self.device,
            "inputs": {_name(path): _sha256(path) for path in self.inputs},
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in PACKAGES},
            "seconds": round(time.monotonic() - _STARTED, 1),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return json.dumps(record, indent=2, default=str) + "\n"

    def _caption(self, caption: str) -> str:
        return f"{caption.removesuffix('.')}. Profile: {self.profile}."


def _write(path: Path, text: str) -> None:
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _name(path: Path) -> str:
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(*arguments: str) -> str | None:
    """What git says of the checkout, or None where there is no git or no checkout."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
