"""The small generators."""

import torch

from dinolizer.paths import ASSETS
from dinolizer.pocket.generators import (
    GENERATORS,
    AutoEncoder,
    Inpainter,
    load_generator,
)


def test_latents_are_eight_times_smaller() -> None:
    for build in GENERATORS.values():
        model = build()
        if isinstance(model, AutoEncoder):
            images = torch.rand(2, 3, 64, 96)
            assert model.encode(images).shape[2:] == (8, 12)
            assert model(images).shape == images.shape


def test_inpainter_does_not_see_what_is_in_the_hole() -> None:
    model = load_generator("inpainter")
    assert isinstance(model, Inpainter)
    images, holes = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    holes[:, :, 16:40, 16:40] = 1
    other = torch.where(holes > 0, torch.rand_like(images), images)
    assert torch.equal(model(images, holes), model(other, holes))


def test_the_shipped_generators_are_small() -> None:
    files = [path for path in ASSETS.glob("pocket-*.safetensors") if path.stem[7:] in GENERATORS]
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) < 4e6
    assert (ASSETS / "pocket-vit.safetensors").stat().st_size < 12e6
    assert all(path.with_suffix(".json").exists() for path in files)
