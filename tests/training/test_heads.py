"""A head learns what a line separates, many are those alone, and losses are the libraries'."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from dinolizer.errors import InputError
from dinolizer.training.heads import (
    LOSSES,
    Fit,
    Heads,
    Loss,
    dice_loss,
    entropy_sums,
    fit,
    fit_heads,
    loss_of_heads,
    temper,
)

DIM = 12


def fit_head(tokens: Tensor, targets: Tensor, **settings: Any) -> Fit:
    """One head on all windows."""
    every = torch.ones(1, len(tokens), dtype=torch.bool)
    return fit_heads(tokens, targets, every, **settings)[0]


def toy(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    """Tokens with badly scaled, shifted channels; edited where a fixed line says so."""
    rng = np.random.default_rng(seed)
    standard = rng.normal(size=(count, DIM, 4, 4))
    line = np.random.default_rng(99).normal(size=DIM)
    edited = np.einsum("d,ndhw->nhw", line, standard) > 2
    scale, shift = np.logspace(-2, 1, DIM), np.linspace(-20, 20, DIM)
    tokens = standard * scale[:, None, None] + shift[:, None, None]
    return torch.tensor(tokens, dtype=torch.float32), torch.tensor(edited, dtype=torch.float32)


def both_toys() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Two toys behind one another, and which windows are those of the second."""
    (first, first_targets), (second, second_targets) = toy(0), toy(1)
    together = torch.cat([first, second]), torch.cat([first_targets, second_targets])
    return together, torch.arange(len(first) + len(second)) >= len(first)


def test_it_learns_a_linearly_separable_toy() -> None:
    (tokens, targets), second_half = both_toys()
    left_out = second_half[None]
    (made,) = fit_heads(tokens, targets, ~left_out, validation=left_out, epochs=40, batch_size=8)
    for some_tokens, some_targets in (toy(0), toy(1)):
        marked = made.head(some_tokens)[:, 0] > 0
        assert (marked == (some_targets > 0.5)).float().mean() > 0.97
    assert made.history["loss"].iloc[-1] < 0.4 * made.history["loss"].iloc[0]
    # A head of zeros has p = 0.5 everywhere, and a soft Dice of s / (0.5 + s) for a share s edited.
    share = toy(1)[1].mean().item()
    assert share / (0.5 + share) < 0.5
    assert made.history["validation_dice"].iloc[-1] > 0.8


def test_the_head_stays_the_plain_linear_one() -> None:
    made = fit_head(*toy(0), epochs=1)
    assert sum(parameter.numel() for parameter in made.head.parameters()) == DIM + 1
    assert isinstance(made.head, torch.nn.Conv2d)
    assert made.head.kernel_size == (1, 1)
    assert not made.head.training and not made.head.weight.requires_grad


def test_folded_weights_do_not_depend_on_scale_and_shift_of_the_tokens() -> None:
    """Standardising makes the fit invariant, so the logits of both heads must agree."""
    tokens, targets = toy(0)
    scaled = 3 * tokens + 7
    plain = fit_head(tokens, targets, epochs=3).head(tokens)
    other = fit_head(scaled, targets, epochs=3).head(scaled)
    torch.testing.assert_close(other, plain, atol=0.02, rtol=0.01)


def test_the_history_is_of_the_epochs_and_its_dice_that_of_the_final_head() -> None:
    together, second_half = both_toys()
    left_out = second_half[None]
    (made,) = fit_heads(*together, ~left_out, epochs=3, validation=left_out)
    validation = toy(1)
    assert list(made.history.columns) == ["epoch", "loss", "validation_dice"]
    assert made.history["epoch"].tolist() == [1, 2, 3]
    expected = 1 - dice_loss(made.head(validation[0]), validation[1]).item()
    assert made.history["validation_dice"].iloc[-1] == pytest.approx(expected, abs=1e-4)
    assert fit_head(*toy(0), epochs=1).history["validation_dice"].isna().all()


def test_one_seed_gives_one_head_and_another_seed_another() -> None:
    tokens, targets = toy(0)
    first, again, other = (
        fit_head(tokens, targets, epochs=2, batch_size=8, seed=seed).head.weight
        for seed in (3, 3, 4)
    )
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert not torch.equal(other, first)


def test_it_does_not_touch_the_callers_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_head(*toy(0), epochs=1)
    assert torch.rand(1) == expected


def test_half_precision_tokens_give_nearly_the_same_head() -> None:
    tokens, targets = toy(0)
    tokens = (tokens - tokens.mean((0, 2, 3), keepdim=True)) / tokens.std((0, 2, 3), keepdim=True)
    full = fit_head(tokens, targets, epochs=3).head(tokens)
    half = fit_head(tokens.half(), targets, epochs=3).head(tokens)
    assert (full.sign() == half.sign()).float().mean() > 0.99


def test_a_constant_channel_changes_nothing() -> None:
    tokens, targets = toy(0)
    tokens[:, 3] = 5.0
    made = fit_head(tokens, targets, epochs=2)
    assert torch.isfinite(made.head(tokens)).all()
    assert made.head.weight[0, 3] == 0


def test_three_classes_are_learned_from_one_hot_targets() -> None:
    tokens, edited = toy(0)
    label = edited.long() + (edited.bool() & (tokens[:, 0] > tokens[:, 0].median())).long()
    targets = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).float()
    made = fit_head(tokens, targets, epochs=40, batch_size=8)
    assert made.head.out_channels == 3
    assert (made.head(tokens).argmax(1) == label).float().mean() > 0.9


def test_heads_fitted_together_are_those_fitted_alone_on_the_same_batches() -> None:
    """The first head has all windows: alone it sees the batches that it sees beside the others."""
    (tokens, targets), second_half = both_toys()
    first_half = ~second_half
    every = torch.ones_like(first_half)
    settings = {"epochs": 3, "batch_size": 8, "seed": 2}
    train = torch.stack([every, first_half, second_half])
    together = fit_heads(tokens, targets, train, validation=~train, **settings)
    alone = fit_head(tokens, targets, **settings).head.weight
    torch.testing.assert_close(together[0].head.weight, alone, rtol=1e-3, atol=1e-3)
    assert together[0].history["validation_dice"].isna().all()
    expected = 1 - dice_loss(together[1].head(tokens[second_half]), targets[second_half]).item()
    assert together[1].history["validation_dice"].iloc[-1] == pytest.approx(expected, abs=1e-4)


def test_a_head_does_not_depend_on_windows_that_are_not_its_own() -> None:
    (tokens, targets), second_half = both_toys()
    spoiled = tokens.clone()
    spoiled[second_half] = 100 * spoiled[second_half].flip(1)
    train = torch.stack([~second_half, second_half])
    plain, other = (fit_heads(some, targets, train, epochs=3) for some in (tokens, spoiled))
    first = [made.head(tokens[~second_half]) for made in (plain[0], other[0])]
    torch.testing.assert_close(first[1], first[0], atol=1e-2, rtol=1e-3)
    assert not torch.allclose(plain[1].head.weight, other[1].head.weight)


def test_a_head_without_windows_is_refused() -> None:
    tokens, targets = toy(0)
    with pytest.raises(InputError, match="at least one True"):
        fit_heads(tokens, targets, torch.zeros(2, len(tokens), dtype=torch.bool))


def filled(count: int, dim: int, classes: int) -> Heads:
    """Heads of random numbers, its standardisation too."""
    heads = Heads({"case": count}, dim, classes)
    generator = torch.Generator().manual_seed(1)
    for values in heads.state_dict().values():
        values.copy_(torch.randn(values.shape, generator=generator))
    return heads


def data(count: int = 24, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, dim, 4, 4, generator=generator)
    return tokens, (tokens[:, :2].sum(1) > 1).float()


@pytest.mark.parametrize("classes", [1, 3])
def test_logits_are_those_of_torchs_own_layer(classes: int) -> None:
    heads = filled(3, 6, classes)
    tokens, _ = data()
    logits = heads(tokens)
    assert logits.shape == (24, 3, classes, 4, 4)
    for number in range(3):
        first = nn.Conv2d(6, classes, 1)
        weight = heads.weight[number, ..., None, None]
        first.load_state_dict({"weight": weight, "bias": heads.bias[number]})
        mean, scale = (part[number, :, None, None] for part in (heads.mean, heads.scale))
        expected = first((tokens - mean) * scale)
        torch.testing.assert_close(logits[:, number], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [1, 3])
def test_selected_heads_are_those_at_the_positions_along_the_named_axes(classes: int) -> None:
    heads = filled(12, 6, classes)
    heads.axes = {"case": 2, "seed": 2, "fold": 3}
    tokens, _ = data()
    every = heads(tokens).unflatten(1, (2, 2, 3))
    of_fold = heads.select(fold=2)
    assert of_fold.axes == {"case": 2, "seed": 2}
    expected = every[:, :, :, 2].flatten(1, 2)
    torch.testing.assert_close(of_fold(tokens), expected, rtol=1e-5, atol=1e-5)
    one = heads.select(seed=1, case=0, fold=1)
    torch.testing.assert_close(one(tokens)[:, 0], every[:, 0, 1, 1], rtol=1e-5, atol=1e-5)
    assert len(one) == 1 and not any(value.requires_grad for value in one.parameters())
    with pytest.raises(ValueError, match=r"axes \['case', 'seed', 'fold'\], not \['photo'\]"):
        heads.select(photo=1)


def test_every_loss_fitted_together_is_the_one_fitted_alone() -> None:
    tokens, targets = data()
    train = torch.arange(24).expand(len(LOSSES), 24) % 3 != 0
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.02}
    together = Heads({"case": len(LOSSES)}, 6)
    fit(together, tokens, targets, train, losses=LOSSES, **settings)
    for number, loss in enumerate(LOSSES):
        alone = Heads({"case": 1}, 6)
        fit(alone, tokens, targets, train[:1], losses=[loss], **settings)
        torch.testing.assert_close(
            alone(tokens)[:, 0], together(tokens)[:, number], rtol=1e-3, atol=1e-3
        )


def test_a_window_that_counts_twice_is_as_if_it_were_there_twice() -> None:
    """All windows in one batch: their order changes nothing."""
    tokens, targets = data()
    twice = torch.arange(24) % 4 == 0
    doubled = torch.cat([tokens, tokens[twice]]), torch.cat([targets, targets[twice]])
    settings = {"epochs": 6, "batch_size": 64, "losses": ["dice+bce"]}
    weighted, repeated = Heads({"case": 1}, 6), Heads({"case": 1}, 6)
    fit(weighted, tokens, targets, 1 + twice[None].float(), **settings)
    every = torch.ones(1, len(doubled[0]), dtype=torch.bool)
    fit(repeated, *doubled, every, **settings)
    torch.testing.assert_close(weighted(tokens), repeated(tokens), rtol=1e-4, atol=1e-4)


def test_what_is_not_finite_is_one_sentence_that_names_it() -> None:
    tokens, targets = data()
    with pytest.raises(InputError, match=r"The weight of a head is not finite.* than inf"):
        fit_head(tokens, targets, lr=torch.inf)
    with pytest.raises(InputError, match="The loss of a head is not finite"):
        fit_head(tokens, torch.full_like(targets, torch.nan))
    for value in (torch.nan, torch.inf, -torch.inf):
        tokens[3, 2, 1, 1] = value
        with pytest.raises(InputError, match="of the tokens to fit on is not finite"):
            fit_head(tokens, targets, epochs=1)


def test_what_cannot_be_fitted_is_refused() -> None:
    tokens, targets = data()
    train = torch.ones(1, 24)
    with pytest.raises(InputError, match="The loss is 'hinge'"):
        fit(Heads({"case": 1}, 6), tokens, targets, train, losses=["hinge"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="none below it"):
        fit(Heads({"case": 1}, 6), tokens, targets, train - 2 * torch.eye(1, 24))


SURE = 50.0  # sigmoid(50) is 1 in float32


def test_hand_counted_dice() -> None:
    # Four patches: 2 marked, 1 edited, 1 in both; smoothed by one patch: (2 * 1 + 1) / (2 + 1 + 1).
    logits = torch.tensor([SURE, SURE, -SURE, -SURE]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 2, 2)
    assert dice_loss(logits, target).item() == pytest.approx(1 - 3 / 4)


def test_it_is_pooled_over_the_batch_not_averaged_over_images() -> None:
    # Image 1: 1 patch edited and found. Image 2: none edited, 3 marked. Pooled, smoothed by one
    # patch: (2 * 1 + 1) / (4 + 1 + 1); per image it would be the mean of 1 and 1 / 4.
    logits = torch.tensor([[SURE, -SURE, -SURE], [SURE, SURE, SURE]]).view(2, 1, 1, 3)
    target = torch.tensor([[1.0, 0, 0], [0, 0, 0]]).view(2, 1, 3)
    assert dice_loss(logits, target).item() == pytest.approx(1 - 3 / 6)


@pytest.mark.parametrize("classes", [1, 3])
def test_it_equals_the_formula_in_numpy(classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, classes, 5, 6))
    if classes == 1:
        probability = 1 / (1 + np.exp(-logits))
        target = rng.random((4, 1, 5, 6))
    else:
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        target = np.eye(3)[rng.integers(3, size=(4, 5, 6))].transpose(0, 3, 1, 2)
    dice = [
        (2 * np.vdot(probability[:, c], target[:, c]) + 1)
        / (probability[:, c].sum() + target[:, c].sum() + 1)
        for c in range(classes)
    ]
    loss = dice_loss(torch.from_numpy(logits), torch.from_numpy(target))
    assert loss.item() == pytest.approx(1 - np.mean(dice))
    if classes == 1:
        assert dice_loss(torch.from_numpy(logits), torch.from_numpy(target[:, 0])) == loss


def test_a_batch_without_edits_still_teaches_to_mark_nothing() -> None:
    logits = torch.zeros(2, 1, 3, 3, requires_grad=True)
    dice_loss(logits, torch.zeros(2, 3, 3)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_cross_entropy_and_focal_are_those_of_the_libraries() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 1, 5, 6, generator=rng)
    soft = torch.rand(4, 1, 5, 6, generator=rng)
    expected = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    torch.testing.assert_close(entropy_sums(logits, soft), expected.sum((1, 2, 3)))
    hard = soft.round()
    expected = sigmoid_focal_loss(logits, hard, alpha=-1, gamma=2)
    torch.testing.assert_close(entropy_sums(logits, hard, focus=2), expected.sum((1, 2, 3)))


@pytest.mark.parametrize("loss", LOSSES)
def test_each_head_has_the_loss_of_its_own_images(loss: Loss) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, 1, 4, 4, generator=rng)
    target = torch.rand(6, 1, 4, 4, generator=rng)
    weights = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 2, 1, 0, 1]])
    found = loss_of_heads(loss, logits, target, weights)
    repeated = torch.tensor([2, 2, 3, 5])
    for number, own in enumerate((torch.tensor([0, 1]), repeated)):
        z, t = logits[own, number], target[own]
        entropy = F.binary_cross_entropy_with_logits(z, t)
        p = z.sigmoid()
        focal = -(t * (1 - p) ** 2 * p.log() + (1 - t) * p**2 * (1 - p).log()).mean()
        parts = {"dice": dice_loss(z, t), "bce": entropy, "focal": focal}
        expected = sum(parts[name] for name in loss.split("+"))
        torch.testing.assert_close(found[number], expected)


def test_a_temperature_brings_logits_back_to_log_odds_and_moves_no_mask() -> None:
    # Where a share p of patches is edited, the cross-entropy is least at the log-odds of p: ten
    # times that needs a temperature of 10. Steps of `TEMPERATURES` are 5 % wide.
    odds = torch.linspace(-3, 3, 64).view(1, 1, 8, 8)
    head = nn.Conv2d(1, 1, 1)
    nn.init.constant_(head.weight, 10.0)
    nn.init.zeros_(head.bias)
    before = head(odds)
    tempered = temper(head, odds, odds.sigmoid().squeeze(1))
    assert tempered is head
    torch.testing.assert_close(head(odds), odds, rtol=0.05, atol=0)
    assert torch.equal(head(odds) > 0, before > 0)
