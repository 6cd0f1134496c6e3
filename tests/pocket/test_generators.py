"""The small generators, and FLUX.2's auto-encoder read from files in the published layout."""

from pathlib import Path

import pytest
import torch

from dinolizer.errors import InputError
from dinolizer.paths import ASSETS
from dinolizer.pocket.generators import FLUX_FILES as FILES
from dinolizer.pocket.generators import (
    GENERATORS,
    AutoEncoder,
    Inpainter,
    load_flux,
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


CONV = {"conv.0": (64, 64, 3, 3), "conv.2": (64, 64, 3, 3), "conv.4": (64, 64, 3, 3)}
POOL = {"pool.0": (256, 64, 1, 1), "pool.1": (256,), "pool.3": (64, 256, 1, 1)}


def layout(half: str) -> dict[str, torch.Size]:
    """Names and shapes as the published files have them, written down from those files."""
    blocks = {"encoder": [1, *range(3, 6), *range(7, 10), *range(11, 14)],
              "decoder": [*range(3, 6), *range(8, 11), *range(13, 16), 18]}[half]  # fmt: skip
    pooled = {"encoder": (11, 12, 13), "decoder": (3, 4, 5)}[half]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in blocks:
        for name, shape in (CONV | POOL if number in pooled else CONV).items():
            shapes[f"{number}.{name}.weight"] = shape
            if name.startswith("conv") or name == "pool.1":
                shapes[f"{number}.{name}.bias"] = shape[:1]
    ends = {"encoder": {0: (64, 3), 14: (32, 64)}, "decoder": {1: (64, 32), 19: (3, 64)}}[half]
    for number, (outputs, inputs) in ends.items():
        shapes |= {f"{number}.weight": (outputs, inputs, 3, 3), f"{number}.bias": (outputs,)}
    for number in {"encoder": (2, 6, 10), "decoder": (7, 12, 17)}[half]:
        shapes[f"{number}.weight"] = (64, 64, 3, 3)
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def write(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for half, name in FILES.items():
        weights = {
            key: torch.randn(shape, generator=generator) / 40 for key, shape in layout(half).items()
        }
        torch.save(weights, folder / name)


def test_the_published_layout_is_read_whole(tmp_path: Path) -> None:
    write(tmp_path)
    assert [len(layout(half)) for half in FILES] == [79, 79]  # as counted in the published files
    model = load_flux(tmp_path)
    for half, name in FILES.items():
        stored = torch.load(tmp_path / name, weights_only=True)
        read = model.get_submodule(half).state_dict()
        assert all(torch.equal(read[key], value) for key, value in stored.items())
    latents = model.encode(torch.rand(1, 3, 32, 48))
    assert latents.shape == (1, 32, 4, 6)
    assert model.decode(latents).shape == (1, 3, 32, 48)


def test_another_file_is_refused_by_its_name(tmp_path: Path) -> None:
    write(tmp_path)
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / FILES["decoder"])
    with pytest.raises(InputError, match=r"taef2_decoder\.pth is not the decoder"):
        load_flux(tmp_path)
