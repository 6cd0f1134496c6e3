"""How `make site` builds the pages, from the root of the checkout: the summary of the study is the
first, and all others hang on it."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = html_title = "DinoLizer compendium"
author = "The DinoLizer compendium authors"
root_doc = "results/pocket/SUMMARY"
include_patterns = [
    *("results/*/SUMMARY.md", "results/README.md", "README.md", "CONTRIBUTING.md"),
    *("docs/*.md", "data/README.md", "data/published/README.md", "notebooks/*.ipynb"),
]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"  # they are committed as they ran
myst_heading_anchors = 3
autodoc_typehints = "description"
html_theme = "furo"
html_extra_path = ["index.html"]  # leads to the first page
suppress_warnings = ["misc.highlighting_failure"]  # of the picture in CONTRIBUTING, shown as text

TOC = """

```{toctree}
:hidden:
:caption: The notebooks
:glob:

/notebooks/*
```

```{toctree}
:hidden:
:caption: To use it, and to change it

/README
/docs/api
/docs/scale
/docs/pocket
/data/README
/data/published/README
/results/bsds/SUMMARY
/results/real/SUMMARY
/results/README
/CONTRIBUTING
```
"""


def setup(app: Any) -> None:
    """Hang all pages on the summary, which the study writes without them, and read what docstrings
    say of a parameter behind its colon as a text, and not as the name of a type."""

    def add(_app: object, name: str, source: list[str]) -> None:
        source[0] += TOC if name == root_doc else ""

    def part(*event: Any) -> None:
        lines: list[str] = event[-1]
        text = re.sub(r"^([\w, ]+) : (.*)$", r"\1\n    \2", "\n".join(lines), flags=re.M)
        lines[:] = text.split("\n")

    app.connect("source-read", add)
    app.connect("autodoc-process-docstring", part, priority=1)  # before napoleon
