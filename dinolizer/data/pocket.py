"""The images of the pocket study: forged from seven photographs, the same for the same seed."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dinolizer.data.forging import CONDITIONS, FAMILIES, HELD_OUT, LEARNED, Forgery, forge
from dinolizer.data.images import write_image
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_manifest, write_manifest
from dinolizer.data.photos import PHOTOS, load_photo
from dinolizer.paths import ASSETS, PACKAGE, cache_dir

SIDE = 288
"""Side of the study's images, in pixels: more than a window of the pocket backbone, less than the
smallest photograph."""
PROCESSES = 2


@dataclass(frozen=True)
class Recipe:
    """How one image of the study is made."""

    photo: str
    generator: str
    kind: str
    grain: bool
    condition: str
    seed: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the image's file, without its suffix."""
        grain = "-grain" if self.grain else ""
        return f"{self.photo}-{self.generator}-{self.kind}{grain}-{self.condition}-{self.seed[1]}"


def recipes(seed: int, rounds: int) -> Iterator[Recipe]:
    """List every image: photographs x generators and kinds x grain x conditions, ``rounds`` times.

    Every case and every photograph comes alike often; the held-out family is among them.
    """
    makers = [
        ("none", "real"),
        *((family, "sp") for family in FAMILIES),
        *((family, "fr") for family in LEARNED),
        *((family, "reencoded") for family in LEARNED),
    ]
    cases = product(range(rounds), enumerate(PHOTOS), enumerate(makers), enumerate(CONDITIONS))
    for round_, (photo, name), (maker, (generator, kind)), (number, condition) in cases:
        for grain in (False,) if kind in AUTHENTIC_KINDS else (False, True):
            yield Recipe(
                name,
                generator,
                kind,
                grain,
                condition,
                (seed, round_, photo, maker, number, int(grain)),
            )


def make(recipe: Recipe) -> Forgery:
    """Forge one image of the study from a random crop of its photograph.

    What an auto-encoder puts into the mask comes from another crop of the same photograph,
    mirrored: so no content of a photograph is found in an image of another.
    """
    rng = np.random.default_rng((*recipe.seed, 1))
    photo = load_photo(recipe.photo)
    crop, foreign = _crop(photo, rng), _crop(photo, rng)[:, ::-1]
    return forge(
        crop,
        recipe.generator,
        recipe.kind,
        seed=list(recipe.seed),
        foreign=foreign,
        grain=recipe.grain,
        condition=recipe.condition,
    )


def build(seed: int = 0, rounds: int = 1) -> pd.DataFrame:
    """Make the study's images, or find them in the cache.

    Parameters
    ----------
    seed
        Decides everything random.
    rounds
        Images for each combination of photograph, generator, kind, grain and condition; 66 images
        a photograph in one round.

    Returns
    -------
    DataFrame
        A manifest (see `dinolizer.data.manifest`) with the further columns ``grain`` (bool),
        ``condition`` and ``seen`` (bool: whether any training meets the generator). The images and
        masks are PNG files of 288 x 288 pixels.
    """
    folder = cache_dir() / "images" / _key(seed, rounds)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        try:
            _write(draft, list(recipes(seed, rounds)))
            draft.chmod(0o755)
            if not folder.exists():  # another process may have made the same meanwhile
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return read_manifest(folder / "manifest.csv")


def _write(folder: Path, all_recipes: list[Recipe]) -> None:
    # Forked children must not inherit torch's threads in mid-air: spawn them.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(_write_one, [folder] * len(all_recipes), all_recipes, chunksize=16))
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")


def _write_one(folder: Path, recipe: Recipe) -> dict[str, object]:
    torch.set_num_threads(1)
    forgery = make(recipe)
    authentic = recipe.kind in AUTHENTIC_KINDS
    image, mask = f"{recipe.name}.png", "" if authentic else f"{recipe.name}-mask.png"
    write_image(folder / image, forgery.image)
    if mask:
        write_image(folder / mask, np.uint8(255) * forgery.mask.astype(np.uint8))
    return {
        "image": image,
        "mask": mask,
        "authentic": authentic,
        "dataset": "pocket",
        "generator": recipe.generator,
        "kind": recipe.kind,
        "background": "reencoded" if recipe.kind in ("fr", "reencoded") else "real",
        "split": "cross-fit",
        "group": recipe.photo,
        "width": SIDE,
        "height": SIDE,
        "area": float(forgery.mask.mean()),
        "grain": recipe.grain,
        "condition": recipe.condition,
        "seen": recipe.generator != HELD_OUT,
    }


def _crop(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    top, left = (int(rng.integers(side - SIDE + 1)) for side in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + SIDE, left : left + SIDE])


def _key(seed: int, rounds: int) -> str:
    """Hash of all that the images depend on: the choices, the code and the generators' weights."""
    digest = hashlib.sha256(f"{seed} {rounds}".encode())
    weights = [ASSETS / f"pocket-{name}.safetensors" for name in LEARNED]
    for path in (*sorted((PACKAGE / "data").glob("*.py")), *weights):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
