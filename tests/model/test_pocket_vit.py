"""The fixed statistics that the pocket backbones see."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch.nn import functional as F

from dinolizer.model import pocket_vit
from dinolizer.model.pocket_vit import (
    FLOOR,
    LAGS,
    PATCH,
    SMALL,
    TraceStem,
    chroma_filters,
    luma_filters,
)
from dinolizer.pocket.photos import load_photo


@pytest.mark.parametrize("filters", [luma_filters(), chroma_filters()])
def test_filters_see_no_constant_and_differ(filters: torch.Tensor) -> None:
    assert filters.sum(dim=(2, 3)).abs().max() < 1e-6
    assert len(torch.unique(filters.flatten(1), dim=0)) == len(filters)


@pytest.mark.parametrize("patch", [14, 16])
def test_statistics_of_a_patch_are_those_of_a_plain_loop(patch: int) -> None:
    # By scipy's correlation, mirrored by the nearest pixel, and numpy, one patch and filter by one.
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (3 * patch, 4 * patch, 3)).astype(np.float32)
    stem = TraceStem(patch_size=patch)
    given = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = stem.statistics(given)[0].numpy()
    luma = image.mean(axis=2)
    channels = [(luma, luma_filters())]
    channels += [(image[..., index] - luma, chroma_filters()) for index in (0, 2)]
    residuals = [
        correlate(channel, kernel[0].numpy(), mode="nearest")
        for channel, filters in channels
        for kernel in filters
    ]
    rows, columns = slice(patch, 2 * patch), slice(2 * patch, 3 * patch)
    blocks = [residual[rows, columns] for residual in residuals]
    first = np.array([np.abs(block).mean() for block in blocks]) + FLOOR
    second = np.array([(block**2).mean() for block in blocks]) + FLOOR
    fourth = np.array([(block**4).mean() for block in blocks]) + FLOOR
    small = np.array([(np.abs(block) < SMALL).mean() for block in blocks])
    texture = correlate(luma, luma_filters()[-2, 0].numpy(), mode="nearest")
    power = (texture[rows, columns] ** 2).mean() + FLOOR
    alike = [
        (texture * np.roll(texture, lag, (0, 1)))[rows, columns].mean() / power for lag in LAGS
    ]
    laplacian = chroma_filters()[-1, 0].numpy()
    colours = [correlate(image[..., c], laplacian, mode="nearest")[rows, columns] for c in range(3)]
    agree = [
        (colours[c] * colours[c - 1]).mean()
        / (np.sqrt((colours[c] ** 2).mean() * (colours[c - 1] ** 2).mean()) + FLOOR)
        for c in range(3)
    ]
    expected = [
        *np.log(first),
        *(np.log(second) - 2 * np.log(first)),
        *(np.log(fourth) - 2 * np.log(second)),
        *small,
        *alike,
        *agree,
    ]
    assert found[: len(expected), 1, 2] == pytest.approx(np.array(expected), rel=1e-3, abs=1e-3)
    assert len(found) == 2 * len(expected) == stem.norm.num_features


def test_what_a_whole_window_shares_is_not_seen() -> None:
    # Twice the contrast adds the same to the logarithms of every patch, where nothing is small.
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.normal(0, 40, (1, 3, 224, 224)).astype(np.float32))
    model = pocket_vit.build_pocket_vit().eval()
    with torch.inference_mode():
        once, twice = (model.patch_embed(128 + gain * image) for gain in (1, 2))
    assert (once - twice).abs().max() < 0.1 * once.abs().max()


def test_rounding_does_not_decide_which_residuals_are_small() -> None:
    """Of a photograph one residual in 25 is one grey level exactly. Counted in exact twelfths, and
    by the stem on values that went to [0, 1] and back, the shares under one grey level agree."""
    pixels = torch.from_numpy(load_photo("cat")[:56, :70]).permute(2, 0, 1)[None]
    stem = TraceStem()
    padded = F.pad(pixels.double().sum(1, keepdim=True), [2] * 4, mode="replicate")
    twelfths = F.conv2d(padded, 4 * luma_filters().double()).round()
    assert (twelfths.abs() == 12).double().mean() > 0.02
    expected = F.avg_pool2d((twelfths.abs() < 12).float(), PATCH)
    for values in (pixels.float(), pixels / 255 / torch.tensor(1 / 255)):
        found = stem.statistics(values)
        luma = found[:, 3 * (12 + 2 * 5) :][:, :12]  # after spread, peakedness and kurtosis
        torch.testing.assert_close(luma, expected, atol=1e-6, rtol=0)
