"""The images of the pocket study (`dinolizer.data.pocket`)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dinolizer.data import pocket
from dinolizer.data.images import read_image, read_mask
from dinolizer.data.manifest import validate
from dinolizer.data.photos import PHOTOS


def test_every_case_comes_alike_often() -> None:
    recipes = list(pocket.recipes(seed=0, rounds=2))
    # 9 pairs of generator and edited kind with 2 grains, 4 authentic ones, under 3 conditions.
    assert len(recipes) == 2 * len(PHOTOS) * (9 * 2 + 4) * 3
    assert set(Counter(recipe.photo for recipe in recipes).values()) == {2 * 66}
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert len({recipe.seed for recipe in recipes}) == len(recipes)


def test_manifest_describes_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    every = list(pocket.recipes(seed=1, rounds=1))
    few = [recipe for recipe in every if recipe.photo == "cat" and recipe.condition == "jpeg"][::5]
    monkeypatch.setattr(pocket, "recipes", lambda seed, rounds: few)
    manifest = validate(pocket.build(seed=1, rounds=1))
    assert len(manifest) == len(few)
    for row, recipe in zip(manifest.to_dict("records"), few, strict=True):
        forgery = pocket.make(recipe)
        assert np.array_equal(read_image(row["image"]), forgery.image)
        if not row["authentic"]:
            assert np.array_equal(read_mask(row["mask"]), forgery.mask)
        assert row["seen"] == (recipe.generator != "heldout")
    # A second call finds them, and leaves no draft behind.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert pocket.build(seed=1, rounds=1).equals(manifest)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    assert len(list((tmp_path / "images").iterdir())) == 1
