"""What the localizer is timed against gives the same logits of the same windows; none is timed."""

import numpy as np
import pandas as pd
import pytest
import speed
from loops import BATCH, monai_sliding_window, published_loop, windows
from small import random_image, small_localizer

from dinolizer.model.windows import Reduce


@pytest.mark.parametrize("size", [(56, 56), (57, 90), (252, 252)])  # 1, 6 and 64 windows
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_the_published_loop_gives_the_localizers_logits(
    size: tuple[int, int], reduce: Reduce
) -> None:
    localizer, passed = small_localizer(reduce=reduce)
    image = random_image(*size)
    logits = published_loop(localizer, image)
    count = localizer.plan(*size).passes
    assert passed == [min(BATCH, count - first) for first in range(0, count, BATCH)]
    np.testing.assert_allclose(logits, localizer.logits(image).cpu(), atol=1e-4)


@pytest.mark.parametrize("size", [(56, 56), (57, 90), (112, 113)])
@pytest.mark.parametrize("stride", [28, 13])  # 56 * (1 - (1 - 13 / 56)) is 12.999... as floats
def test_monai_gives_the_mean_of_the_same_windows(size: tuple[int, int], stride: int) -> None:
    pytest.importorskip("monai")
    localizer, passed = small_localizer(stride=stride, reduce="mean", classes=3)
    image = random_image(*size)
    logits = monai_sliding_window(localizer, image)
    assert sum(passed) == localizer.plan(*size).passes
    np.testing.assert_allclose(logits, localizer.logits(image).cpu(), atol=1e-4)


def test_the_table_holds_all_in_turns_on_the_same_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a second, but for bfloat16, which takes half of one."""
    localizer, passed = small_localizer()
    order: list[int] = []

    def count(run):  # type: ignore[no-untyped-def]
        passed.clear()
        run()
        order.append(sum(passed))
        return 0.5 if len(order) % 5 == 2 else 1.0

    monkeypatch.setattr(speed, "PICTURES", {"small": 84})
    monkeypatch.setattr(speed, "load", lambda name: localizer)
    monkeypatch.setattr(speed, "seconds_of", count)
    pytest.importorskip("monai")
    monkeypatch.setattr(speed, "window_flops", lambda localizer: 100)
    monkeypatch.setattr(speed, "peak_flops", lambda device, dtype: 1000.0 * dtype.itemsize)
    table = pd.DataFrame(speed.measure()).set_index("what")
    assert order == [4] * (5 * speed.ROUNDS)  # every 28 of 84 pixels: at 0 and 28
    assert set(table["windows"]) == {4}
    half = table.loc[speed.HALF]
    assert (half["ratio"], half["windows_per_second"]) == (0.5, 8)
    assert half["share_of_peak"] == pytest.approx(4 * 100 / 0.5 / 2000)
    assert table.loc[speed.ALONE, "share_of_peak"] == pytest.approx(4 * 100 / 4000)


def test_windows_are_the_localizers() -> None:
    localizer, _ = small_localizer()
    image = random_image(84, 112)
    cut = windows(localizer, image)
    assert len(cut) == localizer(image).plan.passes == 6  # at 0 and 28, at 0, 28 and 56
    np.testing.assert_array_equal((cut[4] * 255).round().permute(1, 2, 0), image[28:84, 28:84])
