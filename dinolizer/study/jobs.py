"""What the notebooks of a profile share, computed before them in parts that any process may take.

A part is some images of one dataset, after one case of degradations; its rows are a file in the
cache, and a notebook computes only those that are missing. So many machines can share the work (see
the Snakefile), and a job that is killed loses only one part.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from dinolizer.paths import PROFILES
from dinolizer.study.cache import cache_key, cached, images_hash
from dinolizer.study.dataset import images_to_degrade
from dinolizer.study.evaluation import Method, evaluate, evaluation_hash
from dinolizer.study.experiments.robustness import (
    CASES,
    QUALITY_GRID,
    Case,
    largest_of_each_photo,
)
from dinolizer.study.setup import Study

IMAGES = 100
"""At most so many in a part: minutes of work, whatever the machine."""


@dataclass(frozen=True)
class Part:
    """Rows that are computed and cached together: all methods on the same images, after one case.

    The images' index in the whole manifest decides the noise. Without a case, images are as they
    are, and the scores that sort all pixels are computed too.
    """

    methods: tuple[Method, ...]
    images: pd.DataFrame
    case: Case | None
    seed: int = 0

    def rows(self) -> pd.DataFrame:
        """Rows of `evaluate`, from the cache if they are there."""
        key = cache_key(
            methods=[(method.name, method.key, method.threshold) for method in self.methods],
            images=(images_hash(self.images), list(self.images["image"])),  # the rows name them
            case=(self.case, self.seed if self.case else 0),
            code=evaluation_hash(self.case or ()),
        )
        return cached("rows", key, self._compute)

    def _compute(self) -> pd.DataFrame:
        steps, ranking = self.case or (), self.case is None
        return evaluate(self.methods, self.images, steps=steps, seed=self.seed, ranking=ranking)


def benchmark_parts(methods: Collection[Method], images: pd.DataFrame) -> list[Part]:
    """Every method on every image, one method after the other."""
    return [Part((method,), some, None) for method in methods for some in _split(images)]


def degraded_parts(
    methods: Collection[Method], images: pd.DataFrame, cases: Sequence[Case], seed: int = 0
) -> list[Part]:
    """All methods on the images after each case; the seed decides the noise."""
    return [Part(tuple(methods), some, case, seed) for case in cases for some in _split(images)]


def rows_of(parts: Sequence[Part]) -> pd.DataFrame:
    """Rows of all parts; those that are not in the cache are computed."""
    progress = tqdm(parts, desc="rows", unit="part", leave=False, disable=None)
    rows = [part.rows() for part in progress]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def prepare(profile: Path) -> None:
    """Fill the cache with the images, heads and thresholds of a profile, given by its file.

    Raises InputError if the profile, its backbone or images cannot be read, or a value is refused.
    """
    for path in sorted(PROFILES.parent.glob("*.ipynb")):
        Study.of_profile(path.stem, profile)  # whatever is wrong is told before images are forged
    _ = Study.of_profile("03-benchmark", profile).methods


def compute_rows(profile: Path, number: int = 1, count: int = 1) -> None:
    """Cache the rows of the benchmark and the robustness study: every ``count``-th part, from the
    ``number``-th on (counted from 1). Raises InputError as `prepare`, or where it cannot write."""
    rows_of(_parts(profile)[number - 1 :: count])


def _parts(profile: Path) -> list[Part]:
    """What 03-benchmark and 04-robustness ask for."""
    study = Study.of_profile("03-benchmark", profile)
    given = Study.of_profile("04-robustness", profile).parameters
    seed = given["seed"]
    images = images_to_degrade(study.dataset.test, given["families"], given["images"], seed)
    methods = list(study.methods.values())
    without_peers = methods[: len(methods) - len(study.parameters["peers"])]
    return [
        *benchmark_parts(methods, study.dataset.test),
        *degraded_parts(without_peers, images, CASES, seed),
        *degraded_parts(methods[:1], largest_of_each_photo(images), QUALITY_GRID, seed),
    ]


def _split(images: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, of_dataset in images.groupby("dataset", sort=False):
        for first in range(0, len(of_dataset), IMAGES):
            yield of_dataset.iloc[first : first + IMAGES]
