"""The forged images of a study: the same photographs and seed give the same images."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import AUTHENTIC_KINDS, read_manifest, write_manifest
from dinolizer.errors import InputError, progress
from dinolizer.paths import cache_dir
from dinolizer.pocket.forging import CASES, CONDITIONS, HELD_OUT, Forgery, forge, past
from dinolizer.pocket.generators import DOWNSAMPLING
from dinolizer.pocket.photos import photo_paths

MARGIN = 64  # pixels by which a side of an image exceeds a window: four windows overlap in each
PROCESSES = 2
PROBE = 64  # side of the images whose pixels stand for the code that forges, in pixels


class Case(NamedTuple):
    """How one image is made; ``path`` and ``photo`` are the photograph's file and name."""

    path: Path
    photo: str
    side: int
    generator: str
    kind: str
    condition: str
    seed: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the image's file, without its suffix."""
        return f"{self.photo}-{self.generator}-{self.kind}-{self.condition}-{self.seed[1]}"


def list_cases(photos: Mapping[str, Path], side: int, seed: int, rounds: int) -> Iterator[Case]:
    """List every image: photographs x generators and kinds x conditions, ``rounds`` times, the
    held-out generator included. Every case and photograph comes equally often."""
    for round_, (photo, (name, path)), (case, (generator, kind)), (number, condition) in product(
        range(rounds), enumerate(photos.items()), enumerate(CASES), enumerate(CONDITIONS)
    ):
        seeds = (seed, round_, photo, case, number)
        yield Case(path, name, side, generator, kind, condition, seeds)


def make(case: Case) -> Forgery:
    """Forge one image from a random crop of its photograph, which is given a past first. What an
    auto-encoder puts into the mask is the same photograph again, mirrored and shrunk, so that no
    photograph's content appears in an image of another."""
    rng = np.random.default_rng((*case.seed, 1))
    photo = read_image(case.path)
    if min(photo.shape[:2]) < case.side:
        size = f"{photo.shape[1]}x{photo.shape[0]}"
        wanted = f"both sides must have {case.side} pixels: take it out of the folder"
        raise InputError(f"The photograph {case.path} is {size}, but {wanted}.")
    how, image = (case.generator, case.kind), past(photo, case.side, rng)
    source = photo[:, ::-1]
    return forge(image, *how, seed=list(case.seed), source=source, condition=case.condition)


def build(photos: Mapping[str, Path], window: int, seed: int = 0, rounds: int = 1) -> pd.DataFrame:
    """Make the images of a study, or read them from the cache, and return their manifest. Its
    further columns are ``condition`` and ``seen`` (bool: whether any training meets the generator).
    Images and masks are square PNG files, `MARGIN` pixels larger than the window, cut to a multiple
    of what the generators need. A round makes 39 images per photograph. Raises InputError for a
    photograph that cannot be read or is smaller than the images."""
    side = (window + MARGIN) // DOWNSAMPLING * DOWNSAMPLING
    digest = hashlib.sha256(f"{list(photos)} {side} {seed} {rounds} {fingerprint()}".encode())
    for path in photos.values():
        digest.update(path.read_bytes())
    folder = cache_dir() / "images" / digest.hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        cases = [*list_cases(photos, side, seed, rounds)]
        with TemporaryDirectory(dir=folder.parent, prefix=".draft-") as scratch:
            draft = Path(scratch, folder.name)
            jobs = (delayed(_write)(draft, case) for case in cases)
            made = Parallel(PROCESSES, return_as="generator")(jobs)
            rows = list(progress(made, "forgeries", len(cases)))
            write_manifest(pd.DataFrame(rows), draft / "manifest.csv")
            try:
                draft.rename(folder)
            except OSError:
                if not folder.exists():  # else another process has made the same meanwhile
                    raise
    return read_manifest(folder / "manifest.csv")


def _write(folder: Path, case: Case) -> dict[str, object]:
    """Write the files of a case, and return its row of the manifest."""
    torch.set_num_threads(1)
    forgery = make(case)
    authentic = case.kind in AUTHENTIC_KINDS
    image, mask = f"{case.name}.png", "" if authentic else f"{case.name}-mask.png"
    write_image(folder / image, forgery.image)
    if mask:
        write_image(folder / mask, forgery.mask)
    background = "reencoded" if case.kind in ("fr", "reencoded") else "real"
    row = {"image": image, "mask": mask, "authentic": authentic, "dataset": "forgeries"}
    row |= {"generator": case.generator, "kind": case.kind, "background": background}
    row |= {"split": "cross-fit", "group": case.photo, "width": case.side, "height": case.side}
    seen, area = case.generator != HELD_OUT, float(forgery.mask.mean())
    return row | {"area": area, "condition": case.condition, "seen": seen}


@cache
def fingerprint() -> str:
    """SHA-256 of a photograph forged by every generator: what changes a pixel shows here."""
    digest = hashlib.sha256()
    probes = list_cases({"cat": photo_paths()["cat"]}, PROBE, seed=0, rounds=1)
    for case in islice(probes, None, None, len(CONDITIONS)):  # of each generator and kind
        forgery = make(case)
        digest.update(forgery.image.tobytes() + forgery.mask.tobytes())
    return digest.hexdigest()
