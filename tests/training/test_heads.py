"""The head learns what a line separates, the same for one seed, and stays a plain linear one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dinolizer.errors import InputError
from dinolizer.training.heads import fit_head, fit_heads
from dinolizer.training.losses import dice_loss

DIM = 12


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
    fit = fit_head(tokens, targets, validation=second_half, epochs=40, batch_size=8)
    for some_tokens, some_targets in (toy(0), toy(1)):
        marked = fit.head(some_tokens)[:, 0] > 0
        assert (marked == (some_targets > 0.5)).float().mean() > 0.97
    assert fit.history["loss"].iloc[-1] < 0.4 * fit.history["loss"].iloc[0]
    # A head of zeros has p = 0.5 everywhere, and a soft Dice of s / (0.5 + s) for a share s edited.
    share = toy(1)[1].mean().item()
    assert share / (0.5 + share) < 0.5
    assert fit.history["validation_dice"].iloc[-1] > 0.8


def test_the_head_stays_the_plain_linear_one() -> None:
    fit = fit_head(*toy(0), epochs=1)
    assert sum(parameter.numel() for parameter in fit.head.parameters()) == DIM + 1
    assert isinstance(fit.head, torch.nn.Conv2d)
    assert fit.head.kernel_size == (1, 1)
    assert not fit.head.training and not fit.head.weight.requires_grad


def test_folded_weights_do_not_depend_on_scale_and_shift_of_the_tokens() -> None:
    """Standardising makes the fit invariant, so the logits of both heads must agree."""
    tokens, targets = toy(0)
    scaled = 3 * tokens + 7
    plain = fit_head(tokens, targets, epochs=3).head(tokens)
    other = fit_head(scaled, targets, epochs=3).head(scaled)
    torch.testing.assert_close(other, plain, atol=0.02, rtol=0.01)


def test_the_history_is_of_the_epochs_and_its_dice_that_of_the_final_head() -> None:
    together, second_half = both_toys()
    fit = fit_head(*together, epochs=3, validation=second_half)
    validation = toy(1)
    assert list(fit.history.columns) == ["epoch", "loss", "validation_dice"]
    assert fit.history["epoch"].tolist() == [1, 2, 3]
    expected = 1 - dice_loss(fit.head(validation[0]), validation[1]).item()
    assert fit.history["validation_dice"].iloc[-1] == pytest.approx(expected, abs=1e-4)
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
    fit = fit_head(tokens, targets, epochs=2)
    assert torch.isfinite(fit.head(tokens)).all()
    assert fit.head.weight[0, 3] == 0


def test_three_classes_are_learned_from_one_hot_targets() -> None:
    tokens, edited = toy(0)
    label = edited.long() + (edited.bool() & (tokens[:, 0] > tokens[:, 0].median())).long()
    targets = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).float()
    fit = fit_head(tokens, targets, epochs=40, batch_size=8)
    assert fit.head.out_channels == 3
    assert (fit.head(tokens).argmax(1) == label).float().mean() > 0.9


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
    first = [fit.head(tokens[~second_half]) for fit in (plain[0], other[0])]
    torch.testing.assert_close(first[1], first[0], atol=1e-2, rtol=1e-3)
    assert not torch.allclose(plain[1].head.weight, other[1].head.weight)


@pytest.mark.parametrize(
    ("tokens", "targets"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5)),
        (torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4)),
    ],
)
def test_tokens_and_targets_that_do_not_belong_together_are_refused(
    tokens: Tensor, targets: Tensor
) -> None:
    with pytest.raises(InputError, match="The tokens have the shape"):
        fit_head(tokens, targets)


def test_a_head_without_windows_is_refused() -> None:
    tokens, targets = toy(0)
    with pytest.raises(InputError, match="at least one True"):
        fit_heads(tokens, targets, torch.zeros(2, len(tokens), dtype=torch.bool))
