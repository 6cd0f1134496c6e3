"""The making of the pocket assets: pairs of twins, FLUX.2's auto-encoder read from files in the
published layout, the rival against scikit-learn, and all of it in miniature."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fills
import numpy as np
import pretrain as assets
import pytest
import torch
from fills import SHARINGS, Forge, shared
from flux import FLUX_FILES, load_flux
from numpy.typing import NDArray
from pretrain import PENALTY, PURE, drawn, fit_rival
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import load_head
from dinolizer.model.pocket_vit import DIM, PATCH, TraceStem, build_pocket_vit
from dinolizer.model.specs import TWINS
from dinolizer.paths import ROOT
from dinolizer.pocket.generators import AutoEncoder, load_generator
from dinolizer.study.methods import residual_classifier
from dinolizer.training.loop import optimise


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
        task = assets.forensic_task(build_pocket_vit, 112, small_forge(), seed=3)
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


def test_a_generic_backbone_learns_from_real_crops_what_is_hidden_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole squares of four by four patches are hidden, all by the same learned token."""
    monkeypatch.setattr(assets, "PAIRS", 2)
    monkeypatch.setattr(Forge, "draw", None)  # no forgery is drawn
    torch.manual_seed(0)
    task = assets.generic_task(build_pocket_vit, 112, small_forge(generators=False), seed=3)
    images, hidden = task.draw(0)
    assert images.shape == (4, 3, 112, 112)
    assert hidden.shape == (4, 8, 8)
    squares = hidden.unflatten(2, (2, 4)).unflatten(1, (2, 4)).float().mean((2, 4))
    assert set(squares.flatten().tolist()) == {0.0, 1.0}
    seen: list[torch.Tensor] = []
    entering = task.result.blocks[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    loss = task.loss_of(task.model, images, hidden)
    entering.remove()
    tokens = seen[0][:, 5:].unflatten(1, (8, 8))
    unseen = task.model["unseen"].weight
    assert torch.equal(tokens[hidden], unseen.expand(int(hidden.sum()), -1))
    loss.backward()
    assert unseen.grad.abs().sum() > 0
    options = assets.LEARNING | {"steps": 12, "lr": 3e-3}
    losses = optimise(task.model, drawn(lambda _: (images, hidden)), task.loss_of, **options).losses
    assert losses[-1] < 0.8 * losses[0]


def test_pretrain_makes_every_asset_and_takes_up_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "PAIRS", 1)
    monkeypatch.setattr(assets, "HEAD_PAIRS", 3)
    monkeypatch.setattr(assets, "STEPS", dict.fromkeys(assets.STEPS, 2))
    few = {name: recipe._replace(steps=2) for name, recipe in assets.RECIPES.items()}
    monkeypatch.setattr(assets, "RECIPES", few)
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = rng.integers(0, 256, (232, 240, 3), dtype=np.uint8)
        write_image(tmp_path / "photos" / f"{number}.png", picture)
    out = tmp_path / "out"
    assets.pretrain(tmp_path / "photos", out, "cpu")
    card = json.loads((out / "pocket-vit.json").read_text())
    assert (card["photographs"], card["steps"], len(card["losses"])) == (2, 2, 1)
    for name in [twin for twins in TWINS.items() for twin in (twins[0], *twins[1])][1:]:
        made = load_backbone(name, weights=out / f"{name}.safetensors")
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
    command = [sys.executable, "pretraining/pretrain.py", tmp_path / "photos", tmp_path / "out"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "small.png has a side under 224 pixels" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", SHARINGS)
def test_twins_that_are_equal_stay_equal(way: str) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (400, 420, 3), dtype=np.uint8)
    first, second = shared([photo, photo.copy()], way, 224, np.random.default_rng(2))
    assert first.shape == (224, 224, 3)
    assert np.array_equal(first, second)


SIDE = 8 * PATCH


def scenes(count: int, seed: int) -> tuple[list[NDArray[np.uint8]], torch.Tensor]:
    """Grey pictures with grain of 6 grey levels, of which the right half has 1; the shares of the
    right half in their patches, one column of which is mixed."""
    rng = np.random.default_rng(seed)
    spread = np.full((SIDE, SIDE, 1), 6.0)
    spread[:, SIDE // 2 + PATCH // 2 :] = 1
    noise = rng.standard_normal((count, SIDE, SIDE, 3))
    images = np.clip(np.rint(128 + spread * noise), 0, 255).astype(np.uint8)
    shares = torch.zeros(count, 8, 8)
    shares[:, :, 4], shares[:, :, 5:] = 0.5, 1
    return list(images), shares


def test_the_weights_are_those_of_the_regression_on_standardised_statistics() -> None:
    images, shares = scenes(6, seed=0)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        statistics = TraceStem().statistics(pixels)
    centred = (statistics - statistics.mean(dim=(2, 3), keepdim=True)).permute(0, 2, 3, 1)
    features, edited = centred.flatten(0, 2).numpy(), shares.flatten().numpy()
    pure = (edited < PURE) | (edited > 1 - PURE)
    scaler = StandardScaler().fit(features[pure])
    regression = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=200)
    regression.fit(scaler.transform(features[pure]), edited[pure] > 0.5)
    weights = fit_rival(images, shares)
    np.testing.assert_allclose(
        features @ weights["weight"].numpy() + weights["bias"].numpy(),
        regression.decision_function(scaler.transform(features)),
        atol=2e-3,
    )


@pytest.mark.parametrize("cut", [0, 5], ids=["whole patches", "a patch in part"])
def test_its_map_finds_the_half_with_other_noise(tmp_path: Path, cut: int) -> None:
    save_file(fit_rival(*scenes(6, seed=0)), tmp_path / "pocket-rival.safetensors")
    image = scenes(1, seed=1)[0][0][: SIDE - cut, : SIDE - cut]
    found = residual_classifier(image, tmp_path)
    truth = np.zeros(image.shape[:2], bool)
    truth[:, SIDE // 2 + PATCH // 2 :] = True
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert roc_auc_score(truth.ravel(), found.ravel()) > 0.98


CONV = {"conv.0": (64, 64, 3, 3), "conv.2": (64, 64, 3, 3), "conv.4": (64, 64, 3, 3)}
POOL = {"pool.0": (256, 64, 1, 1), "pool.1": (256,), "pool.3": (64, 256, 1, 1)}


def layout(half: str) -> dict[str, torch.Size]:
    """Names and shapes as the published files have them, written down from those files."""
    blocks = {"encoder": [1, *range(3, 6), *range(7, 10), *range(11, 14)],
              "decoder": [*range(3, 6), *range(8, 11), *range(13, 16), 18]}[half]  # fmt: skip
    pooled = {"encoder": (11, 12, 13), "decoder": (3, 4, 5)}[half]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in blocks:
        for name, shape in (CONV | POOL if number in pooled else CONV).items():
            shapes[f"{number}.{name}.weight"] = shape
            if name.startswith("conv") or name == "pool.1":
                shapes[f"{number}.{name}.bias"] = shape[:1]
    ends = {"encoder": {0: (64, 3), 14: (32, 64)}, "decoder": {1: (64, 32), 19: (3, 64)}}[half]
    for number, (outputs, inputs) in ends.items():
        shapes |= {f"{number}.weight": (outputs, inputs, 3, 3), f"{number}.bias": (outputs,)}
    for number in {"encoder": (2, 6, 10), "decoder": (7, 12, 17)}[half]:
        shapes[f"{number}.weight"] = (64, 64, 3, 3)
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def write(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for half, name in FLUX_FILES.items():
        weights = {
            key: torch.randn(shape, generator=generator) / 40 for key, shape in layout(half).items()
        }
        torch.save(weights, folder / name)


def test_the_published_layout_is_read_whole(tmp_path: Path) -> None:
    write(tmp_path)
    assert [len(layout(half)) for half in FLUX_FILES] == [
        79,
        79,
    ]  # as counted in the published files
    model = load_flux(tmp_path)
    for half, name in FLUX_FILES.items():
        stored = torch.load(tmp_path / name, weights_only=True)
        read = model.get_submodule(half).state_dict()
        assert all(torch.equal(read[key], value) for key, value in stored.items())
    latents = model.encode(torch.rand(1, 3, 32, 48))
    assert latents.shape == (1, 32, 4, 6)
    assert model.decode(latents).shape == (1, 3, 32, 48)


def test_another_file_is_refused_by_its_name(tmp_path: Path) -> None:
    write(tmp_path)
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / FLUX_FILES["decoder"])
    with pytest.raises(InputError, match=r"taef2_decoder\.pth is not the decoder"):
        load_flux(tmp_path)
