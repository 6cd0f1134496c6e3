"""What is asked of a machine is counted right, and rates follow from counts and seconds."""

import pytest
import torch
from small import random_head, small_backbone

from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study import machine
from dinolizer.study.scale import transformer_flops

CPU = torch.device("cpu")


def test_the_operations_of_a_window_are_those_of_the_formula() -> None:
    backbone = small_backbone()  # 4 x 4 patches, 32 values, two blocks
    localizer = Localizer(backbone, random_head(32), card_for(backbone))
    asked = machine.demand(localizer)
    head = 2 * 16 * 32
    assert asked.flops == transformer_flops(tokens=16 + 5, dim=32, depth=2, patch=14) + head


def test_the_least_bytes_are_weights_pixels_and_logits() -> None:
    backbone = small_backbone()
    localizer = Localizer(backbone, random_head(32, 3), card_for(backbone))
    block = 2 * (32 + 32) + (96 * 33 + 32 * 33) + (128 * 33 + 32 * 129)  # norms, attention, MLP
    weights = 2 * block + 32 * (3 * 14 * 14 + 1) + 16 * 32 + 5 * 32 + 64  # and positions, last norm
    positions = backbone.model.pos_embed
    assert positions is not None
    weights += positions.numel() - 16 * 32  # the class token may have a position, too
    asked = machine.demand(localizer)
    assert asked.least_bytes == 4 * (weights + 3 * 33) + 3 * 56 * 56 + 4 * 3 * 16
    assert asked.most_bytes > asked.least_bytes


def test_each_operation_reads_its_inputs_and_writes_its_result() -> None:
    one, other = torch.ones(10), torch.ones(10, dtype=torch.float64)
    with machine.Traffic() as traffic:
        one + other  # 40 and 80 bytes in, 80 out
        one.view(2, 5).t()  # moves nothing
    assert traffic.bytes == 200


def test_rates_are_counts_over_the_fastest_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDES", {"cpu": (3, 4)})
    monkeypatch.setattr(machine, "COPIED", {"cpu": 400})
    # Three tries of each product at least, and half a second: the fastest take 2 and 0.1.
    seconds = iter([9, 2, 4, 0.2, 0.1, 0.1, 0.1])
    monkeypatch.setattr(machine, "seconds_of", lambda run: (run(), next(seconds))[1])
    assert machine.peak_flops(CPU) == max(2 * 3**3 / 2, 2 * 4**3 / 0.1)
    assert list(seconds) == []
    monkeypatch.setattr(machine, "seconds_of", lambda run: (run(), 2.0)[1])
    assert machine.bandwidth(CPU) == 2 * 400 / 2
