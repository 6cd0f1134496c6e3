"""A crop is the same whatever came before it; labels follow its geometry; JPEG is a real one."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small import small_manifest
from torch import Tensor
from torchvision import tv_tensors

from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.training.crops import (
    Augmentations,
    Crops,
    build_transform,
    crop_batches,
    patch_shares,
)

NONE = Augmentations(flip=0, colour=0, blur=0, noise=0, jpeg=0)
ALL = Augmentations(flip=0.5, colour=1, blur=1, noise=1, jpeg=1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_manifest(small_manifest(tmp_path_factory.mktemp("images")))


def crops(manifest: pd.DataFrame, **changes: object) -> Crops:
    settings = {"policy": "pristine", "window": 56, "patch": 14, "augmentations": ALL}
    return Crops(manifest, **settings | changes)  # type: ignore[arg-type]


def places(values: NDArray[np.uint8], window: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Every ``(top, left)`` at which the window is found in the image."""
    height, width = window.shape[:2]
    return [
        (top, left)
        for top in range(values.shape[0] - height + 1)
        for left in range(values.shape[1] - width + 1)
        if np.array_equal(values[top : top + height, left : left + width], window)
    ]


def test_crops_come_in_the_types_and_shapes_that_are_promised(manifest: pd.DataFrame) -> None:
    image, shares = crops(manifest)[0]
    assert type(image) is Tensor and type(shares) is Tensor
    assert (image.dtype, image.shape) == (torch.uint8, (3, 56, 56))
    assert (shares.dtype, shares.shape) == (torch.float32, (4, 4))
    assert crops(manifest, policy="three-class")[0][1].shape == (3, 4, 4)


def test_a_crop_is_the_same_in_any_order_and_any_number_of_workers(manifest: pd.DataFrame) -> None:
    some = crops(manifest)
    items = list(range(2 * len(some)))
    straight = [some[item] for item in items]
    torch.manual_seed(99)
    backward = [some[item] for item in reversed(items)][::-1]
    for workers in (0, 2):
        batches = crop_batches(some, [items[:7], items[7:]], workers)
        images = torch.cat([batch for batch, _ in batches])
        for item, (image, shares) in enumerate(straight):
            assert torch.equal(images[item], image)
            assert torch.equal(backward[item][0], image)
            assert torch.equal(backward[item][1], shares)


def test_another_seed_epoch_or_row_gives_another_crop(manifest: pd.DataFrame) -> None:
    some = crops(manifest)
    first = some[0][0]
    for other in (some[len(some)][0], crops(manifest, seed=1)[0][0], some[1][0]):
        assert not torch.equal(other, first)


def test_the_callers_random_numbers_stay_as_they_are(manifest: pd.DataFrame) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    _ = crops(manifest)[0]
    assert torch.rand(1) == expected


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_and_mask_are_the_same_slice_of_theirs(flip: float) -> None:
    values = np.random.default_rng(2).integers(0, 256, (70, 90), np.uint8)
    image, mask = build_transform(56, replace(NONE, flip=flip))(
        tv_tensors.Image(torch.from_numpy(np.stack([values] * 3))),
        tv_tensors.Mask(torch.from_numpy(values)),
    )
    assert torch.equal(image[0], mask)
    upright = mask.numpy()[:, ::-1] if flip else mask.numpy()
    assert len(places(values, upright)) == 1


def test_nothing_is_resized_and_every_place_is_drawn(manifest: pd.DataFrame) -> None:
    row = manifest[manifest["kind"] == "sp"].iloc[[0]]
    pixels = np.array(Image.open(row["image"].iloc[0]))
    some = crops(row, augmentations=NONE)
    lefts = set()
    for epoch in range(40):
        image, shares = some[epoch]
        ((_, left),) = places(pixels, image.permute(1, 2, 0).numpy())
        # Columns under 40 are edited: of each patch of 14 columns, those left of 40.
        edited = np.clip(40 - (left + 14 * np.arange(4)), 0, 14) / 14
        np.testing.assert_allclose(shares.numpy(), np.tile(edited, (4, 1)), atol=1e-6)
        lefts.add(left)
    assert len(lefts) > 15 and max(lefts) <= 90 - 56


def test_jpeg_is_what_an_encoder_makes_of_the_crop(manifest: pd.DataFrame) -> None:
    row = manifest.iloc[[0]]
    plain, _ = crops(row, augmentations=NONE)[0]
    compressed, _ = crops(row, augmentations=replace(NONE, jpeg=1, jpeg_quality=(70, 70)))[0]
    buffer = io.BytesIO()
    Image.fromarray(plain.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=70)
    expected = np.array(Image.open(buffer)).transpose(2, 0, 1).astype(int)
    assert np.abs(expected - plain.numpy()).max() > 20
    assert np.array_equal(compressed.numpy(), expected)


@pytest.mark.parametrize("name", ["colour", "blur", "noise", "jpeg"])
def test_each_degradation_changes_the_image_and_not_the_labels(
    name: str, manifest: pd.DataFrame
) -> None:
    row = manifest.iloc[[1]]
    plain, labels = crops(row, augmentations=NONE)[0]
    changed, same = crops(row, augmentations=replace(NONE, **{name: 1.0}))[0]
    assert (changed != plain).float().mean() > 0.1
    assert torch.equal(same, labels)


def test_noise_has_the_standard_deviation_of_its_level() -> None:
    grey = tv_tensors.Image(torch.full((3, 200, 200), 128, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.zeros(200, 200, dtype=torch.uint8))
    noisy, _ = build_transform(200, replace(NONE, noise=1, noise_levels=(8.0,)))(grey, mask)
    # Cut towards 0 instead of rounded, torchvision's noise loses a little: 7.5 here.
    assert 7 < noisy.float().std() < 8.5


def test_a_small_image_and_its_labels_are_continued_by_reflection(tmp_path: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 23:] = 255
    write_image(tmp_path / "image.png", image)
    write_image(tmp_path / "mask.png", mask)
    row = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    frame = pd.DataFrame([{**row, "kind": "sp", "background": "real"}]).astype(str)
    crop, shares = crops(frame, augmentations=None, patch=1)[0]
    # Reflected about the last row and column, which are not repeated: 0 .. n-1, n-2 .. 1, 0 ..
    rows = [abs((i + 19) % 38 - 19) for i in range(56)]
    columns = [abs((i + 29) % 58 - 29) for i in range(56)]
    expected = image[np.ix_(rows, columns)].transpose(2, 0, 1)
    np.testing.assert_array_equal(crop.numpy(), expected)
    np.testing.assert_array_equal(shares.numpy(), mask[np.ix_(rows, columns)] / 255)


def test_a_mask_of_another_size_is_brought_to_the_image(tmp_path: Path) -> None:
    write_image(tmp_path / "image.png", np.zeros((56, 56, 3), np.uint8))
    write_image(tmp_path / "mask.png", np.repeat([[255], [0]], 2, axis=1).astype(np.uint8))
    row = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    frame = pd.DataFrame([{**row, "kind": "sp", "background": "real"}]).astype(str)
    shares = crops(frame, augmentations=None)[0][1]
    assert shares.tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2


def test_three_classes_counted_by_hand() -> None:
    labels = torch.zeros(4, 4, dtype=torch.uint8)
    labels[:2, :2] = 2  # the first patch: all inpainted
    labels[0, 2:] = 1  # the second: half re-encoded
    labels[2, 0] = 1  # the third: a quarter re-encoded, a quarter inpainted
    labels[3, 1] = 2
    shares = patch_shares(labels, "three-class", 2)
    assert shares.tolist() == [
        [[0.0, 0.5], [0.5, 1.0]],
        [[0.0, 0.5], [0.25, 0.0]],
        [[1.0, 0.0], [0.25, 0.0]],
    ]
    assert patch_shares(labels.clamp(max=1), "fake", 2).tolist() == [[1.0, 0.5], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("kind", "policy", "outside", "inside"),
    [
        ("real", "three-class", 0, None),
        ("sp", "three-class", 0, 2),
        ("fr", "three-class", 1, 2),
        ("fr", "pristine", 0, 1),
        ("fr", "fake", 1, 1),
    ],
)
def test_rows_get_the_labels_of_the_policy(
    kind: str, policy: str, outside: int, inside: int | None, manifest: pd.DataFrame
) -> None:
    """The first patch of a crop at the left edge lies in the edit, the last outside of it."""
    rows = manifest[manifest["kind"] == kind].iloc[[0]]
    shares = Crops(rows, policy, 70, 14)[0][1]
    if policy == "three-class":
        assert shares.sum(0).unique().tolist() == pytest.approx([1.0])
        assert shares[outside, :, -1].tolist() == [1.0] * 5
        if inside is not None:
            assert shares[inside].sum() > 0
        else:
            assert shares[outside].min() == 1
    else:
        assert shares[:, -1].tolist() == [float(outside)] * 5
        assert shares.max() == inside


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence_in_any_process(
    workers: int, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no image")
    some = crops(manifest.iloc[[0]].assign(image=str(tmp_path / "bad.png")))
    with pytest.raises(InputError) as caught:
        list(crop_batches(some, [[0]], workers))
    assert str(caught.value).startswith(f"{tmp_path / 'bad.png'} is a text file; give an image")
    assert "\n" not in str(caught.value)
