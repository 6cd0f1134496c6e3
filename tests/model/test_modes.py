"""Fast modes: maps equal plain loops over their windows, and passes are those that were counted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import random_head, small_backbone
from torch import Tensor
from torch.nn import functional as F

from dinolizer.bulk.listing import read_listing
from dinolizer.bulk.run import scan
from dinolizer.bulk.stream import localize_many
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import HeadCard
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.model.modes import BAND, MODES, Mode, lay_out

PATCH, WINDOW = 14, 56
SIDE = WINDOW // PATCH
FAST = [name for name in MODES if name != "exact"]


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def localizer(mode: str = "exact", classes: int = 1, **settings: object) -> Localizer:
    backbone = small_backbone()
    policy = "pristine" if classes == 1 else "three-class"
    card = HeadCard("small", backbone.hash, policy, WINDOW, 28, **settings)  # type: ignore[arg-type]
    return Localizer(backbone, random_head(backbone.dim, classes), card, mode=mode)


def one_pass(loc: Localizer, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    batch = torch.tensor(pixels / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found: Tensor = loc.head(loc.backbone(batch))[0]
    return found.numpy()


def loop(
    loc: Localizer, image: NDArray[np.uint8], places: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of logits on the grid of patches, from windows at (row, column) of it."""
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    total = np.zeros((loc.head.out_channels, rows, columns))
    count = np.zeros((rows, columns))
    for row, column in places:
        top, left = PATCH * row, PATCH * column
        found = one_pass(loc, image[top : top + WINDOW, left : left + WINDOW])
        for y in range(SIDE):
            for x in range(SIDE):
                total[:, row + y, column + x] += found[:, y, x]
                count[row + y, column + x] += 1
    return total, count


def pixels_of(patches: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """The whole grid upsampled at once; what is right of it and below is as its last pixel."""
    size = (patches.shape[1] * PATCH, patches.shape[2] * PATCH)
    upsampled = F.interpolate(torch.tensor(patches)[None], size, mode="bicubic")[0].numpy()
    rows, columns = (
        np.minimum(np.arange(n), m - 1) for n, m in zip((height, width), size, strict=True)
    )
    return upsampled[:, rows[:, None], columns]


@pytest.mark.parametrize(
    ("mode", "size", "passes", "tokens"),
    [
        # The paper's windows on the area that it resizes small images to: 5 x 5 by pixels. By
        # patches the image has 72 a side, windows 36: at 0, 18, 36, or at 0 and 36.
        ("exact", (1016, 1016), 25, 25 * 36**2),
        ("half", (1016, 1016), 9, 9 * 36**2),
        ("tiles", (1016, 1016), 4, 4 * 36**2),
        # 72^2 = 5184 patches are over 2048: parts of 72 x 36 still are, four of 36 x 36 are not.
        ("whole", (1016, 1016), 4, 72**2),
        # 37 patches: one more than a window, so a second one.
        ("tiles", (504, 518), 2, 2 * 36**2),
        ("tiles", (517, 517), 1, 36**2),
        ("whole", (504, 518), 1, 36 * 37),
        # 50 x 100 patches, then 50 x 50 = 2500, then 25 x 50.
        ("whole", (700, 1400), 4, 50 * 100),
    ],
)
def test_hand_counted_passes_of_the_papers_windows(
    mode: str, size: tuple[int, int], passes: int, tokens: int
) -> None:
    layout = lay_out(MODES[mode], size, window=504, stride=128, patch=14)
    assert (layout.passes, layout.tokens) == (passes, tokens)


def test_hand_counted_passes_of_an_image_of_the_pocket_study() -> None:
    counted = {
        mode: (layout.passes, layout.tokens)
        for mode in MODES
        for layout in [lay_out(MODES[mode], (288, 288), window=224, stride=112, patch=14)]
    }
    # 20 patches a side, windows of 16: at 0 and 4 however large the step.
    four = (4, 4 * 256)
    assert counted == {
        "exact": four,
        "half": four,
        "tiles": four,
        "refine": four,
        "whole": (1, 400),
    }


@pytest.mark.parametrize(
    ("mode", "downs", "acrosses"), [("half", [0, 2, 4, 5], [0, 2]), ("tiles", [0, 4, 5], [0, 2])]
)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("classes", [1, 3])
def test_windows_on_the_grid_equal_a_double_loop(
    mode: str, downs: list[int], acrosses: list[int], reduce: str, classes: int
) -> None:
    loc = localizer(mode, classes, reduce=reduce)
    image = photo(9 * PATCH + 3, 6 * PATCH + 13)  # 9 x 6 patches, and a rim
    total, count = loop(loc, image, [(row, column) for row in downs for column in acrosses])
    expected = pixels_of(total if reduce == "sum" else total / count, *image.shape[:2])
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)
    result = loc(image)
    assert result.passes == len(downs) * len(acrosses)
    assert result.tokens == result.passes * SIDE**2
    assert result.mode == mode


def test_an_image_upsampled_in_bands_is_that_upsampled_at_once() -> None:
    loc, rows = localizer("tiles"), 2 * BAND + 3
    image = photo(rows * PATCH + 5, WINDOW)
    total, _ = loop(loc, image, [(row, 0) for row in [*range(0, rows - SIDE, SIDE), rows - SIDE]])
    np.testing.assert_allclose(
        loc.logits(image).numpy(), pixels_of(total, *image.shape[:2]), atol=1e-4
    )


def test_one_pass_is_that_over_all_whole_patches() -> None:
    loc = localizer("whole")
    image = photo(131, 75)
    patches = one_pass(loc, image[: 9 * PATCH, : 5 * PATCH])
    np.testing.assert_allclose(
        loc.logits(image).numpy(), pixels_of(patches, *image.shape[:2]), atol=1e-4
    )
    result = loc(image)
    assert (result.passes, result.tokens) == (1, 9 * 5)


@pytest.mark.parametrize(("undecided", "like"), [((0.0, 1.0), "half"), ((0.5, 0.5), "tiles")])
def test_refining_everything_or_nothing_is_another_mode(
    undecided: tuple[float, float], like: str
) -> None:
    loc, image = localizer("refine", reduce="mean"), photo(12 * PATCH, 16 * PATCH)
    loc.mode = replace(loc.mode, undecided=undecided)
    result, other = loc(image), localizer(like, reduce="mean")(image)
    np.testing.assert_allclose(result.probability, other.probability, atol=1e-5)
    assert (result.passes, result.tokens) == (other.passes, other.tokens)


def test_refining_adds_the_windows_over_undecided_patches() -> None:
    loc, image = localizer("refine"), photo(12 * PATCH, 16 * PATCH)
    tiles = [(row, column) for row in (0, 4, 8) for column in (0, 4, 8, 12)]
    between = [
        (row, column)
        for row in (0, 2, 4, 6, 8)
        for column in (0, 2, 4, 6, 8, 10, 12)
        if (row, column) not in tiles
    ]
    total, _ = loop(loc, image, tiles)  # each patch is in one tile
    probability = 1 / (1 + np.exp(-total[0]))
    # Only the patch of the median is undecided: any window over it has 1 of 16, which is over 2 %.
    middle = np.sort(probability.ravel())[probability.size // 2]
    row, column = np.argwhere(probability == middle)[0]
    added = [(y, x) for y, x in between if y <= row < y + SIDE and x <= column < x + SIDE]
    assert added
    loc.mode = replace(loc.mode, undecided=(float(middle) - 1e-6, float(middle) + 1e-6))
    more, _ = loop(loc, image, added)
    expected = pixels_of(total + more, *image.shape[:2])
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)
    assert loc(image).passes == len(tiles) + len(added)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("small", ["pad", "resize"])
def test_a_stream_gives_what_each_image_gives_alone(mode: str, small: str) -> None:
    loc = localizer(mode, small=small)
    sizes = [(70, 131), (56, 400), (150, 150), (20, 30), (57, 56), (112, 300)]
    photos = [photo(*size, seed) for seed, size in enumerate(sizes)]
    counted = 0
    run = loc.backbone.forward

    def count(batch: Tensor) -> Tensor:
        nonlocal counted
        counted += len(batch)
        return run(batch)

    alone = [loc(image) for image in photos]
    loc.backbone.forward = count  # type: ignore[method-assign]
    results = list(localize_many(loc, photos, lambda result: result, batch=3))
    for one, result in zip(alone, results, strict=True):
        assert isinstance(result, Localization)
        np.testing.assert_allclose(result.probability, one.probability, atol=1e-4)
        assert (result.passes, result.tokens) == (one.passes, one.tokens)
    # The last batch of three is filled up; so are those that run because images pile up.
    passes = sum(one.passes for one in alone)
    assert passes <= counted <= passes + 2 * len(photos)


@pytest.mark.parametrize("mode", FAST)
def test_a_photograph_under_a_window_gets_a_map_of_its_own_size(mode: str) -> None:
    for small in ("resize", "pad"):
        result = localizer(mode, small=small)(photo(20, 30))
        assert result.probability.shape == (20, 30)
        assert np.isfinite(result.probability).all()


def test_an_unknown_mode_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"mode is 'quick', but it must be one of \['exact', "):
        localizer("quick")


def test_a_backbone_of_one_grid_of_positions_does_not_take_whole_images() -> None:
    free = small_backbone()
    free.model.dynamic_img_size = False
    fixed = Backbone(free.spec, free.model)
    card = HeadCard("small", fixed.hash, "pristine", WINDOW, 28)
    for name, mode in MODES.items():
        if mode.tokens is None:
            Localizer(fixed, random_head(32), card, mode=name)
    with pytest.raises(InputError, match=r"position embedding of 'small' .* choose one of"):
        Localizer(fixed, random_head(32), card, mode="whole")


def test_every_mode_says_in_one_sentence_what_it_does() -> None:
    for name, mode in MODES.items():
        assert isinstance(mode, Mode)
        assert mode.name == name
        assert mode.description.endswith(".") and ". " not in mode.description


def test_a_bulk_run_refuses_to_mix_modes(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "photo.png", photo(60, 60))
    images = read_listing(tmp_path / "in")
    scan(localizer("tiles"), images, tmp_path / "out")
    with pytest.raises(InputError, match="made with mode = 'tiles', but this run has 'whole'"):
        scan(localizer("whole"), images, tmp_path / "out")
