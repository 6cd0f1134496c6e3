"""Maps from a folder mean what is declared, belong to the image of their name, or are refused."""

import io
import os
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageOps
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.data.checks import check_files
from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest, write_manifest
from dinolizer.errors import InputError
from dinolizer.paths import ASSETS, ROOT
from dinolizer.study.evaluation import Case, Method, evaluate, rows_of
from dinolizer.study.peers import export_images, read_peers

HEIGHT, WIDTH = 6, 8
VALUES = np.zeros((HEIGHT, WIDTH))
VALUES[:2] = 1  # the upper third: edited in every image


@pytest.fixture
def manifest(tmp_path: Path) -> pd.DataFrame:
    """Three edited images in two folders, two of them of one name."""
    rows = []
    for name in ("x/1.png", "y/1.png", "y/2.png"):
        path, mask = tmp_path / "images" / name, tmp_path / "masks" / name
        write_image(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        write_image(mask, (255 * VALUES).astype(np.uint8))
        rows.append({"image": str(path), "mask": str(mask), "generator": "x", "group": name})
    return pd.DataFrame(rows).assign(kind="sp", background="real")


def write(folder: Path, name: str, values: NDArray[np.generic]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".png":
            cv2.imwrite(str(path), values)
        case ".npy":
            np.save(path, values)
        case _:
            np.savez_compressed(path, map=values)


def declare(folder: Path, **lines: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    declared = {"name": "Peer", "polarity": "high = edited", "range": [0, 1]} | lines
    (folder / "peer.yaml").write_text(yaml.safe_dump(declared))
    return str(folder)


@pytest.mark.parametrize(
    ("end", "values", "lines"),
    [
        (".png", (200 * VALUES).astype(np.uint8), {"range": [0, 255]}),
        (".png", (60_000 * VALUES).astype(np.uint16), {"range": [0, 65535]}),
        (".npy", 0.9 - 0.8 * VALUES, {"polarity": "low = edited"}),
        (".npz", (6 * VALUES - 3).astype(np.float16), {"range": [-10, 10], "threshold": 2}),
        (".png.npz", VALUES, {}),
    ],
)
def test_every_format_range_and_polarity(
    tmp_path: Path, manifest: pd.DataFrame, end: str, values: NDArray[np.generic], lines: dict
) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "2", "extra"):
        write(folder, f"{name}{end}", values)
    (peer,) = read_peers([declare(folder, **lines)], manifest)
    rows = evaluate(peer, manifest)
    assert rows["method"].tolist() == ["Peer"] * 3
    assert rows["iou"].tolist() == [1, 1, 1]
    assert rows["threshold"].between(0, 1).all()
    write(folder, f"2{end}", values[::-1].copy())
    assert read_peers([declare(folder, **lines)], manifest)[0].key != peer.key  # other maps


def test_the_threshold_is_in_the_unit_of_the_maps(tmp_path: Path, manifest: pd.DataFrame) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "y/2"):
        write(folder, f"{name}.npy", -4 + 2 * VALUES)  # from -4 to -2
    lines = {"range": [-4, 0], "polarity": "low = edited"}
    marked = []
    for threshold in (-4, -3, -1):
        (peer,) = read_peers([declare(folder, **lines, threshold=threshold)], manifest)
        marked.append(evaluate(peer, manifest)["predicted_area"].tolist()[0])
    assert marked == pytest.approx([0, 2 / 3, 1])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"polarity": "high"}, "polarity to 'high': input should be 'high = edited' or 'low"),
        ({"range": [1, 0]}, "give a lower, a higher"),
        ({"range": "0-1"}, "sets range to '0-1': input should be a valid list"),
        ({"range": [0, 1, 2]}, "at most 2 items"),
        ({"range": [0, True]}, "range.1 to True: input should be a valid number"),
        ({"range": [0, float("inf")]}, "range.1 to inf: input should be a finite number"),
        ({"threshold": 3}, "3: give a lower, a higher and one in between"),
        ({"threshold": float("nan")}, "threshold to nan: input should be a finite number"),
        ({"name": [["lol"] * 9] * 9}, "name to .* valid string"),
        ({"name": ""}, "name to '': string should match pattern"),
        ({"name": "=1+1"}, "name to '=1.1': string should match pattern"),
        ({"name": "a\nb"}, "string should match pattern"),
        ({"name": "a" * 101}, "string should match pattern"),
        ({"array": 7}, "array to 7: input should be a valid string"),
        ({"extra": 3}, "extra inputs are not permitted"),
    ],
)
def test_a_wrong_declaration_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, lines: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_peers([declare(tmp_path / "peer", **lines)], manifest)


TWICE = "name: other\npolarity: high = edited\nrange: [0, 1]\npolarity: low = edited\n"


@pytest.mark.parametrize(
    "text",
    ["[" * 9999, "name: !!python/name:os.system", "#" * 10_001, "\0", TWICE, "name: !!timestamp x"],
)
def test_a_hostile_declaration_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, text: str
) -> None:
    (tmp_path / "peer.yaml").write_text(text)
    with pytest.raises(InputError, match=r"peer.yaml is no short YAML file"):
        read_peers([str(tmp_path)], manifest)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_map_is_turned_as_its_image_is(tmp_path: Path, orientation: int) -> None:
    """Pillow's own `exif_transpose` says how a map of the stored pixels must come out."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    drawn = Image.fromarray(stored)
    drawn.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(drawn)) / 255
    image = tmp_path / "images" / "1.png"
    image.parent.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(image, exif=exif)
    manifest = pd.DataFrame({"image": [str(image)]})
    for name in ("1.png", "1.npy", "1.npz", "own.png"):
        folder = tmp_path / name.replace(".", "-")
        declaration = declare(folder, range=[0, 255])
        if name == "own.png":
            Image.fromarray(stored).save(folder / "1.png", exif=exif)
        else:
            write(folder, name, stored)
        (peer,) = read_peers([declaration], manifest)
        made = peer.predict(np.zeros((*expected.shape, 3), np.uint8), {"image": str(image)})
        np.testing.assert_allclose(made, expected, atol=1e-6, err_msg=name)


def full(manifest: pd.DataFrame) -> pd.DataFrame:
    """With all that a manifest has; a third of each image is edited."""
    about = {"authentic": False, "dataset": "d", "split": "cross-fit"}
    return manifest.assign(**about, width=WIDTH, height=HEIGHT, area=VALUES.mean())


def test_exported_images_are_the_same_files_and_maps_of_them_fit_the_originals(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    listed = export_images(full(manifest), tmp_path / "export")
    exported = read_manifest(listed)
    assert set(exported["split"]) == {"test"}
    for old, new in zip(manifest["image"], exported["image"], strict=True):
        assert Path(new).read_bytes() == Path(old).read_bytes()
        assert Path(new).relative_to(tmp_path / "export/images") == Path(
            *Path(old).parts[-2:]  # the folders are kept: two images have one name
        )
    check_files(exported)
    for image in exported["image"]:  # a map for each, called as it
        name = Path(image).relative_to(tmp_path / "export/images")
        write(tmp_path / "maps", str(name.with_suffix(".npy")), VALUES)
    folder = declare(tmp_path / "maps")
    for frame in (manifest, exported):
        assert evaluate(*read_peers([folder], frame), frame)["iou"].tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="holds something"):
        export_images(full(manifest), tmp_path / "export")


def test_no_image_is_exported_out_of_the_folder_or_over_another(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    frame = full(manifest)
    images = frame["image"].str.replace("/images/", "/images/x/../../images/")
    listed = export_images(frame.assign(image=images), tmp_path / "export" / "one")
    assert all(Path(path).is_relative_to(listed.parent) for path in read_manifest(listed)["image"])
    assert [*(tmp_path / "export").iterdir()] == [listed.parent]
    other = str(Path(frame["image"][0]).with_suffix(".bmp"))  # x/1.bmp beside x/1.png
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(other)
    frame.loc[1, "image"] = other
    for steps in ([], [("noise", 7.0)]):
        with pytest.raises(InputError, match=r"would be called .*1"):
            export_images(frame, tmp_path / f"two{len(steps)}", steps)


def test_degraded_images_are_those_that_the_study_degrades(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    noise = np.random.default_rng(0)
    for path in manifest["image"]:
        write_image(path, noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    steps = [("resize", 1.5), ("noise", 7.0)]
    exported = read_manifest(export_images(full(manifest), tmp_path / "export", steps, seed=3))
    assert set(exported["width"]) == {12} and set(exported["height"]) == {9}
    check_files(exported)
    seen: list[NDArray[np.uint8]] = []
    look = Method("look", lambda image, row: seen.append(image) or image[..., 0] / 255)
    evaluate(look, manifest, steps=steps, seed=3)
    for image, path in zip(seen, exported["image"], strict=True):
        np.testing.assert_array_equal(image, read_image(path))


def test_maps_of_degraded_images_are_read_after_their_case_alone(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    """The upper third of the images as they are, the lower two thirds after JPEG; half as many
    pixels after resizing, of two images; of nothing else there are maps."""
    folder, images = tmp_path / "peer", full(manifest)
    for name in ("x/1", "y/1", "y/2"):
        write(folder / "none", f"{name}.npy", VALUES)
        write(folder / "jpeg=70", f"{name}.png.npz", 1 - VALUES)  # as TruFor calls them
        if name != "y/2":
            write(folder / "resize=0.5+jpeg=60", f"{name}.npy", VALUES[::2, ::2])
    (peer,) = read_peers([declare(folder)], manifest)
    cases: list[Case] = [(), (("jpeg", 70.0),), (("resize", 0.5), ("jpeg", 60)), (("noise", 3),)]
    with pytest.raises(InputError, match=r"jpeg=60 has no map of the image .*2.png: draw all"):
        rows_of([peer], images, cases)
    look = Method("look", lambda image, row: image[..., 0] / 255)
    rows = rows_of([peer, look], images[:2], cases)
    counts = rows.groupby(["method", "before", "degradation"]).size()
    assert counts["look"].tolist() == [2] * 4
    assert counts["Peer"].to_dict() == {
        **{("none", "none"): 2, ("none", "jpeg"): 2, ("resize 0.5", "jpeg"): 2}
    }
    iou = rows[rows["method"] == "Peer"].groupby(["before", "degradation"])["iou"].unique()
    assert iou["none", "none"].tolist() == [1] and iou["none", "jpeg"].tolist() == [0]
    # Maps may lie beside the folders; another map of one case makes other rows.
    for name in ("x/1", "y/1", "y/2"):
        write(folder, f"{name}.npy", VALUES)
    shutil.rmtree(folder / "none")
    assert evaluate(*read_peers([str(folder)], manifest), manifest)["iou"].tolist() == [1, 1, 1]
    write(folder / "jpeg=70", "y/2.png.npz", VALUES)
    (other,) = read_peers([str(folder)], manifest)
    assert other.cases == peer.cases and other.key != peer.key


def test_the_formats_of_public_detectors_are_read(tmp_path: Path, manifest: pd.DataFrame) -> None:
    """Miniatures of what their programs write, or write after the change that data/README shows,
    with the declarations given there."""
    probability = np.float32(0.1 + 0.8 * VALUES)
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    declared = re.findall(r"^name: .*?(?=^```)", text, re.MULTILINE | re.DOTALL)
    assert [yaml.safe_load(lines)["name"] for lines in declared] == [
        *("TruFor", "CAT-Net v2", "MMFusion", "Mine")
    ]
    for lines in declared:
        name = yaml.safe_load(lines)["name"]
        folder = tmp_path / name
        for image in ("x/1", "y/1", "y/2"):
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            if name == "TruFor":  # trufor_test.py: the image's whole name, and .npz
                arrays = {"map": probability, "conf": 1 - probability, "score": 0.7}
                np.savez(folder / f"{image}.png.npz", imgsize=(HEIGHT, WIDTH), **arrays)
            elif name == "Mine":
                write(folder, f"{image}.png", np.uint8(255 * probability))
            else:
                np.save(folder / f"{image}.npy", probability)
        (folder / "peer.yaml").write_text(lines)
        (peer,) = read_peers([str(folder)], manifest)
        assert evaluate(peer, manifest)["iou"].tolist() == [1, 1, 1]


def test_a_profiles_images_are_exported_by_the_command(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    write_manifest(full(manifest).assign(split="test"), tmp_path / "test.csv")
    others = full(manifest).assign(split="train", group=["a", "b", "c"])
    write_manifest(others, tmp_path / "train.csv")
    lines = {"backbone": "pocket", "train": [f"{tmp_path}/train.csv"]}
    lines["test"] = [f"{tmp_path}/test.csv"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(lines))
    words = ["study", "export-images", f"{tmp_path}/mine.yaml", f"{tmp_path}/export"]
    refused = CliRunner().invoke(app, [*words, "--degrade", "jpeg"])
    assert refused.exit_code == 1 and "must be NAME=LEVEL" in refused.stderr
    done = CliRunner().invoke(app, [*words, "--degrade", "jpeg=70"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path}/export/manifest.csv: 3 images\n"


def test_a_missing_declaration_is_refused(tmp_path: Path, manifest: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"There is no file .*peer.yaml"):
        read_peers([str(tmp_path)], manifest)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x/1", "y/1"], r"The image .*2.png has no map in"),
        (["1", "y/2"], r"The map .*1.npy fits the images .*x/1.png and .*y/1.png"),
        (["x/1", "y/1", "1", "2"], r"The image .*x/1.png has the maps 1.npy and 1.npy"),
    ],
)
def test_maps_that_belong_to_no_one_image_are_refused(
    tmp_path: Path, manifest: pd.DataFrame, names: list[str], message: str
) -> None:
    for name in names:
        write(tmp_path / "peer", f"{name}.npy", VALUES)
    with pytest.raises(InputError, match=message):
        read_peers([declare(tmp_path / "peer")], manifest)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (2 * VALUES, "values from 0 to 2, but its image .* peer.yaml declares the range 0 to 1"),
        (np.full((HEIGHT, WIDTH), np.nan), "values from nan to nan"),
        (VALUES[:3], r"has the shape \(3, 8\) .* but its image .* is \(6, 8\)"),
        (VALUES[None], "one grey picture or one array"),
        (VALUES.astype(str), "one grey picture or one array"),
    ],
)
def test_a_map_that_is_not_as_declared_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, values: NDArray[np.generic], message: str
) -> None:
    for name in ("x/1", "y/1", "y/2"):
        write(tmp_path / "peer", f"{name}.npy", values)
    with pytest.raises(InputError, match=message):
        evaluate(*read_peers([declare(tmp_path / "peer")], manifest), manifest)


def test_of_several_arrays_the_declared_one_is_read(tmp_path: Path, manifest: pd.DataFrame) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "y/2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", probability=VALUES, mask=VALUES > 2)
    rows = evaluate(*read_peers([declare(folder, array="probability")], manifest), manifest)
    assert rows["iou"].tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="in an NPZ file, the one that is declared"):
        evaluate(*read_peers([declare(folder)], manifest), manifest)


def test_damaged_files_and_equal_names_are_refused(tmp_path: Path, manifest: pd.DataFrame) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "y/2"):
        write(folder, f"{name}.npz", VALUES)
    peers = [declare(folder)]
    for names, taken in ((peers * 2, ()), (peers, ("Peer", "noise"))):
        with pytest.raises(InputError, match="2 methods are called 'Peer'"):
            read_peers(names, manifest, taken)
    for content in (b"PK\x03\x04 and no more", claims(10**12), zipped(2 * 10**9)):
        (folder / "x" / "1.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"1.npz cannot be used"):
            evaluate(*read_peers(peers, manifest), manifest)


def claims(pixels: int) -> bytes:
    """An NPZ file whose array has a header that says more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (pixels, 1)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("map.npy", header.getvalue() + bytes(80))
    return file.getvalue()


def zipped(size: int) -> bytes:
    """An NPZ file that is small and unpacks to many zeros: so its directory says."""
    data = claims(1)
    start = data.index(b"PK\x01\x02") + 24  # the unpacked size, in the central directory
    return data[:start] + size.to_bytes(4, "little") + data[start + 4 :]


def test_a_small_file_that_takes_much_memory_is_refused_before_it_does(
    tmp_path: Path, manifest: pd.DataFrame
) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "y/2"):
        write(folder, f"{name}.npy", VALUES)
    peers = [declare(folder)]
    (folder / "x" / "1.npy").unlink()
    large = np.zeros((9000, 9000), np.uint8)
    np.savez_compressed(folder / "x" / "1.npz", large)
    with pytest.raises(InputError, match=r"1.npz cannot be used: .* of its image's size"):
        evaluate(*read_peers(peers, manifest), manifest)
    (folder / "x" / "1.npz").unlink()
    cv2.imwrite(str(folder / "x" / "1.png"), large)
    with pytest.raises(InputError, match=r"1.png cannot be used: .* of its image's size"):
        evaluate(*read_peers(peers, manifest), manifest)
    (folder / "x" / "1.png").unlink()
    (folder / "x" / "1.npy").write_bytes(b"\x93NUMPY\x01\x00\x04\x00{'a\n")
    with pytest.raises(InputError, match=r"1.npy cannot be used"):
        evaluate(*read_peers(peers, manifest), manifest)


def test_only_regular_files_are_maps(tmp_path: Path, manifest: pd.DataFrame) -> None:
    folder = tmp_path / "peer"
    for name in ("x/1", "y/1", "elsewhere/2"):
        write(folder, f"{name}.npy", VALUES)
    (folder / "elsewhere").rename(tmp_path / "elsewhere")
    peers = [declare(folder)]
    (folder / "y" / "again").symlink_to(folder / "y")
    os.mkfifo(folder / "y" / "2.npy")  # to read it would never end
    with pytest.raises(InputError, match=r"y/2.* has no map"):
        read_peers(peers, manifest)
    (folder / "y" / "2.npy").unlink()
    (folder / "y" / "2.npy").symlink_to(tmp_path / "elsewhere" / "2.npy")
    assert evaluate(*read_peers(peers, manifest), manifest)["iou"].tolist() == [1, 1, 1]


def test_published_numbers_are_called_so_and_have_a_source() -> None:
    """Against the authors' sheet of TGIF (arXiv:2407.11566), some of them."""
    table = pd.read_csv(ASSETS / "published.csv")
    assert list(table.select_dtypes("number")) == ["published_f1", "published_auc"]
    assert (table["source"].str.len() > 0).all()
    plain = table[table["degradation"] == "none"]
    assert len(plain) == 8 * 4 and plain["published_auc"].between(0.4, 1).all()
    scores = table.set_index(["method", "generator", "kind", "degradation"])["published_f1"]
    assert scores["TruFor", "SDXL", "fr", "none"] == 0.178
    assert scores["CAT-Net v2", "Photoshop", "sp", "none"] == 0.848
    assert scores["MMFusion", "SD2", "sp", "JPEG 60"] == 0.224
