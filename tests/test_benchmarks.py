"""What the localizer is timed against gives the same logits of the same windows; none is timed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import speed
import trust
from loops import BATCH, monai_sliding_window, published_loop, windows
from servers import serving
from small import random_head, random_image, small_backbone, small_localizer

from dinolizer.bulk import run as bulk
from dinolizer.model.engines import NEEDS
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.model.specs import BACKBONES
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


def test_the_table_holds_all_in_turns_on_the_same_windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every run takes a second, but for the one after torch, which takes half of one; a product of
    two matrices of 10 rows (2000 operations) takes a second and two."""
    pytest.importorskip("monai")
    localizer, passed = small_localizer()
    order: list[int] = []

    def count(run):  # type: ignore[no-untyped-def]
        passed.clear()
        run()
        order.append(sum(passed))
        return [1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0][(len(order) - 1) % 7]

    def products(device: object, folder: Path) -> speed.Runs:
        return {("torch", "float32"): int, ("torch", "bfloat16"): int}

    other = localizer.with_settings(precision="bfloat16")
    both = {("torch", "float32"): localizer, ("torch", "bfloat16"): other}
    monkeypatch.setattr(speed, "PICTURES", {"small": 84})
    monkeypatch.setattr(speed, "SIDE", {"cpu": 10})
    monkeypatch.setattr(speed, "load", lambda name: localizer)
    monkeypatch.setattr(speed, "localizers", lambda localizer: both)
    monkeypatch.setattr(speed, "products", products)
    monkeypatch.setattr(speed, "memory_mb", lambda *way: 7.0)
    monkeypatch.setattr(speed, "seconds_of", count)
    monkeypatch.setattr(speed, "window_flops", lambda localizer: 1000)
    table = pd.DataFrame(speed.measure("small", tmp_path)).set_index(["model", "what", "precision"])
    assert order == [4, 4, 4, 4, 4, 0, 0] * speed.ROUNDS  # every 28 of 84 pixels: at 0 and 28
    exact, half = (table.loc["small", "torch", dtype] for dtype in ("float32", "bfloat16"))
    assert (exact["seconds"], exact["speed"], exact["windows_per_second"]) == (0.25, 1, 4)
    assert (half["seconds"], half["speed"], half["windows_per_second"]) == (0.125, 2, 8)
    # 1000 operations a window, in a quarter and an eighth of a second, of 2000 and 1000 a second.
    assert (exact["share_of_peak"], half["share_of_peak"]) == (pytest.approx(2), pytest.approx(8))
    # Of 512 pixels: at 0, 28 ... 448 and 456, so 18 x 18 windows.
    assert exact["seconds_512"] == 324 / 4
    assert (exact["largest_difference"], exact["iou_change_at_most"]) == (0, 0)
    image = speed.photo("astronaut", 84)
    moved = np.abs(localizer(image).probability - other(image).probability).max()
    assert half["largest_difference"] == pytest.approx(moved)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_integers_move_a_map_a_little(
    engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By more than rounding in float32 would, and less than 8 bits of a product and two blocks."""
    for name in NEEDS[engine]:
        pytest.importorskip(name)
    from int8 import in_int8

    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    backbone = small_backbone()  # without a hook, which would be exported as well
    localizer = Localizer(backbone, random_head(backbone.dim), card_for(backbone))
    image = random_image(90, 120)
    other = in_int8(localizer, engine, [random_image(112, 112)])
    moved = np.abs(other(image).probability - localizer(image).probability).max()
    assert 1e-4 < moved < 0.2


def test_windows_are_the_localizers() -> None:
    localizer, _ = small_localizer()
    image = random_image(84, 112)
    cut = windows(localizer, image)
    assert len(cut) == localizer(image).plan.passes == 6  # at 0 and 28, at 0, 28 and 56
    np.testing.assert_array_equal((cut[4] * 255).round().permute(1, 2, 0), image[28:84, 28:84])


def test_undisturbed_each_work_of_the_bench_of_trust_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "done" / "cache"))
    monkeypatch.setattr(bulk, "PART_ROWS", bulk.PART_ROWS)  # both of which it changes
    monkeypatch.setitem(BACKBONES, "bfree", BACKBONES["bfree"])
    (tmp_path / "done").mkdir()
    with serving() as server:
        works = trust.works(tmp_path / "inputs", server.url)
        for number, work in enumerate(works, 1):
            work.do(tmp_path / "done")
            assert len(trust.visible(tmp_path / "done")) >= number, work.name
    assert not trust.half_written(tmp_path / "done")
