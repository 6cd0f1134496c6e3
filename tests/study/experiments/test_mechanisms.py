"""Treatments change what they say and nothing else; windows are laid, and counted, as by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small import random_head, random_image, small_backbone

from dinolizer.data.images import write_image
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.model.windows import make_plan
from dinolizer.pocket import forging
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.experiments import mechanisms
from dinolizer.study.experiments.mechanisms import AUTOENCODERS, TREATMENTS
from dinolizer.study.samples import Sample

PATHS = {name: path for name, path in photo_paths().items() if name in ("cat", "coffee", "china")}


def test_a_place_gets_what_its_treatment_says_and_the_rest_stays() -> None:
    """In the place ``re-encoded`` is the crop through the auto-encoder."""
    images = {}
    pictures = list(mechanisms.cue_pictures(PATHS, 96, places=2, seed=0))
    assert len(pictures) == 3 * 2 * len(AUTOENCODERS) * len(TREATMENTS)
    for image, mask, row in pictures:
        images[row["image"], row["family"], row["condition"]] = image
        untouched = images[row["image"], row["family"], "nothing"]
        np.testing.assert_array_equal(image[~mask], untouched[~mask])
        assert row["area"] == pytest.approx(mask.mean())
        if row["condition"] == "re-encoded":
            through = forging.reencode(untouched, row["family"])
            np.testing.assert_array_equal(image[mask], through[mask])
        if row["condition"] not in ("nothing", "re-encoded"):
            assert (image[mask] != untouched[mask]).any()
    for name in ("cat 0", "coffee 1"):
        for treatment in ("nothing", "swapped"):  # no auto-encoder has part in them
            same = (images[name, generator, treatment] for generator in AUTOENCODERS)
            np.testing.assert_array_equal(*same)


def test_photograph_and_donor_have_one_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are stored as often, at the same qualities and with chroma subsampled alike."""
    stored: list[tuple[object, ...]] = []
    monkeypatch.setattr(forging, "jpeg", lambda image, *how: stored.append(how) or image)
    paths = {name: tmp_path / f"{name}.png" for name in "ab"}
    for wide, path in zip((400, 700), paths.values(), strict=True):
        write_image(path, random_image(300, wide))
    found = 0
    for number, _ in enumerate(mechanisms.cue_pictures(paths, 96, places=5, seed=0)):
        if number % len(TREATMENTS) == 0:  # of the next place
            half = len(stored) // 2
            assert stored[:half] == stored[half:]
            found += half
            stored.clear()
    assert found


def test_heads_meet_neither_the_photograph_nor_its_donor() -> None:
    """Of four photographs with two windows each, by their order: the donor is the next one."""
    fold = np.repeat(np.arange(4), 2)
    train = torch.from_numpy(fold != np.arange(4)[:, None])
    sample = Sample(torch.zeros(8, 2, 2), pd.DataFrame(), fold, train)
    kept = mechanisms.without_donors(sample).train
    assert [sorted(set(fold[of.numpy()])) for of in kept] == [[2, 3], [0, 3], [0, 1], [1, 2]]


def test_every_stride_gives_the_map_of_the_localizer_from_windows_seen_once() -> None:
    """140 x 180 pixels, windows of 56: every 28 at 0 to 84 down, 0 to 112 and 124 across; side by
    side at 0, 56 and 84 down, at 0, 56, 112 and 124 across, all of them among the former."""
    backbone, image = small_backbone(), random_image(140, 180)
    truth = np.zeros((140, 180), bool)
    truth[40:100, 50:120] = True
    seen: list[int] = []
    backbone.model.patch_embed.register_forward_hook(
        lambda _module, inputs, _output: seen.append(len(inputs[0]))
    )
    heads = {"a": random_head(backbone.dim)}
    rows, rings = mechanisms.overlap_rows(backbone, heads, [("a", image, truth)], [28, 56])
    assert sum(seen) == 4 * 6
    assert rows[["stride", "reduce", "passes"]].values.tolist() == [
        *([28, "sum", 24], [28, "mean", 24], [56, "sum", 12], [56, "mean", 12]),
    ]
    for row in rows.to_dict("records"):
        card = replace(card_for(backbone), stride=row["stride"], reduce=row["reduce"])
        result = Localizer(backbone, heads["a"], card)(image)
        area = roc_auc_score(truth.ravel(), result.probability.ravel())
        assert row["auc"] == pytest.approx(area, abs=1e-4)
        assert row["tp"] == (result.mask & truth).sum()
    assert rings["distance"].tolist() == [0, 1]  # windows of four patches


def test_seams_by_hand() -> None:
    """Two windows of 56 beside each other, a slope of 1 a pixel and a jump of 42 between them:
    over the 14 pixels of a patch the map changes by 14 + 42 there, and by 14 elsewhere."""
    plan = make_plan((56, 112), window=56, stride=56, patch=14)
    row = np.arange(112) + 42 * (np.arange(112) >= 56)
    values = np.tile(row, (56, 1)).astype(float)
    steps = mechanisms.steps(plan, values)
    assert steps["border"] == pytest.approx(14 + 42)
    # Across: at 14, 28, 42, 70, 84 and 98. Down, where nothing changes, at 14, 28 and 42.
    assert steps["elsewhere"] == pytest.approx(14 * 6 / 9)


def test_patches_by_distance_are_those_of_a_plain_loop() -> None:
    """Windows of four patches every two, so that a patch in the middle of the picture lies in the
    outer and in the inner ring; the loop asks scikit-learn for the area."""
    plan = make_plan((112, 140), window=56, stride=28, patch=14)
    logits = np.random.default_rng(0).standard_normal((plan.passes, 4, 4)).astype(np.float32)
    truth = np.zeros((112, 140), bool)
    truth[28:84, 42:98] = True
    expected: dict[int, tuple[list[bool], list[float]]] = {0: ([], []), 1: ([], [])}
    for window, (top, left) in zip(logits, plan.positions, strict=True):
        for y in range(4):
            for x in range(4):
                row, column = top // 14 + y, left // 14 + x
                if 1 <= row < 7 and 1 <= column < 9:  # a patch at the picture's border is in none
                    edited, values = expected[min(x, y, 3 - x, 3 - y)]
                    edited.append(2 <= row < 6 and 3 <= column < 7)
                    values.append(window[y, x])
    rows = mechanisms.by_distance(plan, logits, truth)
    for row in rows:
        assert row["auc"] == pytest.approx(roc_auc_score(*expected[int(row["distance"])]))
    assert len(rows) == 2
