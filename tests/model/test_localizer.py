"""The map equals a plain loop over windows, on photographs of any size, and knows its settings."""

import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small import random_head, random_image, small_backbone, small_localizer
from torch import nn
from torch.nn import functional as F

import dinolizer
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import HeadCard, make_head, save_head
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.model.weights import weights_hash

WINDOW, STRIDE = 56, 28


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def localizer(classes: int = 1, **changes: object) -> Localizer:
    backbone = small_backbone()
    card = HeadCard(
        backbone="small",
        backbone_hash=backbone.hash,
        policy="pristine" if classes == 1 else "three-class",
        window=WINDOW,
        stride=STRIDE,
    )
    return Localizer(backbone, random_head(backbone.dim, classes), replace(card, **changes))  # type: ignore[arg-type]


def plain_logits(loc: Localizer, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean logits with one forward per window, written as plainly as it goes."""
    height, width = image.shape[:2]
    total = np.zeros((loc.head.out_channels, height, width))
    count = np.zeros((height, width))
    for top in [*range(0, height - WINDOW, STRIDE), height - WINDOW]:
        for left in [*range(0, width - WINDOW, STRIDE), width - WINDOW]:
            window = image[top : top + WINDOW, left : left + WINDOW] / np.float32(255)
            tokens = loc.backbone(torch.tensor(window).permute(2, 0, 1)[None])
            with torch.no_grad():
                logits = F.interpolate(
                    loc.head(tokens), (WINDOW, WINDOW), mode="bicubic", align_corners=False
                )
            total[:, top : top + WINDOW, left : left + WINDOW] += logits[0].numpy()
            count[top : top + WINDOW, left : left + WINDOW] += 1
    return total / count


@pytest.mark.parametrize("size", [(56, 56), (57, 56), (56, 57), (70, 131), (56, 900)])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_map_equals_a_plain_loop_over_windows(size: tuple[int, int], classes: int) -> None:
    loc = localizer(classes, reduce="mean")
    image = photo(*size)
    expected = plain_logits(loc, image)
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)
    if classes == 1:
        probability = 1 / (1 + np.exp(-expected[0]))
    else:
        probability = np.exp(expected[2]) / np.exp(expected).sum(axis=0)
    result = loc(image)
    np.testing.assert_allclose(result.probability, probability, atol=1e-4)
    assert result.probability.dtype == np.float32
    assert result.probability.shape == result.mask.shape == size
    assert result.score == pytest.approx(np.percentile(probability, 99), abs=1e-4)
    assert result.plan.fitted == size


@pytest.mark.parametrize("seed", range(8))
def test_the_map_of_any_size_equals_a_plain_loop(seed: int) -> None:
    """Under a window (then padded by reflection) and over it, up to ten windows long."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(2, [2 * WINDOW, 10 * WINDOW]))
    image = photo(height, width, seed)
    below, right = max(WINDOW - height, 0), max(WINDOW - width, 0)
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    expected = plain_logits(localizer(), padded)[:, :height, :width]
    loc = localizer(small="pad", reduce="mean")
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)


def test_the_public_contract_in_the_shapes_it_promises() -> None:
    loc = localizer()
    tokens = loc.backbone(torch.rand(2, 3, loc.window, loc.window))
    assert tokens.shape == (2, 32, 4, 4)
    assert loc.head(tokens).shape == (2, 1, 4, 4)
    assert (loc.window, loc.stride) == (56, 28)


def test_sum_and_mean_give_one_mask_for_one_class() -> None:
    image = photo(100, 150)
    summed, mean = (localizer(reduce=reduce)(image) for reduce in ("sum", "mean"))
    np.testing.assert_array_equal(summed.mask, mean.mask)
    assert 0.01 < summed.predicted_area < 0.99
    assert np.abs(summed.probability - mean.probability).max() > 0.01


def test_the_mask_is_strictly_over_the_threshold() -> None:
    loc = localizer(threshold=0.5)
    zero = make_head(32)  # every logit is 0, every probability exactly 0.5
    result = Localizer(loc.backbone, zero, loc.card)(photo(60, 60))
    assert (result.probability == 0.5).all()
    assert not result.mask.any()
    lower = Localizer(loc.backbone, zero, loc.card).with_settings(threshold=0.49)
    assert lower(photo(60, 60)).mask.all()


@pytest.mark.parametrize("stride", [28, 56])
@pytest.mark.parametrize("small", ["resize", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (55, 55), (7, 200), (200, 40)])
def test_a_photograph_under_a_window_gets_a_map_of_its_own_size(
    stride: int, small: str, size: tuple[int, int]
) -> None:
    result = localizer(small=small).with_settings(stride=stride)(photo(*size))
    assert result.probability.shape == result.mask.shape == size
    assert np.isfinite(result.probability).all()
    assert min(result.plan.fitted) >= WINDOW
    assert result.settings["small"] == small


def test_a_resized_photograph_gets_the_map_of_its_bicubic_enlargement() -> None:
    loc = localizer(reduce="mean")
    image = photo(50, 50)
    large = np.asarray(Image.fromarray(image).resize((113, 113), Image.Resampling.BICUBIC))
    expected = F.interpolate(
        torch.tensor(plain_logits(loc, large))[None], (50, 50), mode="bilinear", antialias=True
    )[0]
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)


def test_a_padded_photograph_gets_the_map_of_its_reflections() -> None:
    loc = localizer(small="pad", reduce="mean")
    image = photo(20, 70)
    # Reflection without repeating the edge, again and again: 0 1 ... 19 18 ... 0 1 ... 17.
    rows = [*range(20), *range(18, -1, -1), *range(1, 18)]
    assert len(rows) == 56
    expected = plain_logits(loc, image[rows])[:, :20]
    np.testing.assert_allclose(loc.logits(image).numpy(), expected, atol=1e-4)


def test_path_pil_image_and_array_give_the_same_map(tmp_path: Path) -> None:
    loc, image = localizer(), photo(60, 70)
    Image.fromarray(image).save(tmp_path / "photo.png")
    from_array = loc(image)
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(image)):
        np.testing.assert_array_equal(loc(source).probability, from_array.probability)
    np.testing.assert_array_equal(from_array.image, image)
    assert loc(tmp_path / "photo.png").source == str(tmp_path / "photo.png")
    assert from_array.source == ""


def test_a_result_is_saved_with_its_settings_and_replaces_an_older_one(tmp_path: Path) -> None:
    loc = localizer(threshold=0.4, reduce="mean")
    for seed in (0, 1):
        result = loc(photo(60, 70, seed))
        saved = result.save(tmp_path / "out", "photo", overwrite=seed > 0)
    assert [path.name for path in saved] == ["photo.mask.png", "photo.map.npz", "photo.json"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(saved)
    with Image.open(saved[0]) as mask:
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), result.mask * 255)
    with np.load(saved[1]) as arrays:
        assert arrays["probability"].dtype == np.float32
        np.testing.assert_array_equal(arrays["probability"], result.probability)
        np.testing.assert_array_equal(arrays["mask"], result.mask)
    settings = json.loads(saved[2].read_text())
    assert settings.pop("seconds") > 0
    assert datetime.fromisoformat(settings.pop("date")) <= datetime.now(UTC)
    assert settings == {
        "version": dinolizer.__version__,
        "source": "",
        "model": "small",
        "licence": "Apache-2.0",
        "caution": loc.backbone.spec.caution,
        "restore": "bilinear",
        "score_threshold": None,
        "untouched": 0,
        "backbone_hash": loc.backbone.hash,
        "head_hash": weights_hash(loc.head),
        "precision": "float32",
        "engine": "torch",
        "window": 56,
        "stride": 28,
        "threshold": 0.4,
        "reduce": "mean",
        "small": "resize",
        "score": result.score,
        "rank": None,
        "meaning": "not calibrated",
        "flat": 0,
        "predicted_area": result.mask.mean(),
        "size": [60, 70],
        "working_size": [60, 70],
        "passes": 4,  # at 0 and 4 down, at 0 and 14 across
        "tokens": 4 * 16,
    }


def test_a_result_says_what_its_file_was(tmp_path: Path) -> None:
    """Pages and format are what was written; the hash is that of the bytes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    shots = [Image.fromarray(photo(60, 70, seed)) for seed in range(3)]
    rest = {"save_all": True, "append_images": shots[1:]}
    shots[0].save(tmp_path / "phone.jpg", format="MPO", exif=exif, **rest)
    shots[0].save(tmp_path / "moves.png", **rest)
    shots[0].save(tmp_path / "moves.gif", **rest)
    shots[0].save(tmp_path / "scan.tif")
    for name, kind, pages, orientation in (
        ("phone.jpg", "MPO", 3, 6),
        ("moves.png", "PNG", 3, 1),
        ("moves.gif", "GIF", 3, 1),
        ("scan.tif", "TIFF", 1, 1),
    ):
        data = (tmp_path / name).read_bytes()
        said = localizer()(tmp_path / name).summary()
        expected = hashlib.sha256(data).hexdigest(), kind, pages, orientation
        assert tuple(said[key] for key in ("sha256", "format", "pages", "orientation")) == expected


def test_a_result_replaces_nothing_unasked_and_never_its_photograph(tmp_path: Path) -> None:
    Image.fromarray(photo(60, 70)).save(tmp_path / "photo.mask.png")
    before = (tmp_path / "photo.mask.png").read_bytes()
    result = localizer()(tmp_path / "photo.mask.png")
    (tmp_path / "link").symlink_to(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is one of the inputs"):
            result.save(tmp_path / "link", "photo", overwrite=overwrite)
    assert (tmp_path / "photo.mask.png").read_bytes() == before
    result.save(tmp_path, "other")
    with pytest.raises(InputError, match=r"other.mask.png is there already"):
        result.save(tmp_path, "other")


def test_a_result_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be written to .*taken"):
        localizer()(photo(60, 60)).save(tmp_path / "taken", "photo")


@pytest.mark.parametrize("size", [(60, 90), (1, 3), (57, 2500)])
def test_it_draws_itself_as_three_pictures(size: tuple[int, int]) -> None:
    result = localizer(small="pad")(photo(*size))
    with Image.open(io.BytesIO(result._repr_png_())) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 2 * drawn.height
    figure = result.figure()
    assert [ax.get_title() for ax in figure.axes[:2]] == ["photograph", "probability of generation"]
    assert figure.get_suptitle() == f"small: score {result.score:.2f}, {result.meaning}"
    np.testing.assert_allclose(
        figure.axes[1].images[0].get_array(),
        result.probability[:: -(-max(size) // 1000), :: -(-max(size) // 1000)],
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_and_a_full_mask_are_drawn_without_outline(value: float) -> None:
    result = localizer()(photo(60, 60))
    mask = np.full((60, 60), bool(value))
    assert replace(result, mask=mask)._repr_png_().startswith(b"\x89PNG")
    assert not replace(result, mask=mask).figure().axes[2].collections


def test_a_copy_with_other_settings_leaves_the_first_as_it_is() -> None:
    loc = localizer()
    copy = loc.with_settings(
        stride=14, threshold=0.4, reduce="mean", small="pad", precision="bfloat16"
    )
    assert copy.settings == loc.settings | {
        "stride": 14,
        "threshold": 0.4,
        "reduce": "mean",
        "small": "pad",
        "precision": "bfloat16",
    }
    assert copy.backbone is loc.backbone and copy.head is loc.head
    assert loc.settings == localizer().settings
    assert loc.with_settings().settings == loc.settings
    for shown in ("model='small'", "stride=14", "device='cpu'"):
        assert shown in repr(copy)


def test_settings_are_those_of_the_card_at_the_time() -> None:
    loc = localizer()
    assert loc.settings["threshold"] == 0.5
    loc.card = replace(loc.card, threshold=0.3)
    assert loc.settings["threshold"] == 0.3
    assert loc(photo(60, 60)).threshold == 0.3


def test_many_photographs_come_in_order_and_an_error_takes_its_turn(tmp_path: Path) -> None:
    loc, image = localizer(), photo(60, 70)
    results = loc.map(iter([image, tmp_path / "missing.png", image]))
    first = next(results)
    assert isinstance(first, Localization)
    error, last = results
    assert isinstance(error, InputError) and "missing.png" in str(error)
    assert isinstance(last, Localization)
    np.testing.assert_array_equal(last.probability, first.probability)
    assert loc.to("cpu") is loc
    with pytest.raises(InputError, match="device is 'meta'"):
        loc.to("meta")


class Broken(nn.Module):
    """A head of which some logits are not finite."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(value))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = tokens[:, :1].clone()
        logits[-1, 0, 0, 0] = self.bias
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stops_and_never_is_a_map_without_an_edit(value: float) -> None:
    loc, image = localizer(), photo(60, 170)
    with pytest.raises(InputError, match="logits of the head of 'small' are not all finite"):
        Localizer(loc.backbone, Broken(value), loc.card)(image)
    with pytest.raises(InputError, match="logits of the head of 'small' are not all finite"):
        Localizer(loc.backbone, Broken(np.copysign(3e38, value)), loc.card)(image)  # their sums
    with torch.no_grad():
        loc.backbone.model.norm.bias[3] = value
    with pytest.raises(InputError, match="tokens of 'small' are not all finite in float32"):
        loc(image)


@pytest.fixture
def pocket_head(tmp_path: Path) -> Path:
    backbone = load_backbone("untrained-pocket", device="cpu")
    card = HeadCard("untrained-pocket", backbone.hash, "pristine", window=224, stride=112)
    save_head(tmp_path / "head.safetensors", random_head(backbone.dim), card)
    return tmp_path / "head.safetensors"


def test_a_model_is_loaded_by_name_with_a_head_of_ones_own(pocket_head: Path) -> None:
    loc = Localizer.from_pretrained("untrained-pocket", pocket_head, "cpu", small="pad", stride=56)
    assert (loc.window, loc.stride, loc.card.small) == (224, 56, "pad")
    assert loc(photo(30, 40)).mask.shape == (30, 40)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"small": "crop"}, "small is 'crop'"),
        ({"stride": 500}, "stride is 500"),
    ],
)
def test_impossible_settings_are_one_sentence(
    settings: dict[str, object], says: str, pocket_head: Path
) -> None:
    with pytest.raises(InputError, match=says):
        Localizer.from_pretrained("untrained-pocket", pocket_head, "cpu", **settings)


def test_a_model_without_a_head_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no head .*untrained-pocket-head"):
        Localizer.from_pretrained("untrained-pocket")
    with pytest.raises(InputError, match=r"no head .*missing"):
        Localizer.from_pretrained("untrained-pocket", tmp_path / "missing")


def test_a_window_that_is_not_whole_patches_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of the patch of 14"):
        localizer(window=60)


def test_half_precision_is_near_and_never_exact() -> None:
    exact, image = localizer(reduce="mean"), photo(70, 131)
    half = exact.with_settings(precision="bfloat16")
    difference = (half.logits(image) - exact.logits(image)).abs()
    # Eight bits of a number, through a few layers: some hundredths of the tokens' own size, 1.
    assert 1e-4 < difference.max() < 0.1
    assert half.logits(image).dtype == torch.float32
    assert half(image).summary()["precision"] == "bfloat16"
    with pytest.raises(InputError, match="precision is 'int8', but it must be one of"):
        exact.with_settings(precision="int8")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("asked", "stderr", "side", "counted"),
    [
        (True, Terminal(), 224, True),
        (True, Terminal(), 168, False),  # (168 - 56) / 28 + 1 = 5 windows a side, 25 in all
        (True, io.StringIO(), 224, False),
        (False, Terminal(), 224, False),
    ],
)
def test_the_windows_of_a_large_photograph_are_counted_on_a_terminal(
    asked: bool, stderr: io.StringIO, side: int, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stderr)
    small_localizer()[0](random_image(side, side), progress=asked)
    # (224 - 56) / 28 + 1 = 7 windows a side.
    assert ("/49 " in stderr.getvalue()) == counted
    assert bool(stderr.getvalue()) == counted


def test_flat_areas_of_a_patch_and_more_cannot_be_told() -> None:
    """By hand: a square of 40 pixels of one colour in noise; its rim has other neighbours, and so
    38 are left of it. One of 16 leaves 14, less than the 15 of a patch with a middle."""
    image = photo(100, 120)
    image[20:60, 30:70] = 255
    image[80:96, 10:26] = (0, 90, 3)
    result = localizer()(image)
    expected = np.zeros((100, 120), bool)
    expected[21:59, 31:69] = True
    np.testing.assert_array_equal(result.flat, expected)
    assert result.summary()["flat"] == expected.mean()
    assert result.meaning == "not calibrated"
    assert "cannot tell" in result.figure().axes[1].get_title()
    assert "cannot tell" not in localizer()(photo(100, 120)).figure().axes[1].get_title()


def test_a_picture_that_is_mostly_flat_or_very_small_cannot_be_told() -> None:
    image = np.full((100, 120, 3), 7, np.uint8)
    image[:40] = photo(40, 120)
    assert localizer()(image).meaning == "cannot tell: 59% of the picture is flat"
    loc = localizer(untouched=(0.0,))
    assert loc(photo(32, 70)).meaning == "higher than 1 of 1 untouched photographs"
    assert loc(photo(31, 70)).meaning == "cannot tell: a side is under 32 pixels"
