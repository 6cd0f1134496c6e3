"""Which images a study has, and which of them are tested."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import small_manifest

from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_manifest, write_manifest
from dinolizer.errors import InputError
from dinolizer.study import samples
from dinolizer.study.samples import images_to_degrade, load


def write(folder: Path, name: str, *splits: str, **columns: str) -> str:
    """A manifest of 12 images, three of each split in turn: a photo and two edits by ``gan``."""
    frame = read_manifest(small_manifest(folder / name, 12, splits))
    frame["generator"] = ["none" if authentic else "gan" for authentic in frame["authentic"]]
    path = folder / f"{name}.csv"
    write_manifest(frame.assign(**columns), path)
    return str(path)


def test_manifests_are_read_and_only_test_rows_tested(tmp_path: Path) -> None:
    train = write(tmp_path, "train", "train", "valid")
    test = [write(tmp_path, name, "test", "train", dataset=name) for name in ("one", "two")]
    gathered = load(56, train=[train], test=test)
    assert gathered.train is not None
    assert set(gathered.train["split"]) == {"train", "valid"}
    assert set(gathered.test["split"]) == {"test"}
    assert gathered.test["family"].value_counts().to_dict() == {
        **{"one gan": 4, "one none": 2},
        **{"two gan": 4, "two none": 2},
    }
    assert gathered.test["seen"].all()
    unseen = write(tmp_path, "unseen", "train", "valid", generator="vae")
    assert not load(56, train=[unseen], test=test).test["seen"].any()
    assert list(gathered.sources) == [Path(path).name for path in (train, *test)]
    # With one dataset the generator is name enough.
    alone = load(56, train=[train], test=test[:1]).test
    assert alone["family"].tolist() == alone["generator"].tolist()


def test_a_generator_is_seen_if_its_family_is_trained_on(tmp_path: Path) -> None:
    # B-Free calls Stable Diffusion 2 by its folders' names, TGIF by "sd2".
    train = write(tmp_path, "bfree", "train", generator="SD2.1_inpainted_samecat")
    test = [write(tmp_path, name, "test", dataset=name, generator=name) for name in ("sd2", "sdxl")]
    seen = load(56, train=[train], test=test).test.groupby("generator")["seen"].unique()
    assert {name: list(values) for name, values in seen.items()} == {"sd2": [True], "sdxl": [False]}


def test_a_limit_holds_for_each_family_and_kind_and_is_drawn_by_the_seed(tmp_path: Path) -> None:
    train, test = (write(tmp_path, split, split) for split in ("train", "test"))
    drawn = [load(56, train=[train], test=[test], limit=2, seed=seed).test for seed in range(4)]
    for frame in drawn:
        assert frame.groupby(["family", "kind"]).size().max() == 2
    assert drawn[0].equals(load(56, train=[train], test=[test], limit=2, seed=0).test)
    assert len({tuple(frame["image"]) for frame in drawn}) > 1


def test_only_one_side_named_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "one", "test")
    with pytest.raises(InputError, match=r"\[\] to train and \['.*one.csv'\] to test: name both"):
        load(56, test=[path])
    with pytest.raises(InputError, match="no row of the split 'test'"):
        load(56, train=[path], test=[write(tmp_path, "other", "train")])


def test_without_manifests_photographs_are_forged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    asked = {}

    def build(photos: dict[str, Path], window: int, seed: int, rounds: int) -> pd.DataFrame:
        asked.update(photos=list(photos), window=window, seed=seed, rounds=rounds)
        return read_manifest(small_manifest(tmp_path / "made", 3, ("cross-fit",)))

    monkeypatch.setattr(samples, "build", build)
    gathered = load(504, photos=str(tmp_path), photo_count=2, seed=3, rounds=4)
    assert asked == {"photos": ["a", "b"], "window": 504, "seed": 3, "rounds": 4}
    assert gathered.train is None
    (before,) = gathered.sources.values()
    # One pixel of one image that is read back is another source.
    image = np.zeros((60, 60, 3), np.uint8)
    write_image(Path(gathered.test["image"].iloc[0]), image)
    image[0, 0] = 1
    first = samples.images_hash(gathered.test)
    write_image(Path(gathered.test["image"].iloc[0]), image)
    assert len({before, first, samples.images_hash(gathered.test)}) == 3


def test_degraded_are_clean_spliced_edits_of_the_families() -> None:
    frame = pd.DataFrame(
        [
            ("kept", False, "x", "sp", "clean"),
            ("other family", False, "y", "sp", "clean"),
            ("not spliced", False, "x", "fr", "clean"),
            ("compressed", False, "x", "sp", "jpeg"),
            ("authentic", True, "none", "real", "clean"),
        ],
        columns=["image", "authentic", "family", "kind", "condition"],
    )
    assert images_to_degrade(frame, ["x"])["image"].tolist() == ["kept"]
    assert images_to_degrade(frame)["image"].tolist() == ["kept", "other family"]
    assert len(images_to_degrade(frame, images=1)) == 1
    only_regenerated = frame[frame["kind"] != "sp"]
    assert images_to_degrade(only_regenerated)["image"].tolist() == ["not spliced"]
    with pytest.raises(InputError, match=r"edited image of \['z'\]"):
        images_to_degrade(frame, ["z"])
