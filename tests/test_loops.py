"""Other ways to run the windows end at the localizer's own logits, over the same windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import random_head, small_backbone

from dinolizer.model.batches import as_batch
from dinolizer.model.localizer import Localizer
from dinolizer.model.windows import Reduce, grid
from dinolizer.study.crossfit import card_for
from dinolizer.study.loops import backbone_alone, cut, monai_sliding_window, published_loop


def small_localizer(
    stride: int = 28, reduce: Reduce = "sum", classes: int = 1
) -> tuple[Localizer, list[int]]:
    """A localizer, and a list that grows by the windows of every batch through its backbone."""
    backbone = small_backbone()
    passed: list[int] = []
    backbone.model.patch_embed.register_forward_hook(
        lambda _module, inputs, _output: passed.append(len(inputs[0]))
    )
    card = replace(card_for(backbone, about=""), stride=stride, reduce=reduce)
    return Localizer(backbone, random_head(backbone.dim, classes), card), passed


def random_image(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


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
