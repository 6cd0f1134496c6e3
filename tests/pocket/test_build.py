"""The making of the pocket assets: the pairs of twins, and all of it in miniature."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import load_head
from dinolizer.model.pocket_vit import DIM, build_pocket_vit
from dinolizer.pocket import build as assets
from dinolizer.pocket import fills
from dinolizer.pocket.fills import Forge
from dinolizer.pocket.generators import AutoEncoder, load_generator
from dinolizer.training.loop import drawn, optimise


def small_forge(seed: int = 0, generators: bool = True) -> Forge:
    """A forge of two noisy pictures and the shipped auto-encoder."""
    rng = np.random.default_rng(seed)
    photos = [rng.integers(0, 256, (240, 260, 3), dtype=np.uint8) for _ in range(2)]
    model = load_generator("autoencoder")
    assert isinstance(model, AutoEncoder)
    return Forge(photos, {"autoencoder": model} if generators else {}, 0)


def test_twins_differ_only_in_the_mask_where_nothing_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fills, "SHARINGS", {"none": 1.0})
    forge = small_forge(generators=False)
    for number in range(6):
        real, fake, mask = forge.draw(224, np.random.default_rng(number))
        changed = (real != fake).any(axis=2)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.5


def test_equal_steps_draw_equal_twins_whatever_was_drawn_before() -> None:
    first, other = small_forge(), small_forge()
    for number in range(5):
        other.draw(224, np.random.default_rng(number))
    for number in (7, 8, 9):
        twins = [forge.draw(224, np.random.default_rng(number)) for forge in (first, other)]
        for one, same in zip(*twins, strict=True):
            assert np.array_equal(one, same)


def test_an_interrupted_pretraining_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "PAIRS", 1)
    monkeypatch.setitem(assets.LEARNING, "save_every", 2)
    draw = Forge.draw
    numbers: list[int] = []

    def failing(*given: Any) -> Any:
        numbers.append(len(numbers))
        if len(numbers) == 4:
            raise KeyboardInterrupt
        return draw(*given)

    def train(name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        task = assets.backbone_task(build_pocket_vit, 112, small_forge(), seed=3)
        options = assets.LEARNING | {"steps": 4, "checkpoint": tmp_path / name}
        optimise(task.model, drawn(task.draw), task.loss_of, **options)
        return task.result.state_dict()

    whole = train("whole.pt")
    monkeypatch.setattr(Forge, "draw", failing)
    with pytest.raises(KeyboardInterrupt):
        train("cut.pt")
    monkeypatch.setattr(Forge, "draw", draw)
    resumed = train("cut.pt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_pretrain_makes_every_asset_and_takes_up_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "PAIRS", 1)
    monkeypatch.setattr(assets, "HEAD_PAIRS", 3)
    monkeypatch.setattr(assets, "STEPS", dict.fromkeys(assets.STEPS, 2))
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = rng.integers(0, 256, (232, 240, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{number}.png", picture)
    out = tmp_path / "out"
    assets.pretrain(tmp_path / "photos", out, "cpu")
    card = json.loads((out / "pocket-vit.json").read_text())
    assert (card["photographs"], card["steps"], len(card["losses"])) == (2, 2, 1)
    for name in ("learned", "rotary"):
        made = load_backbone(f"pocket-{name}", weights=out / f"pocket-{name}.safetensors")
        assert made.spec.window == made.model.patch_embed.grid_size[0] * made.spec.patch
    backbone = load_backbone("pocket", weights=out / "pocket-vit.safetensors")
    _, head, head_card = load_head(out / "pocket-head.safetensors", backbone)
    assert head.weight.shape == (1, DIM, 1, 1)
    assert head_card.policy == "pristine"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.*")}
    assets.pretrain(tmp_path / "photos", out, "cpu")
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
