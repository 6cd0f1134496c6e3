"""The images of a study: those it is tested on, and those that heads are trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from dinolizer.data.manifest import generator_family, read_manifest
from dinolizer.errors import InputError
from dinolizer.paths import ROOT, file_hash
from dinolizer.pocket.dataset import build
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.cache import images_hash


@dataclass(frozen=True)
class Dataset:
    """The images of a study.

    Attributes
    ----------
    test
        A manifest (see `dinolizer.data.manifest`) with the further columns ``family`` (the
        generator, after its dataset if there are several), ``seen`` (bool: whether training meets
        the generator's family) and ``condition``.
    train
        A manifest with the splits ``train`` and ``valid``; or None: every photograph of ``test`` is
        tested by a head fitted on all the others (leave-one-photo-out).
    sources
        SHA-256 of what the images come from, manifest files or forged images.
    """

    test: pd.DataFrame
    train: pd.DataFrame | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def load(
    window: int,
    *,
    photos: str = "",
    photo_count: int = 0,
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    limit: int = 0,
    seed: int = 0,
    rounds: int = 1,
) -> Dataset:
    """Read the manifests of a study, or forge its images if none are named.

    ``window`` is the side of the backbone's window, in pixels; ``photos`` and ``photo_count`` are
    as in `photo_paths`, ``rounds`` as in `dinolizer.pocket.dataset.build`. Manifests and ``photos``
    are absolute paths or relative to the checkout. At most ``limit`` test images of each family and
    kind are kept, drawn by the seed; 0 keeps all. Raises InputError if only one of ``train`` and
    ``test`` is named, or a manifest of ``test`` has no row of that split.
    """
    if bool(train) != bool(test):
        named, other = ("train", "test") if train else ("test", "train")
        raise InputError(
            f"Manifests are named for {named!r} and none for {other!r}: name both, or neither to "
            "forge photographs."
        )
    if not test:
        paths = photo_paths(ROOT / photos if photos else "", photo_count)
        forged = build(paths, window, seed, rounds)
        sources = {f"{len(forged)} forged images": images_hash(forged)}
        return Dataset(
            _limited(forged.assign(family=forged["generator"]), limit, seed), None, sources
        )
    training = pd.concat([read_manifest(ROOT / path) for path in train], ignore_index=True)
    tested = pd.concat([_test_rows(ROOT / path) for path in test], ignore_index=True)
    families = set(training["generator"].map(generator_family))
    several = tested["dataset"].nunique() > 1
    tested = tested.assign(
        family=tested["dataset"] + " " + tested["generator"] if several else tested["generator"],
        seen=tested["generator"].map(generator_family).isin(families),
        condition="clean",
    )
    sources = {_name(ROOT / path): file_hash(ROOT / path) for path in (*train, *test)}
    return Dataset(_limited(tested, limit, seed), training, sources)


def images_to_degrade(
    manifest: pd.DataFrame, families: Sequence[str] = (), images: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Choose the edited images that a robustness study degrades; InputError if there are none.

    They are clean, of the families (if empty, all); spliced, or the others if none is; and at most
    so many, drawn by the seed (0: all).
    """
    clean = ~manifest["authentic"] & (manifest["condition"] == "clean")
    known = manifest["family"].isin(list(families)) if families else clean
    chosen = manifest[clean & known]
    chosen = chosen[chosen["kind"] == "sp"] if (chosen["kind"] == "sp").any() else chosen
    if chosen.empty:
        raise InputError(
            f"There is no edited image of the families {list(families)} among the test images; "
            f"choose some of {sorted(set(manifest['family']))}."
        )
    return draw_rows(chosen, images, seed)


def draw_rows(frame: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """At most so many rows of a manifest, drawn by the seed, in their order; 0 for all."""
    kept = frame.sample(count, random_state=seed) if 0 < count < len(frame) else frame
    return kept.sort_index().reset_index(drop=True)


def _test_rows(path: Path) -> pd.DataFrame:
    frame = read_manifest(path)
    rows = frame[frame["split"] == "test"]
    if rows.empty:
        splits = ", ".join(sorted(set(frame["split"])))
        raise InputError(
            f"The manifest {path} has no row of the split 'test', only of {splits}; leave it out, "
            "or write it with another split."
        )
    return rows


def _limited(frame: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    if not limit:
        return frame.reset_index(drop=True)
    order = np.random.default_rng(seed).permutation(len(frame))
    rank = frame.iloc[order].groupby(["family", "kind"]).cumcount().sort_index()
    return frame[rank < limit].reset_index(drop=True)


def _name(path: Path) -> str:
    """Path of a file in the checkout, or elsewhere its name alone."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
