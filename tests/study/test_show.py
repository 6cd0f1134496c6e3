"""What a notebook shows of a table and of a figure."""

import re
from pathlib import Path

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from dinolizer.study import show
from dinolizer.study.results import DPI

TABLE = pd.DataFrame(
    {
        "method": ["ours", "<other>"],
        "n_images": [1200, 3],
        "iou_at_5": [0.1249, float("nan")],
        "recall_low": [-0.0001, 1.0],
        "significant": [True, False],
        "low": [1, 2],
    }
)


def test_a_notebook_stops_at_what_was_given_wrong_with_one_sentence() -> None:
    """In a shell of IPython, as notebooks are run; other errors keep their traceback."""
    shell = InteractiveShell.instance()
    shown: list[list[str]] = []
    try:
        shell._showtraceback = lambda kind, error, lines: shown.append(lines)
        show.sentences()
        for error in ('InputError("Name two.")', 'ValueError("other")'):
            result = shell.run_cell(f"from dinolizer.errors import InputError; raise {error}")
            assert not result.success
    finally:
        InteractiveShell.clear_instance()
    assert shown[0] == ["Name two."]
    assert len(shown[1]) > 1 and "ValueError" in "".join(shown[1])


def test_a_table_has_plain_headings_and_as_many_digits_as_are_asked_for() -> None:
    html = show.table(TABLE)._repr_mimebundle_()["text/html"]
    shown = re.findall("<t[hd]>(.*?)</t[hd]>", html)
    assert shown[:6] == [
        "method",
        "number of images",
        "IoU at 5 % FPR",
        "recall [share] (95 %, low)",
        "significant",
        "95 %, low",
    ]
    assert shown[6:12] == ["ours", "1200", "0.12", "0.00", "yes", "1"]
    assert shown[12:] == ["&lt;other&gt;", "3", "-", "1.00", "no", "2"]


def test_an_index_with_a_name_stays_and_a_number_of_rows_goes() -> None:
    named = show.table(TABLE.set_index("method"))._repr_mimebundle_()["text/html"]
    assert "<th>ours</th>" in named
    assert "<th>0</th>" not in show.table(TABLE)._repr_mimebundle_()["text/html"]


def test_the_text_of_a_table_is_that_of_the_rounded_frame() -> None:
    assert show.table(TABLE, 1)._repr_mimebundle_()["text/plain"] == repr(TABLE.round(1))


def test_a_figure_is_shown_at_half_its_pixels(tmp_path: Path) -> None:
    Figure(figsize=(7, 2)).savefig(tmp_path / "figure.png", dpi=DPI)
    assert Image.open(tmp_path / "figure.png").width == 1400
    assert show.figure(tmp_path / "figure.png").width == 700
