"""The polarity check on pairs made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees

from dinolizer.data.polarity import check_polarity
from dinolizer.errors import InputError

SIDE = 64


def pair(folder: Path, image: np.ndarray, source: np.ndarray, mask: np.ndarray, **row: str):
    """A row of files; `number` of them are alike."""
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
    return {"generator": "g", "kind": "sp", "background": "real", **paths, **row}


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
    with pytest.raises(InputError, match=r"looks inverted.* lie outside of it"):
        check_polarity(pd.DataFrame([row]))


def test_of_regenerated_images_the_majority_decides(scene: trees.Scene, tmp_path: Path) -> None:
    def row(mask: np.ndarray) -> dict[str, str]:
        image = scene.edited(scene.reencoded())
        return pair(tmp_path, image, scene.photo, mask, kind="fr", background="reencoded")

    right, wrong = row(scene.mask), row(255 - scene.mask)
    assert "4 pairs" in check_polarity(pd.DataFrame([right, wrong, right, wrong]))
    with pytest.raises(InputError, match=r"differs from the authentic .* by \d+\.\d outside"):
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
