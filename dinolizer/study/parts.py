"""The rows of the benchmark and of the robustness study, in parts that any process may compute.

A part is some images of one dataset, after one case of degradations. Its rows are a file in the
cache; a notebook reads those that are there, and computes the others. So jobs on many machines can
share the work (see the Snakefile), and one that is killed loses the part it was at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from dinolizer.study.cache import source_hash, stored
from dinolizer.study.evaluation import evaluate_all
from dinolizer.study.experiments.robustness import Case
from dinolizer.study.methods import Contenders

IMAGES = 100
"""At most so many in a part: minutes of work, whatever the machine."""


@dataclass(frozen=True)
class Part:
    """What is computed, stored and lost together.

    Attributes
    ----------
    contenders, names
        The methods, and which of them.
    images
        Rows of a manifest; their index is that in the whole, which decides the noise.
    case
        The degradations; None: images as they are, and also the scores that sort all pixels.
    """

    contenders: Contenders
    names: tuple[str, ...]
    images: pd.DataFrame
    case: Case | None

    def rows(self) -> pd.DataFrame:
        """Rows of `dinolizer.study.evaluation.evaluate_all`, out of the cache if they are there."""
        methods = [self.contenders.depends(name) for name in self.names]
        images = self.images.to_csv(index=bool(self.case))
        depends = [source_hash(__name__), *methods, f"{self.case}", images]
        return stored("rows", "\n".join(depends), self._compute)

    def _compute(self) -> pd.DataFrame:
        degraded = self.case is not None
        methods = {
            name: self.contenders.method(name, self.images, degraded=degraded)
            for name in self.names
        }
        seed = self.contenders.seed
        return evaluate_all(
            methods, self.images, steps=self.case or (), seed=seed, ranking=not degraded
        )


def benchmark_parts(contenders: Contenders) -> list[Part]:
    """Every method on every test image, one method after the other."""
    return [
        Part(contenders, (name,), images, None)
        for name in contenders.names
        for images in _split(contenders.dataset.test)
    ]


def degraded_parts(
    contenders: Contenders,
    images: pd.DataFrame,
    cases: Sequence[Case],
    names: Sequence[str] = (),
) -> list[Part]:
    """All methods, or those named, on the images after each case."""
    chosen = tuple(names) or contenders.names
    return [Part(contenders, chosen, some, case) for case in cases for some in _split(images)]


def rows_of(parts: Sequence[Part]) -> pd.DataFrame:
    """Rows of all parts: those that are not in the cache are computed now."""
    progress = tqdm(parts, desc="rows", unit="part", leave=False, disable=None)
    rows = [part.rows() for part in progress]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _split(images: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, of_dataset in images.groupby("dataset", sort=False):
        for first in range(0, len(of_dataset), IMAGES):
            yield of_dataset.iloc[first : first + IMAGES]
