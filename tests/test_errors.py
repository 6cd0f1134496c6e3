"""What the package says beside its results."""

import pytest

from dinolizer.errors import progress


def test_no_bar_stays_in_a_notebook_that_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    # tqdm's own rule for notebooks shows a bar in any, also where nothing is a terminal, as here.
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert progress([1], "images").disable  # type: ignore[attr-defined]
    monkeypatch.setenv("JPY_SESSION_NAME", "00-quickstart.ipynb")
    assert not progress([1], "images").disable  # type: ignore[attr-defined]
