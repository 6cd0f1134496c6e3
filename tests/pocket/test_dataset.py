"""The images of a study that forges its own (`dinolizer.pocket.dataset`)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dinolizer.data.images import read_image
from dinolizer.data.manifest import validate
from dinolizer.data.masks import read_mask
from dinolizer.errors import InputError
from dinolizer.pocket import dataset as forgeries
from dinolizer.pocket import forging
from dinolizer.pocket.photos import photo_paths


def test_every_case_comes_alike_often() -> None:
    cases = list(forgeries.list_cases(photo_paths(), 288, seed=0, rounds=2))
    # 9 pairs of generator and edited kind, 4 authentic ones, under 3 conditions.
    assert len(cases) == 2 * 7 * (9 + 4) * 3
    assert set(Counter(case.photo for case in cases).values()) == {2 * 39}
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.seed for case in cases}) == len(cases)


def test_manifest_describes_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    monkeypatch.setattr(forgeries, "PROCESSES", 1)
    every = list(forgeries.list_cases(photo_paths(), 128, seed=1, rounds=1))
    few = [case for case in every if case.photo == "cat" and case.condition == "jpeg"][::5]
    forgeries.fingerprint()
    monkeypatch.setattr(forgeries, "list_cases", lambda *choices: few)
    manifest = validate(forgeries.build(photo_paths(), window=64, seed=1))
    assert len(manifest) == len(few)
    assert set(manifest["width"]) == {128}
    for row, case in zip(manifest.to_dict("records"), few, strict=True):
        forgery = forgeries.make(case)
        assert np.array_equal(read_image(row["image"]), forgery.image)
        if not row["authentic"]:
            assert np.array_equal(read_mask(row["mask"]), forgery.mask)
        assert row["seen"] == (case.generator != "heldout")
    # A second call finds them, and leaves no draft behind.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert forgeries.build(photo_paths(), window=64, seed=1).equals(manifest)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_the_cache_notices_code_that_forges_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    forgeries.fingerprint.cache_clear()
    before = forgeries.fingerprint()
    forgeries.fingerprint.cache_clear()
    monkeypatch.setattr(forging, "INPAINT_RADIUS", 4)
    assert forgeries.fingerprint() != before
    forgeries.fingerprint.cache_clear()


def test_a_photograph_that_is_too_small_is_named() -> None:
    case = next(forgeries.list_cases(photo_paths(), 1000, seed=0, rounds=1))
    with pytest.raises(InputError, match=r"astronaut.png is 512x512, .* must have 1000 pixels"):
        forgeries.make(case)
