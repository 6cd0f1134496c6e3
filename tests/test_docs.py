"""What docs/scale.md computes is what its formulas, and the package, give."""

import re

import pytest
import torch
from small import SPEC, build_small_vit
from torch.utils.flop_counter import FlopCounterMode

from dinolizer.model.specs import BACKBONES, build
from dinolizer.model.windows import make_plan
from dinolizer.paths import ROOT

TEXT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
SIDES = re.compile(r"(\d+) x (\d+)")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(heading: str) -> list[list[str]]:
    """Rows of the table whose header begins with a heading."""
    block = TEXT.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [cells(line) for line in block.splitlines()[2:]]


def flop(tokens: int, dim: int, blocks: int, patch: int) -> int:
    """The document's formula."""
    inside = 2 * blocks * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    return inside + 2 * (tokens - 5) * 3 * patch**2 * dim


def test_windows_are_those_that_the_package_lays() -> None:
    table = rows("image")
    assert len(table) == 6
    for image, *counts in table:
        width, height = map(int, SIDES.findall(image)[-1])
        plans = [
            make_plan((height, width), window=504, stride=stride, patch=14)
            for stride in (128, 252, 504)
        ]
        assert [plan.passes for plan in plans] == [int(count) for count in counts]


@pytest.mark.parametrize("full", [False, True])
def test_operations_are_what_torch_counts(full: bool) -> None:
    spec = BACKBONES["untrained-dinov2-base"] if full else SPEC
    with torch.device("meta"):  # nothing is computed
        model = (build(spec) if full else build_small_vit()).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.forward_features(torch.empty(1, 3, spec.window, spec.window))
    tokens = (spec.window // spec.patch) ** 2 + 5
    expected = flop(tokens, int(model.embed_dim), len(model.blocks), spec.patch)
    assert counter.get_total_flops() == expected
    if full:
        assert f"{expected / 1e9:.0f} GFLOP" in TEXT


def test_hours_and_prices_follow() -> None:
    seconds = [3.65, 0.92 / 25, flop(1301, 768, 12, 14) / (0.4 * 989e12)]
    for (*_, hours, price_per_hour, price), second in zip(rows("machine"), seconds, strict=True):
        expected = 1_000_000 * 36 * second / 3600
        assert float(hours.replace(",", "")) == pytest.approx(expected, rel=0.01)
        cost = expected * float(price_per_hour)
        assert float(price.replace(",", "")) == pytest.approx(cost, rel=0.03)


def test_bytes_follow() -> None:
    pixels = 1_000_000 * 1024**2
    for per_pixel, amount in ((0.3, "315 GB to read"), (0.03, "31 GB of masks"), (0.45, "472 GB")):
        assert amount in TEXT
        assert float(amount.split()[0]) == pytest.approx(pixels * per_pixel / 1e9, rel=0.02)
