"""Windows cover everything, and their logits are added as a plain loop over pixels would."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dinolizer.errors import InputError
from dinolizer.model.windows import accumulate, grid, origins, strips


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (504, [0]),
        (505, [0, 1]),
        (632, [0, 128]),  # 504 + 128: the second window is flush already, and there is no third
        (640, [0, 128, 136]),
        (1016, [0, 128, 256, 384, 512]),  # 5 x 5 = 25 windows, as published for 1016 pixels
    ],
)
def test_hand_counted_origins_of_the_papers_windows(length: int, expected: list[int]) -> None:
    assert origins(length, 504, 128) == expected


@given(st.integers(1, 60), st.data())
def test_origins_cover_every_pixel_end_flush_and_keep_the_stride(
    window: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(window, 300))
    stride = data.draw(st.integers(1, window))
    starts = origins(length, window, stride)
    covered = {pixel for start in starts for pixel in range(start, start + window)}
    assert covered == set(range(length))
    assert starts[-1] + window == length
    assert len(set(starts)) == len(starts)
    # A plain loop: step while a whole window is left after the step, then one flush window.
    expected, start = [], 0
    while start + window < length:
        expected.append(start)
        start += stride
    assert starts == [*expected, length - window]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(8, 30),
    st.integers(8, 30),
    st.integers(1, 8),
    st.sampled_from(["sum", "mean"]),
    st.sampled_from([1, 3]),
)
def test_accumulate_equals_a_double_loop(
    height: int, width: int, stride: int, reduce: str, classes: int
) -> None:
    window = 8
    positions = grid(height, width, window, stride)
    logits = torch.randn(len(positions), classes, 2, 2, generator=torch.Generator().manual_seed(0))
    upsampled = F.interpolate(logits, (window, window), mode="bicubic", align_corners=False)
    total = np.zeros((classes, height, width))
    count = np.zeros((height, width))
    number = 0
    tops = [*range(0, height - window, stride), height - window]
    lefts = [*range(0, width - window, stride), width - window]
    for top in tops:
        for left in lefts:
            total[:, top : top + window, left : left + window] += upsampled[number].numpy()
            count[top : top + window, left : left + window] += 1
            number += 1
    assert number == len(positions)
    assert count.min() >= 1
    expected = total if reduce == "sum" else total / count
    result = accumulate(logits, positions, (height, width), window, reduce)  # type: ignore[arg-type]
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("chosen", [[4], [0, 11], [1, 2, 9], [3, 5, 6, 8]])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_where_no_window_lies_there_is_0(chosen: list[int], reduce: str) -> None:
    window, size = 4, (26, 13)
    every = grid(*size, window, 4)  # 7 rows of 4 that do not overlap, but for the last of each
    positions = [every[number] for number in chosen]
    logits = torch.arange(1.0, len(chosen) + 1).view(-1, 1, 1, 1)
    total, count = np.zeros(size), np.zeros(size)
    for (top, left), value in zip(positions, range(1, len(chosen) + 1), strict=True):
        total[top : top + window, left : left + window] += value
        count[top : top + window, left : left + window] += 1
    expected = total / np.maximum(count, 1) if reduce == "mean" else total
    parts = list(strips(logits.split(1), positions, size, window, reduce))  # type: ignore[arg-type]
    np.testing.assert_allclose(torch.cat(parts, dim=1)[0], expected, atol=1e-6)
    assert all(part.shape[2] == size[1] for part in parts)


def test_hand_counted_sum_and_mean_of_constant_windows() -> None:
    # Two windows of 4 pixels, at 0 and 2: the columns 2 and 3 lie under both.
    logits = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    summed = accumulate(logits, [(0, 0), (0, 2)], (4, 6), 4, "sum")
    mean = accumulate(logits, [(0, 0), (0, 2)], (4, 6), 4, "mean")
    assert summed[0, 0].tolist() == [1, 1, 11, 11, 10, 10]
    assert mean[0, 3].tolist() == [1, 1, 5.5, 5.5, 10, 10]


def test_half_precision_logits_are_added_in_single_precision() -> None:
    logits = torch.full((3, 1, 1, 1), 0.1, dtype=torch.float16)
    total = accumulate(logits, [(0, 0)] * 3, (2, 2), 2)
    assert total.dtype == torch.float32
    assert total[0, 0, 0].item() == pytest.approx(3 * logits[0].item(), abs=1e-6)


@pytest.mark.parametrize(
    ("length", "window", "stride", "says"),
    [(10, 8, 9, "stride is 9"), (10, 8, 0, "stride is 0"), (7, 8, 4, "has 7 pixels")],
)
def test_windows_that_would_leave_gaps_are_refused(
    length: int, window: int, stride: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        origins(length, window, stride)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(InputError, match="max"):
        accumulate(torch.zeros(1, 1, 1, 1), [(0, 0)], (2, 2), 2, "max")  # type: ignore[arg-type]
