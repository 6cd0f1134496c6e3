"""The manifest: its rules, its CSV file and its label policies, on frames made by hand."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dinolizer.data.manifest import (
    COLUMNS,
    generator_family,
    read_manifest,
    target,
    validate,
    write_manifest,
)
from dinolizer.errors import InputError


def row(**changes: object) -> dict[str, object]:
    """A valid row of a spliced image, with changes."""
    return {
        "image": "a.png",
        "mask": "a-mask.png",
        "authentic": False,
        "dataset": "pocket",
        "generator": "telea",
        "kind": "sp",
        "background": "real",
        "split": "train",
        "group": "007",
        "width": 4,
        "height": 3,
        "area": 0.25,
        **changes,
    }


AUTHENTIC: dict[str, Any] = {"mask": "", "authentic": True, "generator": "", "area": 0.0}


@pytest.fixture
def frame() -> pd.DataFrame:
    """One image of every kind, from two photos in two splits."""
    return pd.DataFrame(
        [
            row(),
            row(image="b.png", kind="fr", background="reencoded"),
            row(image="c.png", kind="real", split="test", group="NA", **AUTHENTIC),
            row(
                image="d.png",
                kind="reencoded",
                background="reencoded",
                split="test",
                group="NA",
                **(AUTHENTIC | {"generator": "autoencoder"}),
            ),
        ]
    )


def test_a_manifest_survives_its_csv_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    # "007" must not become 7, "NA" and "" must not become missing values; extra columns stay.
    frame["seen"] = [True, False, True, False]
    for column in ("image", "mask"):
        frame[column] = [name and str(tmp_path / name) for name in frame[column]]
    write_manifest(frame, tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(
        read_manifest(tmp_path / "manifest.csv"), frame, check_dtype=False
    )
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_paths_are_relative_to_the_file_where_they_can_be(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame["image"] = [str(tmp_path / "set" / "a b.png"), "b.png", "/elsewhere/c.png", "x/d.png"]
    write_manifest(frame, tmp_path / "set" / "manifest.csv")
    (tmp_path / "set").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    found = read_manifest("moved/manifest.csv")
    moved = str(tmp_path / "moved")
    assert found["image"].tolist() == [
        f"{moved}/a b.png",
        f"{moved}/b.png",
        "/elsewhere/c.png",
        f"{moved}/x/d.png",
    ]
    assert found["mask"].tolist() == [f"{moved}/a-mask.png", f"{moved}/a-mask.png", "", ""]


def test_a_manifest_that_a_spreadsheet_saved_is_read(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_manifest(frame, tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "bom.csv").write_text(text, encoding="utf-8-sig")
    pd.testing.assert_frame_equal(
        read_manifest(tmp_path / "bom.csv"), read_manifest(tmp_path / "manifest.csv")
    )


def test_no_cell_is_a_formula_to_a_spreadsheet(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Spreadsheets execute cells that begin with =, +, - or @, whatever blanks a quote hides; what
    is a number to them too stays one."""
    frame["image"] = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+cmd|'x'!A0", "-x.png"]
    frame["seen"] = ["-5", "+1e-3", "'-7", "\t=1"]
    frame["group"] = ["=1+1", "=1+1", "x", "x"]
    frame["split"] = ["'=1", "'=1", "a=b", "a=b"]
    write_manifest(frame, tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert [cell for cell in cells if cell[:1] in set("=+-@\t\r")] == ["-5", "+1e-3"]
    read = read_manifest(tmp_path / "manifest.csv")
    for column in ("split", "seen", "group"):
        assert read[column].tolist() == frame[column].tolist()
    assert read["image"].tolist() == [str(tmp_path / name) for name in frame["image"]]


def test_an_invalid_manifest_is_not_written(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_manifest(frame.drop(columns="kind"), tmp_path / "manifest.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_required(frame: pd.DataFrame, column: str) -> None:
    with pytest.raises(InputError, match=f"lacks the column '{column}'"):
        validate(frame.drop(columns=column))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("kind", "spliced", "Row 1.*kind must be one of real, sp, fr, reencoded"),
        ("background", "pristine", "background must be one of real, reencoded"),
        ("image", "", "image must be a path"),
        ("group", None, "no value may be missing"),
        ("authentic", True, "authentic must be true for the kinds real and reencoded"),
        ("mask", "", "an edited one has a mask"),
        ("width", 0, "width and height must be at least one pixel"),
        ("area", 25.0, "area must be a share from 0 to 1"),
        ("area", 0.0, "0 for authentic images only"),
        ("split", "test", "The photo '007' is in the splits test and train"),
        ("authentic", "yes", "'authentic' must hold only True and False"),
        ("height", "tall", "'height' must hold only numbers"),
    ],
)
def test_a_broken_rule_is_named(
    frame: pd.DataFrame, column: str, value: object, message: str
) -> None:
    values = frame[column].tolist()
    values[1] = value
    with pytest.raises(InputError, match=message):
        validate(frame.assign(**{column: values}))


def test_only_what_is_reencoded_over_a_real_background_is_authentic_with_a_mask(
    frame: pd.DataFrame,
) -> None:
    with pytest.raises(InputError, match=r"Row 2.*background of a real image must be real"):
        validate(frame.assign(background=["real", "reencoded", "reencoded", "reencoded"]))
    partly = frame.assign(background=["real", "reencoded", "real", "real"])
    with pytest.raises(InputError, match=r"Row 3.*unless it is re-encoded over a real"):
        validate(partly)
    validate(partly.assign(mask=["a.png", "b.png", "", "d.png"]))
    with pytest.raises(InputError, match=r"Row 2.*has an empty mask path"):
        validate(partly.assign(mask=["a.png", "b.png", "c.png", "d.png"]))


def test_an_empty_manifest_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no rows"):
        validate(frame.iloc[:0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.write_bytes(b""), "cannot be read as CSV"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00\x89PNG"), "is not in UTF-8"),
        (lambda path: path.write_text("image,mask\na,b\n"), "lacks the column 'authentic'"),
    ],
)
def test_an_unreadable_manifest_is_refused_in_one_sentence(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "manifest.csv")
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    ("kind", "background", "policy", "inside", "outside"),
    [
        # The paper's labels: what an auto-encoder re-encoded, but nobody edited, is pristine.
        ("sp", "real", "pristine", 1, 0),
        ("fr", "reencoded", "pristine", 1, 0),
        ("sp", "real", "fake", 1, 0),
        ("fr", "reencoded", "fake", 1, 1),
        ("sp", "real", "three-class", 2, 0),
        ("fr", "reencoded", "three-class", 2, 1),
        # Re-encoded inside the mask only, and nowhere edited.
        ("reencoded", "real", "pristine", 0, 0),
        ("reencoded", "real", "fake", 1, 0),
        ("reencoded", "real", "three-class", 1, 0),
    ],
)
def test_label_policies_of_images_with_a_mask(
    kind: str, background: str, policy: str, inside: int, outside: int
) -> None:
    mask = np.array([[True, False, False], [True, True, False]])
    expected = np.array([[inside, outside, outside], [inside, inside, outside]])
    found = target(mask, kind, background, policy)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "policy", "everywhere"),
    [
        ("real", "pristine", 0),
        ("real", "fake", 0),
        ("real", "three-class", 0),
        ("reencoded", "pristine", 0),
        ("reencoded", "fake", 1),
        ("reencoded", "three-class", 1),
    ],
)
def test_label_policies_of_authentic_images(kind: str, policy: str, everywhere: int) -> None:
    found = target(np.zeros((2, 3), dtype=bool), kind, kind, policy)
    np.testing.assert_array_equal(found, np.full((2, 3), everywhere))


def test_labels_refuse_what_they_do_not_know() -> None:
    mask = np.ones((2, 2), dtype=bool)
    with pytest.raises(InputError, match="The policy is 'real'"):
        target(mask, "sp", "real", "real")
    with pytest.raises(InputError, match="The kind is 'splice'"):
        target(mask, "splice", "real", "fake")
    with pytest.raises(InputError, match="mask that is not empty"):
        target(mask, "real", "real", "fake")


@pytest.mark.parametrize(
    ("family", "names"),
    [
        # As the folders and tables of B-Free, TGIF, TGIF2, OpenSDI and BtB spell them.
        ("sd2", "SD2.1_inpainted_samecat SD2.1_selfconditioned_origBG sd2 sd2-sp sd21"),
        ("sd2", "stable-diffusion-2-inpainting Stable_Diffusion_v2.1"),
        ("sdxl", "sdxl sdxl-fr SD-XL stable-diffusion-xl fooocus"),
        ("sd1", "sd15 SD1.5 stable-diffusion-v1-5"),
        ("sd3", "sd3 SD3.5-medium"),
        ("flux", "flux1dev flux FLUX.1-schnell flux1-dev-fr"),
        ("photoshop", "ps ps-sp Photoshop adobe-firefly Firefly"),
        ("none", "none"),
        # Of no known family: each is its own.
        ("glide", "glide GLIDE"),
        ("psgan", "PSGAN"),
        ("brushnetpowerpaint", "brushnet+powerpaint"),
    ],
)
def test_names_of_generators_are_told_their_family(family: str, names: str) -> None:
    assert {generator_family(name) for name in names.split()} == {family}
