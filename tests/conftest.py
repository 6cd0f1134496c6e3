"""What all tests share: they never write into the committed results."""

import pytest


@pytest.fixture(autouse=True)
def _scratch_results(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path_factory.getbasetemp() / "results"))
