"""Heads side by side are the heads they would be alone, of the library's own layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.errors import InputError
from dinolizer.training.heads import fit_stack
from dinolizer.training.losses import LOSSES, dice_loss
from dinolizer.training.stack import Stack

SHAPES = [(1, 0, 1), (1, 0, 3), (3, 0, 1), (1, 5, 1), (3, 5, 3)]


def filled(count: int, dim: int, classes: int, kernel: int, hidden: int) -> Stack:
    """A stack of random numbers, its standardisation too."""
    stack = Stack(count, dim, classes, kernel=kernel, hidden=hidden)
    generator = torch.Generator().manual_seed(1)
    for values in stack.state_dict().values():
        values.copy_(torch.randn(values.shape, generator=generator))
    return stack


def data(count: int = 24, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, dim, 4, 4, generator=generator)
    return tokens, (tokens[:, :2].sum(1) > 1).float()


@pytest.mark.parametrize(("kernel", "hidden", "classes"), SHAPES)
def test_logits_are_those_of_torchs_own_layers(kernel: int, hidden: int, classes: int) -> None:
    stack = filled(3, 6, classes, kernel, hidden)
    tokens, _ = data()
    logits = stack(tokens)
    assert logits.shape == (24, 3, classes, 4, 4)
    for number in range(3):
        first = nn.Conv2d(
            6, hidden or classes, kernel, padding=kernel // 2, padding_mode="replicate"
        )
        first.load_state_dict({"weight": stack.weight[number], "bias": stack.bias[number]})
        mean, scale = (part[number, :, None, None] for part in (stack.mean, stack.scale))
        expected = first((tokens - mean) * scale)
        if hidden:
            weight = stack.last_weight[number, ..., None, None]
            expected = F.conv2d(expected.relu(), weight, stack.last_bias[number])
        torch.testing.assert_close(logits[:, number], expected, rtol=1e-4, atol=1e-4)
    assert stack.size == 6 * (hidden or classes) * kernel**2 + (hidden or classes) + (
        classes * (hidden + 1) if hidden else 0
    )


@pytest.mark.parametrize(("kernel", "hidden", "classes"), SHAPES)
def test_taken_heads_are_the_same_in_the_order_asked_for(
    kernel: int, hidden: int, classes: int
) -> None:
    stack = filled(3, 6, classes, kernel, hidden)
    tokens, _ = data()
    taken = stack.take([2, 0])
    torch.testing.assert_close(taken(tokens), stack(tokens)[:, [2, 0]], rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in taken.parameters())


@pytest.mark.parametrize(("kernel", "hidden"), [(1, 0), (3, 0), (1, 5)])
def test_every_loss_fitted_together_is_the_one_fitted_alone(kernel: int, hidden: int) -> None:
    tokens, targets = data()
    train = torch.arange(24).expand(len(LOSSES), 24) % 3 != 0
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.02}

    def start(count: int) -> Stack:
        """All heads with the same start."""
        one = Stack(1, 6, kernel=kernel, hidden=hidden, seed=4)
        return one.take([0] * count).requires_grad_(True)

    together = start(len(LOSSES))
    fit_stack(together, tokens, targets, train, losses=LOSSES, **settings)
    for number, loss in enumerate(LOSSES):
        alone = start(1)
        fit_stack(alone, tokens, targets, train[:1], losses=[loss], **settings)
        torch.testing.assert_close(
            alone(tokens)[:, 0], together(tokens)[:, number], rtol=1e-3, atol=1e-3
        )


def test_a_window_that_counts_twice_is_as_if_it_were_there_twice() -> None:
    """All windows in one batch: their order changes nothing."""
    tokens, targets = data()
    twice = torch.arange(24) % 4 == 0
    doubled = torch.cat([tokens, tokens[twice]]), torch.cat([targets, targets[twice]])
    settings = {"epochs": 6, "batch_size": 64, "losses": ["dice+bce"]}
    weighted, repeated = Stack(1, 6), Stack(1, 6)
    fit_stack(weighted, tokens, targets, 1 + twice[None].float(), **settings)
    every = torch.ones(1, len(doubled[0]), dtype=torch.bool)
    fit_stack(repeated, *doubled, every, **settings)
    torch.testing.assert_close(weighted(tokens), repeated(tokens), rtol=1e-4, atol=1e-4)


def test_hidden_values_learn_what_no_line_separates() -> None:
    tokens, _ = data(64)
    targets = (tokens[:, 0] * tokens[:, 1] > 0).float()  # exclusive or
    every = torch.ones(1, 64, dtype=torch.bool)
    losses = {}
    for hidden in (0, 16):
        stack = Stack(1, 6, hidden=hidden)
        fit_stack(stack, tokens, targets, every, epochs=60, batch_size=16)
        losses[hidden] = dice_loss(stack(tokens)[:, 0], targets).item()
    # Half of the patches are edited: to mark all or none of them has a Dice loss of 1/3 or more.
    assert losses[16] < 0.25 < 0.3 < losses[0]


def test_what_cannot_be_fitted_is_refused() -> None:
    tokens, targets = data()
    train = torch.ones(1, 24)
    with pytest.raises(InputError, match="The loss is 'hinge'"):
        fit_stack(Stack(1, 6), tokens, targets, train, losses=["hinge"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="none below it"):
        fit_stack(Stack(1, 6), tokens, targets, train - 2 * torch.eye(1, 24))
