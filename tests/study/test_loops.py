"""Other ways to run the windows end at the localizer's own logits, over the same windows."""

import numpy as np
import pytest
import torch
from small import random_image, small_localizer

from dinolizer.model.batches import as_batch
from dinolizer.model.windows import Reduce, grid
from dinolizer.study.loops import backbone_alone, cut, monai_sliding_window, published_loop


@pytest.mark.parametrize("size", [(56, 56), (57, 90), (252, 252)])  # 1, 6 and 64 windows
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_the_published_loop_gives_the_localizers_logits(
    size: tuple[int, int], reduce: Reduce
) -> None:
    localizer, passed = small_localizer(reduce=reduce)
    image = random_image(*size)
    logits = published_loop(localizer, image)
    count = len(grid(*size, 56, 28))
    assert passed == [min(50, count - first) for first in range(0, count, 50)]
    np.testing.assert_allclose(logits, localizer.logits(image).cpu(), atol=1e-4)


@pytest.mark.parametrize("size", [(56, 56), (57, 90), (112, 113)])
@pytest.mark.parametrize("stride", [28, 13])  # 56 * (1 - (1 - 13 / 56)) is 12.999... as floats
def test_monai_gives_the_mean_of_the_same_windows(size: tuple[int, int], stride: int) -> None:
    pytest.importorskip("monai")
    localizer, passed = small_localizer(stride=stride, reduce="mean", classes=3)
    image = random_image(*size)
    logits = monai_sliding_window(localizer, image)
    assert sum(passed) == len(grid(*size, 56, stride))
    np.testing.assert_allclose(logits, localizer.logits(image).cpu(), atol=1e-4)


def test_the_backbone_alone_passes_every_window_once() -> None:
    localizer, passed = small_localizer()
    windows = cut(localizer, random_image(84, 112))  # at 0 and 28, at 0, 28 and 56
    backbone_alone(localizer, as_batch(windows, torch.device("cpu")))
    assert passed == [4, 2]
    np.testing.assert_array_equal(windows[4], random_image(84, 112)[28:84, 28:84])
