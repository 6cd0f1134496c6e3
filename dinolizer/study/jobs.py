"""What the notebooks of a profile share, computed before them: the jobs of the Snakefile."""

import inspect
from pathlib import Path
from typing import Any

from dinolizer.bulk.listing import Shard
from dinolizer.model.backbones import load_backbone
from dinolizer.paths import PROFILES, named_file
from dinolizer.study.experiments.robustness import CASES, QUALITY_GRID, largest_of_each_photo
from dinolizer.study.methods import Contenders
from dinolizer.study.parameters import parameters_for, read_defaults
from dinolizer.study.parts import Part, benchmark_parts, degraded_parts, rows_of
from dinolizer.study.setup import gather, images_to_degrade

GATHERED = inspect.signature(gather).parameters.keys() - {"window"}
"""Names of a profile's parameters that decide which images there are."""


def prepare(profile: Path) -> None:
    """Fill the cache with images, tokens, heads and the thresholds of the baselines.

    Parameters
    ----------
    profile
        Its file.

    Raises
    ------
    InputError
        If the profile, its backbone or its images cannot be read.
    """
    contenders = _contenders(profile)
    for name in contenders.names:
        contenders.method(name, contenders.material.test, degraded=True)


def evaluate(profile: Path, shard: Shard) -> None:
    """Put the rows of the benchmark and of the robustness study into the cache.

    Parameters
    ----------
    profile
        Its file.
    shard
        Which of their parts: they are dealt in turn.

    Raises
    ------
    InputError
        As `prepare`, and where nothing can be written.
    """
    rows_of(_parts(profile)[shard.number - 1 :: shard.count])


def _contenders(profile: Path) -> Contenders:
    """As 03-benchmark makes them."""
    given = _parameters("03-benchmark", profile)
    backbone = load_backbone(given["backbone"], named_file(given["weights"]))
    material = gather(backbone.spec.window, **{name: given[name] for name in GATHERED})
    own = f"DinoLizer ({given['profile']})"
    return Contenders(own, material, backbone, given["epochs"], given["seed"])


def _parts(profile: Path) -> list[Part]:
    """What 03-benchmark and 04-robustness ask for."""
    contenders = _contenders(profile)
    given = _parameters("04-robustness", profile)
    images = images_to_degrade(
        contenders.material.test, given["families"], given["images"], given["seed"]
    )
    few = largest_of_each_photo(images)
    return [
        *benchmark_parts(contenders),
        *degraded_parts(contenders, images, CASES),
        *degraded_parts(contenders, few, QUALITY_GRID, [contenders.own]),
    ]


def _parameters(name: str, profile: Path) -> dict[str, Any]:
    notebook = PROFILES.parent / f"{name}.ipynb"
    return read_defaults(notebook) | parameters_for(notebook, profile)
