"""The arithmetic of many images, against hand counts and torch's own counter of operations."""

import pytest
import torch
from small import SPEC, build_small_vit
from torch.utils.flop_counter import FlopCounterMode

from dinolizer.errors import InputError
from dinolizer.model.specs import BACKBONES, build
from dinolizer.study import scale
from dinolizer.study.scale import (
    COUNTS,
    DOCUMENT,
    MACHINES,
    WINDOW_FLOPS,
    Machine,
    cost,
    filled,
    main,
    short,
    size,
    transformer_flops,
    windows_of,
)


@pytest.mark.parametrize(
    ("height", "width", "stride", "expected"),
    [
        (504, 504, 128, 1),
        (512, 512, 128, 4),  # 0 and 8
        (1016, 1016, 128, 25),  # 0, 128, 256, 384 and 512, as a third party counted
        (1024, 1024, 128, 36),  # and 520
        (1024, 1024, 504, 9),  # 0, 504, 520
        (504, 1080, 128, 6),  # 0, 128, 256, 384, 512, 576
    ],
)
def test_windows_of_an_image_by_hand(height: int, width: int, stride: int, expected: int) -> None:
    assert windows_of(height, width, stride=stride) == expected
    assert windows_of(width, height, stride=stride) == expected


@pytest.mark.parametrize("full", [False, True])
def test_operations_of_a_transformer_are_what_torch_counts(full: bool) -> None:
    spec = BACKBONES["untrained-dinov2-base"] if full else SPEC
    with torch.device("meta"):  # nothing is computed
        model = (build(spec) if full else build_small_vit()).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.forward_features(torch.empty(1, 3, spec.window, spec.window))
    patches = (spec.window // spec.patch) ** 2
    ours = transformer_flops(patches + 5, int(model.embed_dim), len(model.blocks), spec.patch)
    assert ours == counter.get_total_flops()
    if full:
        assert ours == WINDOW_FLOPS


def test_a_cost_by_hand() -> None:
    # 1000 images of 4 windows at half a second: 2000 s.
    machine = Machine("", seconds=0.5, price=1.8, source="")
    values = cost(1000, pixels=1_000_000, windows=4, machine=machine)
    assert values["windows"] == 4000
    assert values["hours"] == pytest.approx(2000 / 3600)
    assert values["price"] == pytest.approx(1.0)
    assert values["read"] == pytest.approx(0.3e9)
    assert values["rows"] == 30_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0719, "0.072"), (7.2, "7.2"), (368.4, "370"), (35_999_999, "36,000,000")],
)
def test_numbers_have_two_digits_that_count(value: float, text: str) -> None:
    assert short(value) == text


def test_bytes_are_in_their_largest_unit() -> None:
    assert [size(count) for count in (30, 300_000, 3.14e9, 4.7e14, 1e19)] == [
        *("30 B", "300 kB", "3.1 GB", "470 TB", "10,000 PB"),
    ]


def test_the_document_holds_what_is_computed() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert filled(text) == text, "run: make scale"
    for machine in MACHINES:
        assert text.count(f"| {machine.name} |") == 1 + len(COUNTS)
    with pytest.raises(InputError, match="no place for the table 'hours'"):
        filled(text.replace("<!-- hours -->", ""))


def test_the_document_is_written_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = DOCUMENT.read_text(encoding="utf-8").replace("| 36 |", "| 35 |")
    monkeypatch.setattr(scale, "DOCUMENT", tmp_path / "scale.md")
    scale.DOCUMENT.write_text(stale, encoding="utf-8")
    main([])
    assert scale.DOCUMENT.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8")


def test_a_machine_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seconds", "0.1", "--price", "2"])
    # 10,000 images of 36 windows at 0.1 s are 36,000 s.
    assert "| 10,000 | 360,000 | yours | 10 | 1 | 20 |" in capsys.readouterr().out
