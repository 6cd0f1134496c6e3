"""Heads fitted with cached tokens and without come out alike; no speed is asserted."""

import os
from pathlib import Path

import pytest
import torch
from small import random_head, small_backbone, small_localizer, small_manifest

from dinolizer.data.manifest import read_manifest, read_pair
from dinolizer.model.batches import as_batch
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study import refit
from dinolizer.study.heads import read_windows
from dinolizer.study.loops import cut
from dinolizer.study.timing import ALONE

PEAKS = {"float32": 1.0, "bfloat16": 1.0}


def test_tokens_that_are_run_again_are_the_backbones() -> None:
    localizer, _ = small_localizer()
    batch = torch.rand(6, 3, 56, 56)
    again, tokens = refit.Rerun(localizer, batch), localizer.backbone(batch)
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
    localizer = Localizer(backbone, random_head(backbone.dim), card_for(backbone))
    table = refit.training(localizer, images, windows, peaks=PEAKS, repeats=1, epochs=3)
    lines = table.set_index("what")
    # 70 x 90 pixels: at 0 and 14 down, at 0, 28 and 34 across; six windows of each of six images.
    # A fit goes over them twice for mean and scale, and once an epoch.
    assert lines["windows"].to_dict() == {
        ALONE: 36,
        refit.EXTRACT: 36,
        refit.RERUN: 36 * (2 + 3),
        refit.CACHED: 0,
    }
    # float16 keeps eleven bits of a token.
    assert lines.loc[refit.CACHED, "dice"] == pytest.approx(
        lines.loc[refit.RERUN, "dice"], abs=2e-3
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
        [window for image in images for window in cut(localizer, image)], torch.device("cpu")
    )
    tokens = localizer.backbone(batch)
    torch.testing.assert_close(windows.tokens.float(), tokens, atol=2e-3, rtol=2e-3)
