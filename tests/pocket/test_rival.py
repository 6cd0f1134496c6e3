"""The rival against scikit-learn, and on crops whose halves differ in noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from dinolizer.model.pocket_vit import PATCH, TraceStem
from dinolizer.pocket.rival import PENALTY, PURE, fit_rival, residual_classifier

SIDE = 8 * PATCH


def scenes(count: int, seed: int) -> tuple[list[NDArray[np.uint8]], torch.Tensor]:
    """Grey pictures with grain of 6 grey levels, of which the right half has 1; the shares of the
    right half in their patches, one column of which is mixed."""
    rng = np.random.default_rng(seed)
    spread = np.full((SIDE, SIDE, 1), 6.0)
    spread[:, SIDE // 2 + PATCH // 2 :] = 1
    noise = rng.standard_normal((count, SIDE, SIDE, 3))
    images = np.clip(np.rint(128 + spread * noise), 0, 255).astype(np.uint8)
    shares = torch.zeros(count, 8, 8)
    shares[:, :, 4], shares[:, :, 5:] = 0.5, 1
    return list(images), shares


def test_the_weights_are_those_of_the_regression_on_standardised_statistics() -> None:
    images, shares = scenes(6, seed=0)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        statistics = TraceStem().statistics(pixels)
    centred = (statistics - statistics.mean(dim=(2, 3), keepdim=True)).permute(0, 2, 3, 1)
    features, edited = centred.flatten(0, 2).numpy(), shares.flatten().numpy()
    pure = (edited < PURE) | (edited > 1 - PURE)
    scaler = StandardScaler().fit(features[pure])
    regression = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=200)
    regression.fit(scaler.transform(features[pure]), edited[pure] > 0.5)
    weights = fit_rival(images, shares)
    np.testing.assert_allclose(
        features @ weights["weight"].numpy() + weights["bias"].numpy(),
        regression.decision_function(scaler.transform(features)),
        atol=2e-3,
    )


@pytest.mark.parametrize("cut", [0, 5], ids=["whole patches", "a patch in part"])
def test_its_map_finds_the_half_with_other_noise(tmp_path: Path, cut: int) -> None:
    save_file(fit_rival(*scenes(6, seed=0)), tmp_path / "pocket-rival.safetensors")
    image = scenes(1, seed=1)[0][0][: SIDE - cut, : SIDE - cut]
    found = residual_classifier(image, tmp_path)
    truth = np.zeros(image.shape[:2], bool)
    truth[:, SIDE // 2 + PATCH // 2 :] = True
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert roc_auc_score(truth.ravel(), found.ravel()) > 0.98
