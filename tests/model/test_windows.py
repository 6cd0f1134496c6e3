"""Windows cover everything, and their logits are added as a plain loop over pixels would."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from dinolizer.errors import InputError
from dinolizer.model.windows import Plan, Reduce, assemble, make_plan, origins, strips


def plan(size: tuple[int, int], **changes: object) -> Plan:
    return make_plan(size, **({"window": 56, "stride": 28, "patch": 14} | changes))  # type: ignore[arg-type]


def paper(size: tuple[int, int], stride: int = 128) -> Plan:
    return make_plan(size, window=504, stride=stride, patch=14, small="resize")


def added(plan: Plan, logits: torch.Tensor, reduce: Reduce) -> NDArray[np.float64]:
    """A plain loop over windows, each upsampled by itself."""
    total = np.zeros((logits.shape[1], *plan.fitted))
    count = np.zeros(plan.fitted)
    number = 0
    side = plan.window
    for top in plan.tops:
        for left in plan.lefts:
            full = F.interpolate(logits[number : number + 1], (side, side), mode="bicubic")
            total[:, top : top + side, left : left + side] += full[0].numpy()
            count[top : top + side, left : left + side] += 1
            number += 1
    assert number == len(logits)
    assert count.min() >= 1
    return total if reduce == "sum" else total / count


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


@pytest.mark.parametrize(("length", "window", "stride"), [(10, 8, 9), (10, 8, 0), (7, 8, 4)])
def test_windows_that_would_leave_gaps_are_refused(length: int, window: int, stride: int) -> None:
    with pytest.raises(InputError, match=f"stride is {stride}, the window {window} and the side"):
        origins(length, window, stride)


@pytest.mark.parametrize(
    ("stride", "size", "passes", "tokens"),
    [
        # The paper's windows on the area that it resizes small images to.
        (128, (1016, 1016), 25, 25 * 36**2),
        (252, (1016, 1016), 16, 16 * 36**2),  # at 0, 252, 504 and 512
        (504, (1016, 1016), 9, 9 * 36**2),  # at 0, 504 and 512
        (504, (1008, 504), 2, 2 * 36**2),
    ],
)
def test_hand_counted_passes_of_the_papers_windows(
    stride: int, size: tuple[int, int], passes: int, tokens: int
) -> None:
    assert (paper(size, stride).passes, paper(size, stride).tokens) == (passes, tokens)


def test_small_photographs_are_resized_to_the_published_area_scaled_with_the_window() -> None:
    assert paper((256, 256)).fitted == (1016, 1016)
    assert paper((504, 504)).fitted == (504, 504)
    # For a window of 56 the side is 1016 / 9 = 112.9.
    assert plan((50, 50), small="resize").fitted == (113, 113)
    # 1:4 in an area of 112.9^2 = 12743: sqrt(12743 / 4) = 56.4 high, 225.8 wide.
    assert plan((25, 100), small="resize").fitted == (56, 226)
    # 1:16 would be 28.2 high: up until the short side is the window.
    assert plan((10, 160), small="resize").fitted == (56, 896)
    assert plan((10, 160), small="pad").fitted == (56, 160)


def test_a_thread_of_an_image_is_one_sentence_and_can_be_padded() -> None:
    """32 to 1 is resized to 504 x 16,128 pixels: (16,128 - 504) / 128 = 122.1 makes 124 windows."""
    assert paper((10, 320)).passes == 124
    for size in ((1, 60_000), (10, 321), (700, 10)):
        with pytest.raises(InputError, match="choose small='pad'"):
            paper(size)
    assert plan((1, 60_000), small="pad").fitted == (56, 60_000)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 8),
    st.sampled_from(["sum", "mean"]),
    st.sampled_from([1, 3]),
)
def test_assembled_logits_equal_a_double_loop(
    height: int, width: int, stride: int, reduce: Reduce, classes: int
) -> None:
    """Of padded images, too."""
    made = make_plan((height, width), window=8, stride=stride, patch=4, reduce=reduce)
    logits = torch.randn(made.passes, classes, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = added(made, logits, reduce)[:, :height, :width]
    result = assemble(made, logits.split(3))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)
    rows = [strip.shape[1] for strip in strips(made, [logits])]
    assert max(rows) <= 8 and sum(rows) == height


@pytest.mark.parametrize("stride", [28, 56])
def test_windows_cover_the_fitted_image_and_are_cut_from_it(stride: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (131, 75, 3), np.uint8)
    made = plan((131, 75), stride=stride)
    fitted = made.fit(image)
    assert fitted.shape[:2] == made.fitted
    np.testing.assert_array_equal(fitted[:131, :75], image)
    covered = np.zeros(made.fitted, bool)
    windows = made.windows(image, torch.device("cpu"))
    for (top, left), window in zip(made.positions, windows, strict=True):
        assert window.shape[:2] == (56, 56)
        np.testing.assert_array_equal(window[0, 0], fitted[top, left])
        covered[top : top + 56, left : left + 56] = True
    assert covered.all()


def test_hand_counted_sum_and_mean_of_constant_windows() -> None:
    # Two windows of 4 pixels, at 0 and 2: the columns 2 and 3 lie under both.
    logits = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    summed, mean = (
        assemble(make_plan((4, 6), window=4, stride=2, patch=4, reduce=reduce), [logits])
        for reduce in ("sum", "mean")
    )
    assert summed[0, 0].tolist() == [1, 1, 11, 11, 10, 10]
    assert mean[0, 3].tolist() == [1, 1, 5.5, 5.5, 10, 10]


def test_half_precision_logits_are_added_in_single_precision() -> None:
    logits = torch.full((3, 1, 1, 1), 0.1, dtype=torch.float16)
    total = assemble(make_plan((2, 4), window=2, stride=1, patch=2), [logits])
    assert total.dtype == torch.float32
    assert total[0, 0].tolist() == pytest.approx([0.1, 0.2, 0.2, 0.1], abs=1e-4)
    assert total[0, 0, 1].item() == 2 * logits[0].float().item()
