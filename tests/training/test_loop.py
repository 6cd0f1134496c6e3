"""The end-to-end loop is a plain one; interrupted, resumed or shared out it ends the same."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from small import small_backbone, small_manifest
from torch import Tensor

from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.lora import Lora, adapted, adapter_tensors
from dinolizer.model.weights import weights_hash
from dinolizer.paths import read_checked, write_checked
from dinolizer.training import loop
from dinolizer.training.crops import Crops
from dinolizer.training.heads import Fit, dice_sums, soft_dice
from dinolizer.training.loop import Batch, Batches, Progress, optimise
from dinolizer.training.recipes import PRECISIONS, Recipe, fit_recipe, pooled

V1 = Recipe(policy="pristine", lora=None, lr=0.05, crops="fresh", epochs=3, batch=4, seed=3)
V2 = replace(V1, policy="three-class", lora=Lora(rank=4, alpha=4), lr=0.01)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """10 training rows and 3 of validation."""
    folder = tmp_path_factory.mktemp("images")
    frame = read_manifest(small_manifest(folder, 13, ("train", "train", "valid")))
    assert frame["split"].value_counts().to_dict() == {"train": 10, "valid": 3}
    return frame


def crops(manifest: pd.DataFrame, recipe: Recipe) -> tuple[Crops, Crops]:
    train, valid = (manifest[manifest["split"] == split] for split in ("train", "valid"))
    return (
        Crops(train, recipe.policy, 56, 14, recipe.seed, recipe.augmentations),
        Crops(valid, recipe.policy, 56, 14, recipe.seed),
    )


def fit(
    manifest: pd.DataFrame, folder: Path, recipe: Recipe = V1, **options: int
) -> tuple[Fit, dict[str, Tensor]]:
    """A fit in a folder, and the adapter that came with it."""
    backbone = small_backbone()
    if recipe.lora:
        backbone = adapted(backbone, recipe.lora, recipe.seed)
    made = fit_recipe(
        backbone,
        crops(manifest, recipe),
        recipe,
        Accelerator(cpu=True, mixed_precision=PRECISIONS[recipe.precision]),
        folder / "run.checkpoint",
        log=folder / "run.csv",
        **options,
    )
    return made, adapter_tensors(backbone) if recipe.lora else {}


def assert_same(one: tuple[Fit, dict[str, Tensor]], other: tuple[Fit, dict[str, Tensor]]) -> None:
    """Equal to the last bit."""
    assert torch.equal(one[0].head.weight, other[0].head.weight)
    assert torch.equal(one[0].head.bias, other[0].head.bias)
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())
    pd.testing.assert_frame_equal(one[0].history, other[0].history, check_exact=True)


def plain_tokens(backbone: Backbone, images: Tensor) -> Tensor:
    normed = (images / 255 - backbone.mean) / backbone.std
    tokens = backbone.model.forward_features(normed)[:, 5:]  # class token and 4 registers
    return tokens.transpose(1, 2).reshape(len(images), 32, 4, 4)


def test_it_equals_a_plain_loop(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """Order, crops, standardisation, AdamW, cosine and Dice, each written out again."""
    train, valid = crops(manifest, V1)
    backbone = small_backbone()
    weight = torch.zeros(32, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=V1.lr, weight_decay=0.01)
    orders = [np.random.default_rng([3, e]).permutation(10) + 10 * e for e in range(3)]
    sample = torch.stack([train[item][0] for item in orders[0]])
    std, mean = torch.std_mean(
        plain_tokens(backbone, sample), dim=(0, 2, 3), keepdim=True, correction=0
    )

    def dice(items: list[tuple[Tensor, Tensor]]) -> Tensor:
        images, targets = (torch.stack(parts) for parts in zip(*items, strict=True))
        tokens = (plain_tokens(backbone, images) - mean) / std
        p = torch.sigmoid((tokens * weight[:, None, None]).sum(1) + bias)
        return (2 * (p * targets).sum() + 1) / (p.sum() + targets.sum() + 1)

    step, rows, heads = 0, [], []
    for epoch, order in enumerate(orders, start=1):
        losses = []
        for chosen in (order[:4], order[4:8]):  # the last two do not fill a batch
            for group in optimiser.param_groups:
                group["lr"] = V1.lr * (1 + np.cos(np.pi * step / 6)) / 2
            loss = 1 - dice([train[item] for item in chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        with torch.no_grad():
            rows.append((epoch, np.mean(losses), dice([valid[i] for i in range(3)]).item()))
        heads.append((weight.detach().clone(), bias.detach().clone()))
    made, _ = fit(manifest, tmp_path)
    np.testing.assert_allclose(made.history.to_numpy(), np.array(rows), atol=1e-5)
    best_weight, best_bias = heads[int(np.argmax([row[2] for row in rows]))]
    scaled = best_weight / std.flatten()
    torch.testing.assert_close(made.head.weight.flatten(), scaled, rtol=0, atol=1e-4)
    expected = best_bias - scaled @ mean.flatten()
    torch.testing.assert_close(made.head.bias, expected, rtol=0, atol=1e-4)


def test_it_learns_and_says_so(manifest: pd.DataFrame, tmp_path: Path) -> None:
    made, _ = fit(manifest, tmp_path, replace(V1, epochs=15))
    history = made.history
    assert history["loss"].iloc[-3:].mean() < 0.6 * history["loss"].iloc[0]
    assert history["validation_dice"].max() > 0.7  # of the dark left part that is edited
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run.csv"), history)


@pytest.mark.parametrize("recipe", [V1, V2])
def test_frozen_weights_do_not_change(
    recipe: Recipe, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    backbone = small_backbone()
    learning = adapted(backbone, recipe.lora) if recipe.lora else backbone
    before = {name: value.clone() for name, value in learning.state_dict().items()}
    made = fit_recipe(
        learning,
        crops(manifest, recipe),
        recipe,
        Accelerator(cpu=True),
        tmp_path / "run.checkpoint",
        log=tmp_path / "run.csv",
    )
    assert weights_hash(backbone.model) == backbone.hash
    changed = {n for n, value in learning.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {n for n, value in learning.named_parameters() if value.requires_grad}
    assert made.head.weight.abs().min() > 0


@pytest.mark.parametrize("recipe", [V1, V2])
@pytest.mark.parametrize("crop", [3, 12, 20, 43])
def test_a_run_killed_anywhere_goes_on_to_the_same_bits(
    recipe: Recipe,
    crop: int,
    manifest: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10 crops for the scale; then for each of 3 epochs 8 to train on and 3 to validate."""
    whole = fit(manifest, tmp_path / "whole", recipe)
    read = Crops.__getitem__
    count = 0

    def failing(self: Crops, item: int) -> tuple[Tensor, Tensor]:
        nonlocal count
        count += 1
        if count == crop:
            raise KeyboardInterrupt
        return read(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(Crops, "__getitem__", failing)
        with pytest.raises(KeyboardInterrupt):
            fit(manifest, tmp_path / "killed", recipe, save_every=1)
    torch.manual_seed(crop)  # what other random numbers are at must not matter
    assert_same(fit(manifest, tmp_path / "killed", recipe, save_every=1), whole)
    assert (tmp_path / "killed/run.csv").read_text() == (tmp_path / "whole/run.csv").read_text()


def test_a_checkpoint_is_written_every_so_many_steps_and_each_epoch(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def note(_path: Path, content: bytes) -> None:
        steps.append(len(torch.load(io.BytesIO(content), weights_only=True)["losses"]))

    monkeypatch.setattr(loop, "write_checked", note)
    fit(manifest, tmp_path, replace(V1, batch=2, epochs=2), save_every=3)
    assert steps == [3, 5, 6, 9, 10]


def test_workers_change_nothing(manifest: pd.DataFrame, tmp_path: Path) -> None:
    recipe = replace(V1, epochs=1)
    expected = fit(manifest, tmp_path / "none", recipe)
    assert_same(fit(manifest, tmp_path / "two", recipe, workers=2), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 4}, "made with epochs = 3, but this run has 4"),
        ({"lr": 0.1}, "made with lr = 0.05, but this run has 0.1"),
        ({"seed": 4}, "made with seed = 3"),
        ({"policy": "fake"}, "made with policy = 'pristine'"),
        ({"lora": V2.lora}, "made with lora = None"),
    ],
)
def test_the_checkpoint_of_other_settings_is_refused(
    change: dict[str, object], says: str, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    fit(manifest, tmp_path)
    with pytest.raises(InputError, match=says):
        fit(manifest, tmp_path, replace(V1, **change))  # type: ignore[arg-type]


def test_the_checkpoint_of_other_images_is_refused(manifest: pd.DataFrame, tmp_path: Path) -> None:
    fit(manifest, tmp_path)
    with pytest.raises(InputError, match="made with images"):
        fit(manifest.drop(index=0), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_one_sentence(
    damage: bytes | None, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    fit(manifest, tmp_path, replace(V1, epochs=1))
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(InputError, match="cannot be read; delete it"):
        fit(manifest, tmp_path, replace(V1, epochs=1))


def test_one_flipped_bit_of_a_checkpoint_is_noticed(manifest: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    fit(manifest, tmp_path, replace(V1, epochs=1))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="cannot be read; delete it"):
        fit(manifest, tmp_path, replace(V1, epochs=1))


def line(step: int) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 2))).float()
    return x, x @ torch.tensor([[2.0], [-1.0]])


def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1)


def drawn(draw: Callable[[int], Batch]) -> Batches:
    return lambda first, last: map(draw, range(first, last))


def fit_line(model: torch.nn.Module, steps: int, fail_at: int = -1, **options: object) -> Progress:
    def draw(step: int) -> tuple[Tensor, Tensor]:
        if step == fail_at:
            raise KeyboardInterrupt
        return line(step)

    def loss_of(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return (model(x) - y).square().mean()

    return optimise(model, drawn(draw), loss_of, steps=steps, **{"lr": 0.1} | options)  # type: ignore[arg-type]


def test_it_stops_early_and_keeps_the_best_round() -> None:
    model, scores, weights = linear(), iter([0.3, 0.5, 0.4, 0.5, 0.2, 0.9]), []

    def score() -> float:
        weights.append(model.weight.detach().clone())
        return next(scores)

    progress = fit_line(model, 50, score=score, score_every=2, patience=3)
    # Round 2 is the first best; 3, 4 (no better) and 5 are three without a better one.
    assert progress.scores == [0.3, 0.5, 0.4, 0.5, 0.2]
    assert (progress.best_round, len(progress.losses)) == (2, 10)
    assert torch.equal(model.weight, weights[1]) and not torch.equal(weights[1], weights[4])
    history = progress.history()
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert history["loss"].tolist() == pytest.approx(np.reshape(progress.losses, (5, 2)).mean(1))


def test_an_interrupted_line_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, interrupted, resumed = linear(), linear(), linear()
    options = {"save_every": 10, "checkpoint": tmp_path / "line.pt", "warm_up": True, "clip": 1.0}
    losses = fit_line(whole, 120, **options | {"checkpoint": tmp_path / "whole.pt"}).losses
    with pytest.raises(KeyboardInterrupt):
        fit_line(interrupted, 120, fail_at=25, **options)
    assert fit_line(resumed, 120, **options).losses == losses
    assert torch.equal(whole.weight, resumed.weight)
    assert losses[-1] < 0.1 * losses[0]
    finished = linear()
    fit_line(finished, 120, fail_at=0, **options)  # is only loaded
    assert torch.equal(whole.weight, finished.weight)


def write_state(path: Path, state: dict[str, object]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_checked(path, content.getvalue())


def test_a_foreign_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    fit_line(linear(), 4, checkpoint=path, settings={"name": "line"})
    state = torch.load(io.BytesIO(read_checked(path)), weights_only=True)
    for change, says in (
        ({"model": {}}, "cannot be read"),
        ({"model": {"weight": torch.zeros(3)}}, "cannot be read"),
        ({"scores": [0.5]}, "cannot be read"),  # and nothing of the best round
        ({"scores": [0.5], "best": {"weight": torch.zeros(3)}}, "cannot be read"),
        ({"settings": {}}, "made with name = None, but this run has 'line'"),
        ({"settings": {"name": "line", "more": 1}}, "made with more = 1, but this run has None"),
        ({"further": 1}, "cannot be read"),
    ):
        write_state(path, state | change)
        with pytest.raises(InputError, match=says):
            fit_line(linear(), 4, checkpoint=path, settings={"name": "line"})
    write_state(path, {})
    with pytest.raises(InputError, match="cannot be read"):
        fit_line(linear(), 4, checkpoint=path, settings={"name": "line"})


def test_a_score_or_weight_that_is_no_number_is_one_sentence() -> None:
    def root_of_zero(model: torch.nn.Module, *_: Tensor) -> Tensor:
        return (0 * model.weight).sqrt().sum()  # 0, with a gradient that is no number

    with pytest.raises(InputError, match="The largest weight is nan"):
        optimise(linear(), drawn(line), root_of_zero, steps=1, lr=0.1, warm_up=False)
    with pytest.raises(InputError, match="The score is nan"):
        fit_line(linear(), 4, score=lambda: float("nan"), score_every=2)


def test_pooled_sums_have_the_gradient_of_all_crops() -> None:
    """The average over two processes of their gradients is that of the whole batch in one."""
    torch.manual_seed(0)
    logits, target = torch.randn(5, 3, 2, 2), torch.rand(5, 3, 2, 2).softmax(1)
    whole = logits.clone().requires_grad_()
    soft_dice(dice_sums(whole, target).sum(1)).backward()
    parts = [(logits[:3], target[:3]), (logits[3:], target[3:])]
    total = sum(dice_sums(*part).sum(1) for part in parts)

    class Two:
        num_processes = 2

        def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
            return total  # type: ignore[return-value]

    gradients = []
    for part, labels in parts:
        leaf = part.clone().requires_grad_()
        soft_dice(pooled(dice_sums(leaf, labels).sum(1), Two())).backward()  # type: ignore[arg-type]
        gradients.append(leaf.grad / 2)
    torch.testing.assert_close(torch.cat(gradients), whole.grad)


def test_a_loss_that_is_no_number_is_one_sentence(manifest: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The score is nan, .* lower learning rate than 1e[+]29"):
        fit(manifest, tmp_path, replace(V1, lr=1e29))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"seed": -1}, "seed is -1, but it must be from 0"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"crops": "new"}, "crops is 'new'"),
        ({"policy": "real"}, "policy is 'real'"),
        ({"precision": "half"}, "precision is 'half'"),
    ],
)
def test_an_impossible_recipe_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(V1, **change)  # type: ignore[arg-type]
