"""Methods: thresholds that never met what they are used on, and forgeries a baseline must find."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from sklearn.metrics import roc_auc_score
from small import random_head, random_image, small_backbone, small_classifier

from dinolizer.data.degradations import jpeg
from dinolizer.data.images import read_image, write_image
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study.evaluation import Method, Row, evaluate
from dinolizer.study.heads import Fits
from dinolizer.study.methods import (
    BASELINES,
    BIN_OF_PATTERN,
    _block_histograms,
    _cooccurrences,
    baseline_method,
    error_level,
    jpeg_grid,
    localizer_method,
    noise_inconsistency,
    own_scores,
    residual_features,
)
from dinolizer.study.samples import Dataset
from dinolizer.training.heads import Fit

SIDE = 12


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    """Of two photos each: an edit of a seen and of an unseen generator, and the photo itself."""
    rows = []
    for group in "ab":
        for generator in ("x", "unseen", "none"):
            edited = generator != "none"
            image = np.zeros((SIDE, SIDE, 3), np.uint8)
            image[:4] = 200 * edited
            path, mask = (tmp_path / f"{group}-{generator}{end}.png" for end in ("", "-mask"))
            write_image(path, image)
            write_image(mask, (image[..., 0] > 0).astype(np.uint8) * 255)
            rows.append(
                {
                    "image": str(path),
                    "mask": str(mask) if edited else "",
                    "authentic": not edited,
                    "generator": generator,
                    "kind": "sp" if edited else "real",
                    "background": "real",
                    "group": group,
                    "split": "train",
                    "seen": generator == "x",
                }
            )
    return pd.DataFrame(rows)


def brightness(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
    return image[..., 0] / 255


def noisy(images: pd.DataFrame) -> pd.DataFrame:
    """The photos are noise of two strengths, so that a baseline has something to measure."""
    rng = np.random.default_rng(0)
    for row in images[images["kind"] == "real"].to_dict("records"):
        strength = 40 if row["group"] == "a" else 200
        write_image(row["image"], rng.integers(0, strength, (40, 40, 3), np.uint8))
    return images.assign(dataset="d")


def test_the_own_classifier_sees_the_four_corners_and_the_centre(tmp_path: Path) -> None:
    """Windows of 56 pixels, cut by hand; of a picture of that size all five are the same."""
    large, little = random_image(80, 101), random_image(56, 56)
    cuts = [large[top : top + 56, left : left + 56] for top, left in product((0, 24), (0, 45))]
    backbone = small_classifier()
    logits = [
        backbone.image_logits(torch.from_numpy(cut.copy()).permute(2, 0, 1)[None] / 255).item()
        for cut in (*cuts, large[12:68, 22:78], little)
    ]
    about = {"kind": "real", "mask": "", "background": "real", "generator": "none"}
    rows = [about | {"image": str(tmp_path / f"{name}.png"), "group": name} for name in "ab"]
    for row, image in zip(rows, (large, little), strict=True):
        write_image(Path(row["image"]), image)
    scores = own_scores(backbone, pd.DataFrame(rows))
    assert scores["score"].tolist() == pytest.approx([np.mean(logits[:5]), logits[5]], abs=1e-5)
    assert scores["method"].unique().tolist() == ["small's own classifier"]


@pytest.mark.parametrize("left_out", [True, False])
def test_a_baseline_marks_a_twentieth_of_other_unedited_photographs(
    images: pd.DataFrame, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    images = noisy(images)
    train = None if left_out else images[images["group"] == "a"]
    test = images if left_out else images[images["group"] == "b"]
    method = baseline_method("error level analysis", Dataset(test, train))
    maps = {
        row["group"]: error_level(read_image(row["image"]))
        for row in images[images["kind"] == "real"].to_dict("records")
    }
    expected = {"a": "b", "b": "a"} if left_out else {"b": "a"}
    assert method.threshold.keys() == expected.keys()
    for group, other in expected.items():
        share = (maps[other] > method.threshold[group]).mean()
        assert share == pytest.approx(0.05, abs=0.005)


def test_without_unedited_photographs_a_baseline_has_no_threshold(images: pd.DataFrame) -> None:
    edited = images[images["kind"] == "sp"].assign(dataset="d")
    method = baseline_method("error level analysis", Dataset(edited, None))
    assert np.isnan(method.threshold)
    rows = evaluate(method, edited)
    assert rows["iou"].isna().all()
    assert rows["ap"].notna().all()


def test_several_methods_see_the_same_degraded_image(images: pd.DataFrame) -> None:
    met: dict[str, list[NDArray[np.uint8]]] = {"first": [], "second": []}

    def remember(name: str) -> Method:
        def predict(image: NDArray[np.uint8], row: Row) -> NDArray[np.floating]:
            met[name].append(image)
            return brightness(image, row)

        return Method(name, predict)

    for name in met:
        evaluate(remember(name), images, steps=(("noise", 5),), seed=1)
    np.testing.assert_array_equal(met["first"], met["second"])


def test_the_localizer_takes_the_head_that_never_met_the_photograph(images: pd.DataFrame) -> None:
    backbone = small_backbone()
    heads = {group: random_head(backbone.dim) for group in "ab"}
    heads["b"].weight.data *= 2
    left_out = {group: Fit(head, pd.DataFrame()) for group, head in heads.items()}
    method = localizer_method("own", backbone, Fits(left_out, left_out["a"]), images)
    image = random_image(70, 60)
    for group in "ab":
        card = replace(card_for(backbone), reduce="mean")
        expected = Localizer(backbone, heads[group], card)(image).probability
        np.testing.assert_array_equal(method.predict(image, {"group": group}), expected)


SIZE = 160
INSIDE = np.zeros((SIZE, SIZE), dtype=bool)
INSIDE[48:112, 64:128] = True


def scene(noise: float, seed: int = 0) -> NDArray[np.float64]:
    """A smooth scene with grain of a standard deviation in grey levels: (H, W, 3)."""
    rng = np.random.default_rng(seed)
    shading = cv2.GaussianBlur(rng.random((SIZE, SIZE, 3)), (0, 0), 12)
    shading = 60 + 130 * (shading - shading.min()) / np.ptp(shading)
    return np.asarray(shading + noise * rng.standard_normal(shading.shape))


def composed(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> NDArray[np.uint8]:
    image = np.where(INSIDE[..., None], inside, outside)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def auc(values: NDArray[np.float32]) -> float:
    return float(roc_auc_score(INSIDE.ravel(), values.ravel()))


# What was trained has learned which way edits differ: see tests/pocket/test_rival.py. The grid is
# another trace.
@pytest.mark.parametrize("name", list(BASELINES)[:3])
@pytest.mark.parametrize(("inside", "outside"), [(1.0, 4.0), (6.0, 2.0)])
def test_every_blind_baseline_finds_a_region_of_other_noise(
    name: str, inside: float, outside: float
) -> None:
    forged = composed(scene(inside, seed=1), scene(outside, seed=2))
    assert auc(BASELINES[name](forged)) > 0.9


def test_noise_inconsistency_is_the_log_ratio_of_the_noise_levels() -> None:
    # 2 against 5 grey levels. Expected: the same quantity from independent normal draws in place
    # of an image: absolute values, averaged over three channels, cut at the median of all.
    values = noise_inconsistency(composed(scene(2, seed=1), scene(5, seed=2)))
    draws = np.abs(np.random.default_rng(0).standard_normal((100_000, 3))).mean(axis=1)
    draws *= np.sqrt(np.pi / 2)
    share = INSIDE.mean()
    levels = np.where(np.arange(len(draws)) < share * len(draws), 2, 5) * draws
    cut, floor = np.median(levels), 1 / np.sqrt(12)
    inside, outside = (np.minimum(level * draws, cut).mean() + floor for level in (2, 5))
    assert np.median(values[60:100, 76:116]) == pytest.approx(np.log(outside / inside), abs=0.03)
    assert np.median(values[~INSIDE]) < 0.05


def test_error_level_finds_what_was_not_compressed_before() -> None:
    # Both parts have the same noise: only the history of compression differs.
    outside = composed(scene(4, seed=2), scene(4, seed=2))
    encoded = cv2.imencode(".jpg", outside, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    compressed = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    forged = composed(scene(4, seed=1), compressed.astype(float))
    assert auc(error_level(forged)) > 0.95


def test_the_grid_of_jpeg_is_missing_or_lies_elsewhere() -> None:
    # Stored at quality 60; the region the same, three pixels up and five to the left, or never.
    outside = composed(scene(4, seed=2), scene(4, seed=2))
    compressed = jpeg(outside, 60).astype(float)
    for region in (np.roll(compressed, (-3, -5), axis=(0, 1)), scene(4, seed=1)):
        assert auc(jpeg_grid(composed(region, compressed))) > 0.9
    # By hand: brightness that steps at every eighth column has second differences of the step in
    # the two columns of an edge and of none elsewhere, so that over all offsets they are a quarter.
    steps = np.repeat(np.arange(0, 160, 10, dtype=np.uint8), 8)
    image = np.repeat(np.tile(steps, (128, 1))[..., None], 3, axis=2)
    np.testing.assert_allclose(np.median(jpeg_grid(image)), np.log(2 / 8), atol=0.15)
    assert not jpeg_grid(np.full((64, 64, 3), 9, np.uint8)).any()


def test_residual_features_find_a_correlation_that_noise_statistics_miss() -> None:
    # Blurred grain brought back to the residual energy of its surroundings: the level of the noise
    # is the same, its co-occurrences are not.
    rng = np.random.default_rng(3)
    white = rng.standard_normal((SIZE, SIZE, 3))
    blurred = cv2.GaussianBlur(white, (0, 0), 0.7)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=float)
    blurred *= cv2.filter2D(white, -1, kernel).std() / cv2.filter2D(blurred, -1, kernel).std()
    shading = scene(0, seed=4)
    forged = composed(shading + 3 * blurred, shading + 3 * rng.standard_normal(white.shape))
    assert auc(noise_inconsistency(forged)) < 0.75
    assert auc(residual_features(forged)) > 0.9


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 30), (37, 51)])
def test_maps_have_the_size_of_the_image_and_are_finite(name: str, shape: tuple[int, int]) -> None:
    height, width = shape
    for image in (astronaut()[:height, :width].copy(), np.full((*shape, 3), 255, np.uint8)):
        values = BASELINES[name](image)
        assert values.dtype == np.float32
        assert values.shape == shape
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_deterministic_and_leave_the_image_alone(name: str) -> None:
    image = astronaut()[:96, :96].copy()
    first = BASELINES[name](image)
    np.testing.assert_array_equal(first, BASELINES[name](image))
    np.testing.assert_array_equal(image, astronaut()[:96, :96])


def test_patterns_share_a_bin_with_their_negative_and_their_mirror_image() -> None:
    # Cozzolino et al. count 25 bins of 3**4 = 81 patterns.
    assert BIN_OF_PATTERN.max() + 1 == 25
    patterns = np.array(list(product((-1, 0, 1), repeat=4)))
    powers = 3 ** np.arange(3, -1, -1)
    for alike in (patterns, -patterns, patterns[:, ::-1]):
        np.testing.assert_array_equal(BIN_OF_PATTERN[(alike + 1) @ powers], BIN_OF_PATTERN)


def test_block_histograms_are_shares_counted_by_hand() -> None:
    # Two label images, alike: bin 1 in the left four columns, bin 0 elsewhere; blocks of 4 x 4
    # every 4 pixels are all of one bin or the other.
    labels = np.zeros((8, 12), dtype=np.int64)
    labels[:, :4] = 1
    found = _block_histograms([labels, labels], block=4, stride=4)
    assert found.shape == (2, 3, 25)
    np.testing.assert_allclose(found[..., 1], [[1, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)


def test_cooccurrences_do_not_tell_rows_from_columns() -> None:
    grey = astronaut()[:64, :64, 0]
    turned = _cooccurrences(np.ascontiguousarray(grey.T), block=16, stride=8)
    np.testing.assert_allclose(
        turned[2:-2, 2:-2].transpose(1, 0, 2),
        _cooccurrences(grey, block=16, stride=8)[2:-2, 2:-2],
        atol=1e-6,
    )
