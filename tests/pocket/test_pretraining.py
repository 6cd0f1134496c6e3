"""The making of the pocket assets: the pairs of twins, and all of it in miniature."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import load_head
from dinolizer.pocket import build as assets
from dinolizer.pocket import forging, pretraining


def test_twins_differ_only_by_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    side, crop = pretraining.POOL_CROP, pretraining.CROP
    rng = np.random.default_rng(0)
    real = rng.integers(60, 200, (1, side, side, 3), dtype=np.uint8)
    mask = np.zeros((1, side, side), bool)
    mask[0, 30:120, 30:120] = True
    pool = pretraining.Pool(real, np.full_like(real, 255), mask, np.array([False]))
    monkeypatch.setattr(pretraining, "match_grain", lambda image, _mask, _rng: image)
    monkeypatch.setattr(pretraining, "_as_met", lambda one, other, _rng: (one, other))
    images, labels = pretraining.draw_pairs(pool, 12, rng)
    assert images.shape == (24, 3, crop, crop)
    assert labels.tolist() == [0.0] * 12 + [1.0] * 12
    for original, forged in zip(images[:12], images[12:], strict=True):
        changed = (original != forged).any(dim=0)
        assert changed.any()
        assert (forged[:, changed] == 1).all()  # only where the generator's white was put


def test_pretrain_makes_every_asset_and_takes_up_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "HEAD_CROPS_PER_CASE", 1)
    monkeypatch.setattr(assets, "CASES", assets.CASES[4:8])  # spliced and re-generated
    monkeypatch.setattr(pretraining, "PAIRS", 1)
    quick_inpainting = forging._inpaint_classically  # biharmonic takes seconds a crop
    monkeypatch.setattr(
        forging, "_inpaint_classically", lambda *given: quick_inpainting(*given[:2], "telea")
    )
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = rng.integers(0, 256, (232, 240, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{number}.png", picture)
    out = tmp_path / "out"
    quick = {
        "generator_steps": dict.fromkeys(assets.GENERATOR_STEPS, 2),
        "backbone_steps": dict.fromkeys(assets.BACKBONE_STEPS, 2),
        "rounds": 1,
    }
    assets.pretrain(tmp_path / "photos", out, "cpu", **quick)
    card = json.loads((out / "pocket-vit.json").read_text())
    assert (card["photographs"], card["steps"], len(card["losses"])) == (2, 2, 1)
    for name in ("learned", "rotary"):
        made = load_backbone(f"pocket-{name}", weights=out / f"pocket-{name}.safetensors")
        assert made.spec.window == made.model.patch_embed.grid_size[0] * made.spec.patch
    backbone = load_backbone("pocket", weights=out / "pocket-vit.safetensors")
    _, head, head_card = load_head(out / "pocket-head.safetensors", backbone)
    assert head.weight.shape == (1, 192, 1, 1)
    assert head_card.policy == "pristine"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.*")}
    assets.pretrain(tmp_path / "photos", out, "cpu", **quick)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.*")} == before


def test_a_folder_with_one_photograph_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "one.png", np.zeros((240, 240, 3), np.uint8))
    with pytest.raises(InputError, match="at least two"):
        assets.pretrain(tmp_path, tmp_path / "out", "cpu")


def test_a_small_photograph_is_refused_by_name_at_the_shell(tmp_path: Path) -> None:
    for name, height in (("large", 300), ("small", 100)):
        write_image(tmp_path / f"photos/{name}.png", np.zeros((height, 300, 3), np.uint8))
    result = CliRunner().invoke(
        app, ["study", "pretrain", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "small.png has a side under 224 pixels" in result.stderr
    assert not (tmp_path / "out").exists()
