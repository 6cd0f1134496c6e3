"""Comparisons are of means over families, paired by image."""

import numpy as np
import pandas as pd
import pytest
import torch

from dinolizer.study.experiments import comparisons
from dinolizer.study.samples import Sample


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bfree", "forensic"),
        ("pocket", "forensic"),
        ("dinov2-base", "generic"),
        ("dinov3-large", "generic"),
        ("untrained-bfree", "untrained"),
    ],
)
def test_what_a_backbone_was_trained_for(name: str, kind: str) -> None:
    assert comparisons.pretraining(name) == kind


@pytest.mark.parametrize("shape", comparisons.SHAPES)
def test_every_shape_learns_and_names_its_heads(shape: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(96, 5, 4, 4, generator=generator)
    targets = (tokens[:, :2].sum(1) > 1).float()
    rows = pd.DataFrame({"image": [str(number) for number in range(96)]})
    train = torch.stack([torch.arange(96) < 64, torch.arange(96) >= 32])
    sample = Sample(targets, rows, np.zeros(96, int), train)
    heads, names = comparisons.fit_shape(
        shape, ["dice", "bce"], tokens, sample, seeds=[3, 4], epochs=400
    )
    assert [(name["loss"], name["seed"]) for name in names] == [
        ("dice", 3),
        ("dice", 4),
        ("bce", 3),
        ("bce", 4),
    ]
    assert len(heads) == 2 * 2 * 2
    with torch.no_grad():
        right = ((heads(tokens)[:, :, 0] > 0) == (targets[:, None] > 0.5)).float()
    assert right.mean((0, 2, 3)).min() > 0.85
