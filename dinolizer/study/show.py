"""Tables and figures as a notebook shows them; what is saved is the whole of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import Image

from dinolizer.errors import InputError

WORDS: dict[str, Any] = {
    r"^n (\w+)$": r"number of \1",
    r"\b(ap|auc|f1)\b": lambda word: word[0].upper(),
    r"\biou\b": "IoU",
    r"\bat (\d+)\b": r"at \1 % FPR",
    r"^(low|high)\b": r"95 %, \1",
    r"(?<!,) (low|high)\b": r" (95 %, \1)",
    r"\bsd\b": "(standard deviation)",
    r"\b(area|rate|recall|missed|share)\b(?! at)": r"\1 [share]",
    r"\bmegapixels\b": "size [megapixels]",
    r"\bseconds\b": "time [s]",
}
"""Of headings, without their underscores: regular expressions, and what takes their place."""


def sentences() -> None:
    """Let a notebook that stops at an `InputError` show its sentence, without a traceback."""

    def told(shell: Any, kind: type, error: Exception, *_: object, **__: object) -> None:
        shell._showtraceback(kind, error, [str(error)])

    if shell := get_ipython():
        shell.set_custom_exc((InputError,), told)


def figure(path: Path) -> Image:
    """A saved figure, at half its pixels: sharp on a screen that has two for one."""
    return Image(path, retina=True)


@dataclass(frozen=True)
class table:  # noqa: N801  # called like a function
    """A table with plain headings and numbers of some decimals; the same in text for a terminal."""

    frame: pd.DataFrame
    decimals: int = 2

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        index = self.frame.index
        numbered = index.name is None and pd.api.types.is_integer_dtype(index)
        shown = self.frame.map(self._cell).rename(index=_heading, columns=_heading)
        names = [[_heading(name) for name in axis.names] for axis in shown.axes]
        shown = shown.rename_axis(index=names[0], columns=names[1])
        html = shown.to_html(index=not numbered, border=0, sparsify=True)
        return {"text/html": html, "text/plain": repr(self.frame.round(self.decimals))}

    def _cell(self, value: Any) -> Any:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if pd.isna(value):
            return "-"
        return f"{value:z,.{self.decimals}f}" if isinstance(value, float) else value


def _heading(name: Any) -> Any:
    if isinstance(name, str):
        name = name.replace("_", " ")
        for pattern, word in WORDS.items():
            name = re.sub(pattern, word, name)
    return name
