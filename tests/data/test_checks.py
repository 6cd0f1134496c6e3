"""A manifest against its files, and the polarity check on pairs made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees

from dinolizer.data.checks import check_files, check_polarity
from dinolizer.data.datasets import make_manifest
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError

SIDE = 64


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    make_manifest("sagid", trees.make_sagid(tmp_path), tmp_path / "out.csv")
    return read_manifest(tmp_path / "out.csv")


def test_a_manifest_that_is_right_says_how_its_masks_are_read(frame: pd.DataFrame) -> None:
    resized, polarity = check_files(frame)
    assert resized == "6 masks have another size than their image: read resized"
    assert polarity == "polarity as expected in the 6 pairs compared"


def damage(frame: pd.DataFrame, what: str) -> None:
    row = frame[~frame["authentic"]].index[0]
    image, mask = Path(frame.loc[row, "image"]), Path(frame.loc[row, "mask"])
    if what == "no image":
        image.unlink()
    elif what == "no mask":
        mask.unlink()
    elif what == "black":
        trees.save(mask, np.zeros((32, 32), np.uint8))
    elif what == "cut":
        mask.write_bytes(mask.read_bytes()[:60])
    elif what == "size":
        trees.save(image, np.zeros((128, 128, 3), np.uint8))
    elif what == "shape":
        trees.save(mask, np.full((32, 24), 255, np.uint8))
    elif what == "inverted":
        for path in set(frame["mask"]) - {""}:
            trees.save(Path(path), 255 - np.asarray(trees.Image.open(path)))
        frame["area"] = (1 - frame["area"]).where(~frame["authentic"], 0.0)
    else:
        trees.save(mask, np.full((32, 32), 255, np.uint8))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no image", "There is no file"),
        ("no mask", "there is no file"),
        ("black", "is all black"),
        ("cut", "cannot be read"),
        ("size", "says 64x64 pixels, but .* has 128x128"),
        ("shape", "has 24x32 pixels, but its image .* has 64x64, which is another shape"),
        ("another mask", "is edited, but its mask says 1.0000"),
    ],
)
def test_what_no_longer_fits_a_manifest_is_one_sentence(
    what: str, says: str, frame: pd.DataFrame
) -> None:
    damage(frame, what)
    with pytest.raises(InputError, match=rf"Row \d+ of the manifest.*{says}"):
        check_files(frame)


def test_inverted_masks_of_ones_own_list_are_refused(frame: pd.DataFrame) -> None:
    """Without a column that names the authentic image: it is the real one of the group."""
    damage(frame, "inverted")
    with pytest.raises(InputError, match="looks inverted"):
        check_files(frame)


def test_of_several_authentic_images_of_a_group_the_nearest_is_compared(
    scene: trees.Scene, tmp_path: Path
) -> None:
    """The other one is another photograph, of which every pixel differs: so would all lie outside.
    An image of another size tells nothing."""
    row = pair(tmp_path, scene.edited(scene.photo), scene.photo, scene.mask) | {"group": "x"}
    others = [trees.Scene(7, SIDE).photo, scene.photo[:32]]
    reals = [
        {"image": str(trees.save(tmp_path / f"real{number}.png", pixels)), "kind": "real"}
        for number, pixels in enumerate([*others, scene.photo])
    ]
    rows = [{"mask": "", "source": "", "group": "x", **real} for real in reals]
    right = pd.DataFrame([row | {"source": ""}, *rows])
    assert "1 pairs" in check_polarity(right)
    trees.save(Path(row["mask"]), 255 - scene.mask)
    with pytest.raises(InputError, match=r"the authentic .*real2.png .* lies outside"):
        check_polarity(right)


def pair(folder: Path, image: np.ndarray, source: np.ndarray, mask: np.ndarray, **row: str):
    """A row of files, which are written."""
    number = len(list(folder.glob("*-image*")))
    suffix = row.pop("suffix", "png")
    paths = {
        name: str(trees.save(folder / f"{number}-{name}.{end}", pixels))
        for name, pixels, end in (
            ("image", image, suffix),
            ("source", source, "png"),
            ("mask", mask, "png"),
        )
    }
    return {"generator": "g", "kind": "sp", "background": "real", "group": "", **paths, **row}


@pytest.fixture
def scene() -> trees.Scene:
    return trees.Scene(0, SIDE)


def soft_splice(scene: trees.Scene, width: int) -> np.ndarray:
    """New content whose border fades over some pixels outside of the mask."""
    wide = trees.cv2.dilate(scene.mask, np.ones((2 * width + 1,) * 2, np.uint8))
    return scene.edited(scene.photo, wide)


def test_a_splice_may_fade_a_little_outside_of_its_mask(scene: trees.Scene, tmp_path: Path) -> None:
    row = pair(tmp_path, soft_splice(scene, 4), scene.photo, scene.mask)
    assert check_polarity(pd.DataFrame([row])) == "polarity as expected in the 1 pairs compared"
    row = pair(tmp_path, soft_splice(scene, 16), scene.photo, scene.mask)
    with pytest.raises(InputError, match=r"looks inverted.* lies outside of it"):
        check_polarity(pd.DataFrame([row]))


def test_of_regenerated_images_the_majority_decides(scene: trees.Scene, tmp_path: Path) -> None:
    def row(mask: np.ndarray) -> dict[str, str]:
        image = scene.edited(scene.reencoded())
        return pair(tmp_path, image, scene.photo, mask, kind="fr", background="reencoded")

    right, wrong = row(scene.mask), row(255 - scene.mask)
    assert "4 pairs" in check_polarity(pd.DataFrame([right, wrong, right, wrong]))
    with pytest.raises(InputError, match=r"the authentic .* by \d+\.\d outside"):
        check_polarity(pd.DataFrame([right, wrong, wrong, wrong]))
    # Another generator's pairs do not outvote them.
    with pytest.raises(InputError, match="looks inverted"):
        check_polarity(pd.DataFrame([right] * 9 + [wrong | {"generator": "other"}]))


def test_of_lossy_splices_more_must_change_inside(scene: trees.Scene, tmp_path: Path) -> None:
    image = scene.edited(scene.photo)
    row = pair(tmp_path, image, scene.photo, scene.mask, suffix="jpg")
    assert "1 pairs" in check_polarity(pd.DataFrame([row]))
    row = pair(tmp_path, image, scene.photo, 255 - scene.mask, suffix="jpg")
    with pytest.raises(InputError, match="looks inverted"):
        check_polarity(pd.DataFrame([row]))


def test_pairs_that_cannot_tell_are_not_counted(scene: trees.Scene, tmp_path: Path) -> None:
    edited = scene.edited(scene.photo)
    rows = [
        pair(tmp_path, scene.photo, scene.photo, scene.mask),  # nothing changed
        pair(tmp_path, edited, scene.photo[2:], scene.mask),  # another size
        pair(tmp_path, edited, scene.photo, np.full_like(scene.mask, 255)),  # no outside
        pair(tmp_path, edited, scene.photo, scene.mask) | {"source": ""},
    ]
    assert "polarity not checked" in check_polarity(pd.DataFrame(rows))
