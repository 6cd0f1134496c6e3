"""What the notebooks of a profile share, computed before them: the jobs of the Snakefile."""

from pathlib import Path

from dinolizer.bulk.listing import Shard
from dinolizer.paths import PROFILES
from dinolizer.study.dataset import images_to_degrade
from dinolizer.study.experiments.robustness import CASES, QUALITY_GRID, largest_of_each_photo
from dinolizer.study.methods import Contenders
from dinolizer.study.parts import Part, benchmark_parts, degraded_parts, rows_of
from dinolizer.study.setup import Study


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
    for path in sorted(PROFILES.parent.glob("*.ipynb")):
        Study.of_profile(path.stem, profile)  # whatever is wrong is told before images are forged
    contenders = _contenders(Study.of_profile("03-benchmark", profile))
    for name in contenders.names:
        contenders.method(name, contenders.dataset.test, degraded=True)


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


def _contenders(study: Study) -> Contenders:
    """As 03-benchmark makes them."""
    given = study.parameters
    own = f"DinoLizer ({given['profile']})"
    return Contenders(own, study.dataset, study.model, given["epochs"], given["seed"])


def _parts(profile: Path) -> list[Part]:
    """What 03-benchmark and 04-robustness ask for."""
    contenders = _contenders(Study.of_profile("03-benchmark", profile))
    given = Study.of_profile("04-robustness", profile).parameters
    images = images_to_degrade(
        contenders.dataset.test, given["families"], given["images"], given["seed"]
    )
    few = largest_of_each_photo(images)
    return [
        *benchmark_parts(contenders),
        *degraded_parts(contenders, images, CASES),
        *degraded_parts(contenders, few, QUALITY_GRID, [contenders.own]),
    ]
