"""What is timed runs in turns, over windows that are counted; no speed is asserted."""

import numpy as np
import pandas as pd
import pytest
from small import random_image, small_localizer

from dinolizer.study import timing
from dinolizer.study.machine import Demand

PEAKS = {"float32": 1.0, "bfloat16": 1.0}


def test_runs_are_timed_in_turns_after_one_round_that_is_not_counted() -> None:
    order: list[str] = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = timing.interleaved_seconds(runs, repeats=3)
    assert order == ["a", "b"] * 4
    assert list(seconds) == ["a", "b"]
    assert len(seconds) == 3


def test_the_table_is_made_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = pd.DataFrame({"alone": [1.0, 2.0, 4.0], "other": [3.0, 3.0, 4.0], "half": [1.0] * 3})
    monkeypatch.setattr(timing, "interleaved_seconds", lambda runs, repeats: rounds)
    monkeypatch.setattr(timing, "demand", lambda localizer: Demand(50, 0, 0))
    localizer, _ = small_localizer()
    lines = {
        "alone": timing.Line(lambda: None, "alone", windows=6, batch=4),
        "other": timing.Line(lambda: None, "alone", windows=0, batch=8),
        "half": timing.Line(lambda: None, "alone", windows=6, batch=4, dtype="bfloat16"),
    }
    table = timing.measure(localizer, lines, peaks={"float32": 1000.0, "bfloat16": 4000.0})
    assert tuple(table.columns) == timing.COLUMNS
    first, second, half = table.to_dict("records")
    assert (first["model"], first["device"], first["dtype"]) == ("small", "cpu", "float32")
    assert (first["seconds"], first["windows_per_second"]) == (2.0, 3.0)
    assert first["share_of_peak"] == pytest.approx(6 * 50 / 2 / 1000)
    assert (half["dtype"], half["share_of_peak"]) == ("bfloat16", 6 * 50 / 4000)
    # Ratios of the rounds: 3, 3 / 2 and 1.
    assert [second[name] for name in ("ratio", "ratio_low", "ratio_high")] == [1.5, 1.0, 3.0]
    assert np.isnan(second["windows_per_second"])  # no window passes through the backbone


def test_every_line_of_an_image_passes_its_windows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    localizer, passed = small_localizer()
    counted: dict[str, int] = {}

    def count(runs, repeats):  # type: ignore[no-untyped-def]
        for name, run in runs.items():
            passed.clear()
            run()
            counted[name] = sum(passed)
        return pd.DataFrame([dict.fromkeys(runs, 1.0)])

    monkeypatch.setattr(timing, "interleaved_seconds", count)
    table = timing.side_by_side(localizer, random_image(84, 112), peaks=PEAKS)
    assert table["windows"].tolist() == [6] * len(table)  # at 0 and 28, at 0, 28 and 56
    assert counted == dict(zip(table["what"], table["windows"], strict=True))
    assert (timing.MONAI in counted) == timing.MONAI_INSTALLED


def test_without_monai_its_line_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MONAI_INSTALLED", False)
    localizer, _ = small_localizer()
    table = timing.side_by_side(localizer, random_image(56, 56), peaks=PEAKS, repeats=1)
    assert table["what"].tolist() == [timing.ALONE, timing.HALF, timing.LOCALIZER, timing.LOOP]
