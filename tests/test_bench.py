"""The bench runs in turns, counts windows, and compares like with like; it asserts no speed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import random_head, small_backbone, small_manifest
from test_loops import random_image, small_localizer

from dinolizer.data.manifest import read_manifest, read_pair
from dinolizer.model.features import as_batch
from dinolizer.model.localizer import Localizer
from dinolizer.study import bench
from dinolizer.study.crossfit import card_for, read_windows
from dinolizer.study.machine import Demand

PEAKS = {"float32": 1.0, "bfloat16": 1.0}


def test_runs_are_timed_in_turns_after_one_round_that_is_not_counted() -> None:
    order: list[str] = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = bench.interleaved_seconds(runs, repeats=3)
    assert order == ["a", "b"] * 4
    assert list(seconds) == ["a", "b"]
    assert len(seconds) == 3


def test_the_table_is_made_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = pd.DataFrame({"alone": [1.0, 2.0, 4.0], "other": [3.0, 3.0, 4.0], "half": [1.0] * 3})
    monkeypatch.setattr(bench, "interleaved_seconds", lambda runs, repeats: rounds)
    monkeypatch.setattr(bench, "demand", lambda localizer: Demand(50, 0, 0))
    localizer, _ = small_localizer()
    lines = {
        "alone": bench.Line(lambda: None, "alone", windows=6, batch=4),
        "other": bench.Line(lambda: None, "alone", windows=0, batch=8),
        "half": bench.Line(lambda: None, "alone", windows=6, batch=4, dtype="bfloat16"),
    }
    table = bench.measure(localizer, lines, peaks={"float32": 1000.0, "bfloat16": 4000.0})
    assert tuple(table.columns) == bench.COLUMNS
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

    monkeypatch.setattr(bench, "interleaved_seconds", count)
    table = bench.side_by_side(localizer, random_image(84, 112), peaks=PEAKS)
    assert table["windows"].tolist() == [6] * len(table)  # at 0 and 28, at 0, 28 and 56
    assert counted == dict(zip(table["what"], table["windows"], strict=True))
    assert (bench.MONAI in counted) == bench.MONAI_INSTALLED


def test_without_monai_its_line_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MONAI_INSTALLED", False)
    localizer, _ = small_localizer()
    table = bench.side_by_side(localizer, random_image(56, 56), peaks=PEAKS, repeats=1)
    assert table["what"].tolist() == [bench.ALONE, bench.HALF, bench.LOCALIZER, bench.LOOP]


def test_tokens_that_are_run_again_are_the_backbones() -> None:
    localizer, _ = small_localizer()
    batch = torch.rand(6, 3, 56, 56)
    again, tokens = bench.Rerun(localizer, batch), localizer.backbone(batch)
    assert (len(again), again.shape) == (6, tuple(tokens.shape))
    chosen = torch.tensor([4, 0, 5])
    torch.testing.assert_close(again[chosen], tokens[chosen])
    torch.testing.assert_close(torch.cat(list(again.split(4))), tokens)
    assert again.passed == 3 + 6


def test_both_ways_to_fit_end_at_the_same_dice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    backbone = small_backbone()
    manifest = read_manifest(small_manifest(tmp_path / "images", 6)).assign(seen=True)
    windows = read_windows(backbone, manifest)
    images = [read_pair(row)[0] for row in manifest.to_dict("records")]
    cached = sorted((tmp_path / "cache").rglob("*"))
    localizer = Localizer(backbone, random_head(backbone.dim), card_for(backbone, about=""))
    table = bench.training(localizer, images, windows, peaks=PEAKS, repeats=1, epochs=3)
    lines = table.set_index("what")
    # 70 x 90 pixels: at 0 and 14 down, at 0, 28 and 34 across; six windows of each of six images.
    # A fit goes over them twice for mean and scale, and once an epoch.
    assert lines["windows"].to_dict() == {
        bench.ALONE: 36,
        bench.EXTRACT: 36,
        bench.RERUN: 36 * (2 + 3),
        bench.CACHED: 0,
    }
    # float16 keeps eleven bits of a token.
    assert lines.loc[bench.CACHED, "dice"] == pytest.approx(
        lines.loc[bench.RERUN, "dice"], abs=2e-3
    )
    assert lines["dice"].isna().tolist() == [True, True, False, False]
    assert os.environ["DINOLIZER_CACHE"] == str(tmp_path / "cache")
    assert sorted((tmp_path / "cache").rglob("*")) == cached


def test_a_batch_is_cut_as_the_windows_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    localizer, _ = small_localizer()
    manifest = read_manifest(small_manifest(tmp_path / "images", 2)).assign(seen=True)
    windows = read_windows(localizer.backbone, manifest)
    images = [read_pair(row)[0] for row in manifest.to_dict("records")]
    batch = as_batch(
        [cut for image in images for cut in bench.cut(localizer, image)], torch.device("cpu")
    )
    tokens = localizer.backbone(batch)
    torch.testing.assert_close(windows.tokens.float(), tokens, atol=2e-3, rtol=2e-3)
