"""Every adapter on a miniature of its dataset, and the sentence for each trap.

The numbers expected are counted from what `trees` writes: it says how many of each.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import trees
from PIL import Image

from dinolizer.data.checks import check_files
from dinolizer.data.datasets import DATASETS, make_manifest
from dinolizer.data.images import read_image, turn
from dinolizer.data.manifest import POLICIES, read_manifest, read_pair, target
from dinolizer.data.masks import read_mask
from dinolizer.errors import InputError
from dinolizer.paths import ROOT

# name: images, masks, pairs, and the images of each kind
FOUND = {
    # 4 photographs; 2 masks of each; pairs: 5 of the 6 versions
    "bfree": (28, 8, 20, {"real": 4, "reencoded": 8, "sp": 8, "fr": 8}),
    # 6 photographs: 4 authentic files, 10 fakes; masks: 4 spliced, 2 of 512, 1 of 1024, 1 random
    "tgif": (6 * 14, 6 * 8, 6 * 10, {"real": 6 * 4, "sp": 6 * 6, "fr": 6 * 4}),
    "cocoglide": (6, 3, 3, {"real": 3, "sp": 3}),
    "sagid": (9, 3, 6, {"real": 3, "sp": 3, "fr": 3}),
    "btb": (6, 6, 6, {"sp": 6}),
    "brgen": (9, 6, 6, {"real": 3, "fr": 6}),
    "opensdi": (18, 12, 12, {"real": 6, "fr": 12}),
    "autosplice": (9, 3, 6, {"real": 3, "sp": 6}),
    "magicbrush": (6, 3, 3, {"real": 3, "fr": 3}),
    "folder": (9, 6, 6, {"real": 3, "sp": 6}),
    "imdl": (6, 3, 3, {"real": 3, "sp": 3}),
    "csv": (6, 3, 3, {"real": 3, "sp": 3}),
}
ALONE = ("btb", "imdl", "csv")
WITH_ORIGINALS = [name for name in trees.MAKERS if name not in ALONE]
FOLDERS = [name for name in trees.MAKERS if name not in ("imdl", "csv")]


@pytest.fixture(scope="session", params=trees.MAKERS)
def miniature(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name) / "My Data sets"
    return name, trees.MAKERS[name](folder)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return trees.MAKERS[name](tmp_path / "data")

    return make


def refused(name: str, root: Path, out: Path) -> str:
    """The sentence with which a dataset is refused; nothing is written."""
    with pytest.raises(InputError) as caught:
        make_manifest(name, root, out)
    assert not out.exists()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def manifest(name: str, root: Path, out: Path) -> pd.DataFrame:
    make_manifest(name, root, out)
    return read_manifest(out)


def test_every_adapter_has_a_miniature() -> None:
    assert set(trees.MAKERS) == set(DATASETS) == set(FOUND)


def test_a_manifest_is_written_reported_and_fits_its_files(
    miniature: tuple[str, Path], tmp_path: Path
) -> None:
    name, root = miniature
    report = str(make_manifest(name, root, tmp_path / "out.csv"))
    images, masks, pairs, kinds = FOUND[name]
    title = {"csv": "mine", "folder": root.name}.get(name, name)
    assert report.splitlines()[0] == (
        f"{title}: {images} images, {masks} masks, {pairs} pairs of image and mask"
    )
    frame = read_manifest(tmp_path / "out.csv")
    assert Counter(frame["kind"]) == kinds
    check_files(frame)
    # Each row against its files, read again in full.
    for row in frame.to_dict("records"):
        image, mask = read_pair(row)
        assert image.shape[:2] == mask.shape == (row["height"], row["width"])
        edited = 0 if row["authentic"] else read_mask(row["mask"]).mean()
        assert row["area"] == pytest.approx(edited, abs=1e-12)
    without_partner = name in ("opensdi", *ALONE)
    assert ("polarity not checked" in report) == without_partner


@pytest.mark.parametrize("miniature", WITH_ORIGINALS, indirect=True)
def test_edits_and_masks_belong_together(miniature: tuple[str, Path], tmp_path: Path) -> None:
    """Of each edited image: all that is far from the authentic one lies inside its mask."""
    name, root = miniature
    frame = manifest(name, root, tmp_path / "out.csv")
    if name == "opensdi":
        frame = frame[frame["area"] < 1]
        frame["group"] = frame["group"].str.replace(r"/\w+/\w+/", "/", regex=True)
    if name == "tgif":  # by the size of the name
        size = frame["image"].str.extract(r"(512|1024)(?:_\d)?\.png$")[0].fillna("")
        flux = np.where(frame["image"].str.contains("flux"), "flux", "")
        frame["group"] += size + flux
    for _, rows in frame.groupby(["split", "group"]):
        (source,) = {row["image"] for row in rows.to_dict("records") if row["kind"] == "real"}
        for row in rows[~rows["authentic"]].to_dict("records"):
            image, mask = read_pair(row)
            change = np.abs(image.astype(int) - read_image(source)).max(axis=2)
            assert change[mask].mean() > 20
            # Auto-encoders of the miniatures are 3 levels off; JPEG blocks cross a mask's border.
            lossy = name in ("autosplice", "opensdi")
            assert (change[~mask] > (40 if lossy else 3)).mean() <= (0.05 if lossy else 0)


@pytest.mark.parametrize("name", FOLDERS)
def test_names_in_another_case_are_found(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy(name)
    images = make_manifest(name, root, tmp_path / "before.csv").images
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        if path.suffix != ".parquet":
            path.rename(path.with_name(path.name.swapcase()))
    assert make_manifest(name, root, tmp_path / "after.csv").images == images


PARQUET = ("opensdi", "magicbrush")  # whose files are found at any depth
NESTED = [name for name in FOLDERS if name not in PARQUET]


@pytest.mark.parametrize("name", NESTED)
def test_a_root_too_high_or_too_low_is_named(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy(name)
    message = refused(name, root.parent, tmp_path / "out.csv")
    assert "one level too high" in message and message.endswith(f"give {root}.")
    inside = next(path for path in sorted(root.iterdir()) if path.is_dir())
    message = refused(name, inside, tmp_path / "out.csv")
    assert "one level too low" in message and message.endswith(f"give {root}.")
    (tmp_path / "other" / "holiday").mkdir(parents=True)
    message = refused(name, tmp_path / "other", tmp_path / "out.csv")
    assert "holds holiday, but" in message and "is missing" in message
    assert "There is no folder" in refused(name, tmp_path / "none", tmp_path / "out.csv")


def masks_of(name: str, root: Path, tmp_path: Path) -> list[Path]:
    """Mask files of the tree that forged images use."""
    frame = manifest(name, root, tmp_path / "first.csv")
    (tmp_path / "first.csv").unlink()
    return sorted({Path(path) for path in frame.loc[~frame["authentic"], "mask"]})


MASKED = [name for name in trees.MAKERS if name not in (*PARQUET, "folder")]


@pytest.mark.parametrize("name", MASKED)
def test_a_missing_a_black_and_an_unreadable_mask_are_named(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy(name)
    mask = masks_of(name, root, tmp_path)[-1]
    pixels = np.asarray(Image.open(mask))
    trees.save(mask, np.zeros_like(pixels))
    message = refused(name, root, tmp_path / "out.csv")
    assert str(mask) in message and "is all black" in message
    mask.write_bytes(mask.read_bytes()[:60])
    assert str(mask) in refused(name, root, tmp_path / "out.csv")
    mask.unlink()
    message = refused(name, root, tmp_path / "out.csv")
    assert mask.name in message and "has no mask" in message
    # If incomplete may be, the images of this mask are left out and counted, and nothing else.
    report = make_manifest(name, root, tmp_path / "out.csv", incomplete=True)
    left_out = FOUND[name][0] - len(read_manifest(tmp_path / "out.csv"))
    assert left_out > 0
    assert f"{left_out} left out: images without their mask" in str(report)


@pytest.mark.parametrize("name", [name for name in WITH_ORIGINALS if name not in PARQUET])
def test_inverted_masks_are_refused_by_name(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy(name)
    masks = masks_of(name, root, tmp_path)
    for mask in masks:
        trees.save(mask, 255 - np.asarray(Image.open(mask)))
    message = refused(name, root, tmp_path / "out.csv")
    assert "looks inverted" in message
    assert any(str(mask) in message for mask in masks)


def test_bfree_masks_inverted_only_over_real_backgrounds_are_refused(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy("bfree")
    for path in root.glob("SD2.1_*"):
        if path.name != "SD2.1_selfconditioned_origBG":
            shutil.rmtree(path)
    for mask in (root / "mask").iterdir():
        trees.save(mask, 255 - np.asarray(Image.open(mask)))
    assert "looks inverted" in refused("bfree", root, tmp_path / "out.csv")


# What each folder of B-Free is, and so its label inside and outside of the mask, under each policy.
# pristine: inpainted 1; fake: inpainted and re-encoded 1; three-class: re-encoded 1, inpainted 2.
BFREE_LABELS = {
    "none": {"pristine": (None, 0), "fake": (None, 0), "three-class": (None, 0)},
    "SD2.1_selfconditioned": {"pristine": (None, 0), "fake": (None, 1), "three-class": (None, 1)},
    "SD2.1_selfconditioned_origBG": {"pristine": (0, 0), "fake": (1, 0), "three-class": (1, 0)},
    "SD2.1_inpainted_samecat": {"pristine": (1, 0), "fake": (1, 1), "three-class": (2, 1)},
    "SD2.1_inpainted_diffcat": {"pristine": (1, 0), "fake": (1, 1), "three-class": (2, 1)},
    "SD2.1_inpainted_samecat_origBG": {"pristine": (1, 0), "fake": (1, 0), "three-class": (2, 0)},
    "SD2.1_inpainted_diffcat_origBG": {"pristine": (1, 0), "fake": (1, 0), "three-class": (2, 0)},
}


def test_the_label_policies_of_bfree(copy: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy("bfree")
    frame = manifest("bfree", root, tmp_path / "out.csv")
    assert set(frame["generator"]) == set(BFREE_LABELS)
    for row in frame.to_dict("records"):
        _, mask = read_pair(row)
        # Which masks belong to a folder, from the files themselves.
        folder = row["generator"]
        name = Path(row["image"]).name
        uses = "bbox" if "diffcat" in folder else "mask"
        inside = np.asarray(Image.open(root / uses / name)) > 127
        for policy in POLICIES:
            labels = target(mask, row["kind"], row["background"], policy)
            expected_inside, outside = BFREE_LABELS[folder][policy]
            if expected_inside is None:
                assert (labels == outside).all()
            else:
                assert (labels[inside] == expected_inside).all(), (folder, policy)
                assert (labels[~inside] == outside).all(), (folder, policy)


def test_bfree_lists_decide_the_split_and_what_is_left_out(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy("bfree")
    shutil.rmtree(root / "SD2.1_selfconditioned")
    # As a spreadsheet writes it: without leading zeros, with a mark in front; one is not there.
    (root / "train_list.csv").write_text("id,class\n9,dog\n10,dog\n777,dog", encoding="utf-8-sig")
    report = make_manifest("bfree", root, tmp_path / "out.csv")
    frame = read_manifest(tmp_path / "out.csv")
    assert dict(frame.groupby("group")["split"].first()) == {
        "coco-000000000009": "train",
        "coco-000000000010": "train",
        "coco-000000000012": "valid",
    }
    assert report.left_out["images in none of the lists"] == 6  # photograph 11
    assert report.left_out["ids that are listed but not there"] == 1
    assert any("SD2.1_selfconditioned is absent" in note for note in report.notes)
    (root / "train_list.csv").write_text("id\n1\n")
    (root / "valid_list.csv").write_text("id\n2\n")
    message = refused("bfree", root, tmp_path / "other.csv")
    assert "24 images in none of the lists, 2 ids that are listed but not there" in message
    (root / "train_list.csv").write_text("name\n9\n")
    message = refused("bfree", root, tmp_path / "other.csv")
    assert "train_list.csv lacks the column 'id'; it has 'name'" in message
    (root / "train_list.csv").write_text("id\n000000000002.png\n")
    assert "is in both" in refused("bfree", root, tmp_path / "other.csv")


def test_tgif_pairs_by_name_and_keeps_a_photograph_in_one_split(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy("tgif")
    # The same COCO id in another category and split: what is tested is not trained on.
    first = root / "original" / "training" / "sports ball" / "1100_orig.png"
    again = root / "original" / "testing" / "hair drier" / "1100_orig.png"
    again.parent.mkdir(parents=True)
    shutil.copy(first, again)
    report = make_manifest("tgif", root, tmp_path / "out.csv")
    frame = read_manifest(tmp_path / "out.csv").set_index("image")
    row = frame.loc[str(root / "sd2-fr/testing/sports ball/1500_mask_segm.png_sd2-512_0.png")]
    assert row["mask"] == str(root / "masks/testing/sports ball/1500_mask_segm_512.png")
    assert (row["split"], row["group"], row["generator"]) == ("test", "coco-000000001500", "sd2")
    row = frame.loc[str(root / "ps-sp/training/dog/1000_mask_bbox.png_ps_0.png")]
    assert row["mask"] == str(root / "masks/training/dog/1000_mask_bbox.png_ps_mask.png")
    assert (row["kind"], row["background"], row["group"]) == ("sp", "real", "coco-000000001000")
    name = "1000_mask_bbox.png_ps_mask.png_flux1dev_0.png"
    row = frame.loc[str(root / "flux1dev-sp/training/dog" / name)]
    assert row["mask"] == str(root / "masks-flux/training/dog/1000_mask_bbox.png_ps_mask.png")
    row = frame.loc[str(root / "sdxl-fr-random/training/dog/1000_mask_random.png_sdxl-1024_0.png")]
    assert row["mask"] == str(root / "masks-random/training/dog/1000_mask_random_1024.png")
    assert row["generator"] == "sdxl"
    assert frame.index[frame["group"] == "coco-000000001100"].tolist() == [str(again)]
    # Of a photograph there are 4 authentic images and 10 fakes.
    assert report.left_out["images whose photograph is tested or validated on"] == 14


def test_cocoglide_is_paired_by_the_id_whatever_the_order_of_its_files(tmp_path: Path) -> None:
    frame = manifest("cocoglide", trees.make_cocoglide(tmp_path / "glide"), tmp_path / "out.csv")
    assert list(frame["group"]).count("coco-000000007000") == 2
    numbers = frame["group"].str.removeprefix("coco-00000000")
    ids = frame[["image", "mask"]].apply(lambda paths: paths.str.extract(r"(\d{4})(?!.*\d{4})")[0])
    assert (ids["image"] == numbers).all()
    assert (ids["mask"].dropna() == numbers[ids["mask"].notna()]).all()


def test_a_photograph_of_coco_has_one_name_in_all_datasets(tmp_path: Path) -> None:
    """Three datasets made of photograph 9; what is no photograph of COCO keeps its own name."""
    bfree, glide = trees.make_bfree(tmp_path / "bfree", number=2), tmp_path / "glide"
    trees.make_cocoglide(glide, number=1)
    for path in [*glide.rglob("*7000*")]:
        path.rename(path.with_name(path.name.replace("7000", "9")))
    region = trees.make_brgen(tmp_path / "regions", number=2)
    for path in [*region.rglob("*.png")]:
        other = path.name.replace("COCO_000000", "COCO_val2014_000000000009")
        path.rename(path.with_name(other.replace("COCO_000001", "ImageNet_000009")))
    sagid = trees.make_sagid(tmp_path / "sagid", number=1)
    groups = [
        set(manifest(name, root, tmp_path / f"{name}.csv")["group"])
        for name, root in [("bfree", bfree), ("cocoglide", glide), ("brgen", region)]
    ]
    nine, ten = "coco-000000000009", "coco-000000000010"
    assert groups == [{nine, ten}, {nine}, {nine, "ImageNet_000009"}]
    assert set(manifest("sagid", sagid, tmp_path / "s.csv")["group"]) == {"coco-000000000000"}


@pytest.mark.parametrize("prefix", ["", "sagid\\", "sagid/", ".\\sagid\\"])
def test_sagid_paths_are_found_with_and_without_prefix(prefix: str, tmp_path: Path) -> None:
    root = trees.make_sagid(tmp_path / "sagid", prefix=prefix)
    report = make_manifest("sagid", root, tmp_path / "out.csv")
    assert (report.images, report.pairs) == (9, 6)
    assert "6 masks have another size than their image: read resized" in report.notes
    assert set(read_manifest(tmp_path / "out.csv")["generator"]) == {
        "none",
        "brushnet",
        "brushnet+powerpaint",
    }
    # With the files below another folder "sagid".
    inner = root / "sagid"
    inner.mkdir()
    for part in ("train", "val", "test"):
        (root / part).rename(inner / part)
    assert make_manifest("sagid", root, tmp_path / "again.csv").images == 9
    shutil.rmtree(inner / "val")
    report = make_manifest("sagid", root, tmp_path / "less.csv")
    assert report.images == 6
    assert report.left_out["images that are listed but not there"] == 2


def test_sagid_refuses_a_table_of_another_kind(tmp_path: Path) -> None:
    root = trees.make_sagid(tmp_path / "sagid")
    table = pd.read_csv(root / "sagid.csv")
    table.drop(columns="mask_path").to_csv(root / "sagid.csv", index=False)
    assert "lacks the column 'mask_path'" in refused("sagid", root, tmp_path / "out.csv")
    table.assign(type="splice").to_csv(root / "sagid.csv", index=False)
    assert "Row 1 of" in refused("sagid", root, tmp_path / "out.csv")


def test_btb_finds_the_columns_whose_paths_exist(tmp_path: Path) -> None:
    root = trees.make_btb(tmp_path / "btb")
    before = manifest("btb", root, tmp_path / "before.csv")
    for path in root.glob("*.csv"):  # bare names, and no column of masks
        table = pd.read_csv(path)
        table["manipulated"] = [Path(name).name for name in table["manipulated"]]
        table.drop(columns="truth").to_csv(path, index=False)
    pd.testing.assert_frame_equal(manifest("btb", root, tmp_path / "after.csv"), before)
    table.drop(columns="manipulated").to_csv(path, index=False)
    message = refused("btb", root, tmp_path / "other.csv")
    assert "No column of" in message and "'prompt'" in message


def test_autosplice_takes_one_quality_and_counts_the_others(tmp_path: Path) -> None:
    root = trees.make_autosplice(tmp_path / "AutoSplice")
    report = make_manifest("autosplice", root, tmp_path / "out.csv")
    assert report.left_out["forged images of JPEG quality 90"] == 6
    frame = read_manifest(tmp_path / "out.csv")
    assert frame.loc[~frame["authentic"], "image"].str.contains("Forged_JPEG75").all()


def test_opensdi_extracts_its_images_and_binarises_its_masks(tmp_path: Path) -> None:
    root = trees.make_opensdi(tmp_path / "OpenSDI", number=1)
    frame = manifest("opensdi", root, tmp_path / "o" / "out.csv")
    assert Counter(frame["split"]) == {"train": 3, "test": 3}
    assert set(frame["generator"]) == {"none", "sd15"}
    images = tmp_path / "o" / "out-images"
    assert all(Path(path).is_relative_to(images) for path in frame["image"])
    scene = trees.Scene(0, 64)
    real = frame[frame["authentic"]].iloc[0]
    # Its own bytes, with the suffix of its format.
    assert Path(real["image"]).suffix == ".jpg"
    assert Path(real["image"]).read_bytes() == trees.encode(scene.photo, "JPEG")["bytes"]
    partial, entire = frame[~frame["authentic"]].iloc[0], frame[~frame["authentic"]].iloc[1]
    # Yellow, of mean 170, is inside; red, of mean 85, is not, though its box is larger.
    assert np.array_equal(read_mask(partial["mask"]), scene.mask > 127)
    assert entire["area"] == 1
    # The folder can be moved with its manifest.
    (tmp_path / "o").rename(tmp_path / "moved")
    check_files(read_manifest(tmp_path / "moved" / "out.csv"))


def test_magicbrush_takes_the_first_turn_from_parquet_and_from_folders(tmp_path: Path) -> None:
    inside = trees.make_magicbrush(tmp_path / "a")
    report = make_manifest("magicbrush", inside, tmp_path / "a.csv")
    assert report.left_out["later turns"] == 3
    folders = trees.make_magicbrush(tmp_path / "b", parquet=False)
    report = make_manifest("magicbrush", folders, tmp_path / "b.csv")
    assert report.left_out["later turns"] == 3
    a, b = read_manifest(tmp_path / "a.csv"), read_manifest(tmp_path / "b.csv")
    assert (a["split"].unique(), b["split"].unique()) == (["valid"], ["test"])
    for one, other in zip(a.to_dict("records"), b.to_dict("records"), strict=True):
        for first, second in zip(read_pair(one), read_pair(other), strict=True):
            assert np.array_equal(first, second)
        assert one["group"] == other["group"]
    scene = trees.Scene(0, 64)
    assert np.array_equal(read_mask(b.loc[1, "mask"]), scene.mask > 127)
    (folders / "test" / "images" / "500" / "500-mask1.png").unlink()
    assert "500-mask1.png" in refused("magicbrush", folders, tmp_path / "c.csv")


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a\0b", "x" * 300, "", "500"])
def test_no_id_of_magicbrush_leads_out_of_the_folder_or_to_another_mask(
    name: str, tmp_path: Path
) -> None:
    root = trees.make_magicbrush(tmp_path / "in")
    (path,) = root.rglob("*.parquet")
    rows = trees.pq.read_table(path).to_pylist()
    rows[2]["img_id"] = name  # the first turn of the second session; the first one's is 500
    trees.pq.write_table(trees.pa.Table.from_pylist(rows), path)
    assert "which must be a name, and of one session" in refused(
        "magicbrush", root, tmp_path / "x.csv"
    )
    made = make_manifest("magicbrush", root, tmp_path / "out" / "m.csv", incomplete=True)
    assert made.left_out["rows whose cells cannot be read"] == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out", "x-images"}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_files_that_are_cut_short_or_of_another_kind_are_named(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy(name)
    path = sorted(root.rglob("*.parquet"))[0]
    table = trees.pq.read_table(path)
    trees.pq.write_table(table.drop_columns(table.column_names[-1]), path)
    assert "lacks the column" in refused(name, root, tmp_path / "out.csv")
    schema = table.schema
    text = next(name for name in schema.names if schema.field(name).type == "string")
    bad = trees.pa.array([b"\xff"] * len(table)).cast("string", safe=False)
    at = schema.names.index(text)
    trees.pq.write_table(table.set_column(at, text, bad), path)
    assert f"{path} cannot be read as parquet" in refused(name, root, tmp_path / "out.csv")
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path} cannot be read as parquet" in refused(name, root, tmp_path / "out.csv")
    shutil.rmtree(root)
    (root / "data").mkdir(parents=True)
    message = refused(name, root, tmp_path / "out.csv")
    assert str(root) in message


def test_pictures_of_ones_own_are_paired_by_name_and_split_by_photograph(tmp_path: Path) -> None:
    root = trees.make_folder(tmp_path / "mine", number=10)
    (root / "images/9.jpg").write_bytes((root / "images/model/9.png").read_bytes())
    (root / "masks/9.png").write_bytes((root / "masks/model/9.png").read_bytes())
    report = str(make_manifest("folder", root, tmp_path / "out.csv"))
    assert "10 without a mask: authentic" in report
    assert "photographs, by their names: 6 train, 2 valid, 2 test" in report  # 3, 1 and 1 of 5
    frame = read_manifest(tmp_path / "out.csv")
    assert Counter(frame["generator"]) == {"none": 10, "editor": 10, "model": 10, "unknown": 1}
    assert set(frame["dataset"]) == {"mine"} and set(frame["kind"]) == {"real", "sp"}
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    assert set(frame["group"]) == {f"mine/{number}" for number in range(10)}
    # In another folder, with other makers: a photograph's split depends on the names alone.
    again = manifest("folder", trees.make_folder(tmp_path / "b", number=10), tmp_path / "b.csv")
    photos = [of["group"].str.rpartition("/")[2] for of in (frame, again)]
    first, second = (
        dict(zip(names, of["split"], strict=True))
        for names, of in zip(photos, (frame, again), strict=True)
    )
    assert first == second
    shutil.copy(root / "masks/9.png", root / "masks/other.png")
    message = refused("folder", root, tmp_path / "c.csv")
    assert f"{root / 'masks/other.png'} is the mask of no image" in message
    shutil.copy(root / "images/9.jpg", root / "images/9.webp")
    assert "have one name" in refused("folder", root, tmp_path / "c.csv")


def test_a_csv_of_ones_own_keeps_what_it_says(tmp_path: Path) -> None:
    path = trees.make_csv(tmp_path / "mine")
    frame = manifest("csv", path, tmp_path / "out.csv")
    assert set(frame["dataset"]) == {"mine"} and set(frame["split"]) == {"test"}
    assert set(frame["camera"]) == {"X1"}  # a further column
    path.write_text("image,mask,kind,generator,split,group\nTp/0.png,Gt/0.png,fr,sdxl,train,a\n")
    row = manifest("csv", path, tmp_path / "two.csv").iloc[0]
    assert (row["kind"], row["background"], row["generator"]) == ("fr", "reencoded", "sdxl")
    assert (row["split"], row["group"], row["dataset"]) == ("train", "a", "mine")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image;mask\nTp/0.png;Gt/0.png\n", "lacks the column 'image'; it has 'image;mask'"),
        ("image,truth\nTp/0.png,Gt/0.png\n", "lacks the column 'mask'; it has 'image', 'truth'"),
        ("image,mask\n", "has no rows"),
        ("", "cannot be read as CSV"),
        ("image,mask\nTp/9.png,\n", "There is no file"),
        ("image,mask\nTp/0.png,\nTp/0.png,\n", "twice"),
        ("image,mask,kind\nTp/0.png,Gt/0.png,splice\n", "kind must be one of"),
        (
            "image,mask,group,split\nTp/0.png,Gt/0.png,a,train\nAu/0.png,,a,test\n",
            "The photo 'a' is in the splits",
        ),
    ],
)
def test_a_csv_that_cannot_be_used_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = trees.make_csv(tmp_path / "mine")
    path.write_text(text)
    assert says in refused("csv", path, tmp_path / "out.csv")


@pytest.mark.parametrize("text", ["{}", "[[1, 2]]", '[["a.png"]]', "[", '["ab"]'])
def test_a_json_of_another_form_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = trees.make_imdl(tmp_path / "mine")
    path.write_text(text)
    assert "must be a JSON list of pairs" in refused("imdl", path, tmp_path / "out.csv")


def test_what_was_given_wrong_is_one_sentence(tmp_path: Path) -> None:
    root = trees.make_cocoglide(tmp_path / "glide")
    out = tmp_path / "out.csv"
    assert "'cocoglyde', but it must be one of ['bfree'" in refused("cocoglyde", root, out)
    assert "There is no folder" in refused("cocoglide", tmp_path / "no", out)
    assert "must end in .csv" in refused("cocoglide", root, tmp_path / "out.txt")
    assert "cannot be made" in refused("cocoglide", root, root / "table.csv" / "out.csv")


def test_rows_of_parquet_files_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    good = {"key": "partial/a", "image": trees.encode(trees.Scene(0, 64).photo), "label": 1}
    good |= {"mask": trees.encode(trees.Scene(0, 64).mask)}
    cut = {"bytes": bytes(good["image"]["bytes"])[:-60], "path": None}
    path = tmp_path / "set" / "sd3-0.parquet"
    path.parent.mkdir()
    for bad in ({"image": cut}, {"image": None}, {"label": None}, {"mask": cut}):
        table = trees.pa.Table.from_pylist([good | bad, good])
        trees.pq.write_table(table, path)
        assert f"{path}, row 0" in refused("opensdi", path.parent, tmp_path / "out.csv")
        report = make_manifest("opensdi", path.parent, tmp_path / "out.csv", incomplete=True)
        assert (report.images, report.left_out["rows whose cells cannot be read"]) == (1, 1)
        (tmp_path / "out.csv").unlink()


def test_an_image_in_a_cell_has_the_bounds_of_one_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 x 64 pixels, where 1,000 are the most."""
    scene = trees.Scene(0, 64)
    row = {"key": "partial/a", "label": 1}
    row |= {"image": trees.encode(scene.photo), "mask": trees.encode(scene.mask)}
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "sd3-0.parquet"
    trees.pq.write_table(trees.pa.Table.from_pylist([row]), path)
    monkeypatch.setattr("dinolizer.data.images.MAX_PIXELS", 1000)
    assert f"{path}, row 0" in refused("opensdi", path.parent, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([["Tp/0.png", "Gt/0.png"], ["./Tp/0.png", "Negative"]], "twice"),
        ([["ManiDataset", "/data/CASIA2"]], "a protocol that names datasets"),
        ([["\ud800.png", "Negative"]], "surrogates not allowed"),
    ],
)
def test_a_json_list_that_contradicts_itself_or_lists_no_pictures_is_refused(
    pairs: list[list[str]], says: str, tmp_path: Path
) -> None:
    path = trees.make_imdl(tmp_path / "mine")
    path.write_text(json.dumps(pairs))
    assert says in refused("imdl", path, tmp_path / "out.csv")


def test_sagid_rows_may_lack_the_source_but_not_the_mask(tmp_path: Path) -> None:
    root = trees.make_sagid(tmp_path / "sagid")
    table = pd.read_csv(root / "sagid.csv")
    table.assign(src_path="").to_csv(root / "sagid.csv", index=False)
    frame = manifest("sagid", root, tmp_path / "out.csv")
    assert frame["group"].nunique() == 6  # each image is its own
    table.assign(mask_path="").to_csv(root / "sagid.csv", index=False)
    assert "no mask is listed" in refused("sagid", root, tmp_path / "other.csv")


def test_files_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    root = trees.make_autosplice(tmp_path / "set")
    (root / "Forged_JPEG75" / "Thumbs.db").touch()
    (root / "README.md").touch()
    (root / "readme.md").touch()
    assert make_manifest("autosplice", root, tmp_path / "out.csv").images == FOUND["autosplice"][0]


def test_two_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    root = trees.make_cocoglide(tmp_path / "glide")
    first = next((root / "real").iterdir())
    shutil.copy(first, first.with_name(first.name.upper()))
    assert "differ only in case" in refused("cocoglide", root, tmp_path / "out.csv")


def test_the_readme_of_the_data_has_every_dataset_and_its_terms() -> None:
    text = (ROOT / "data" / "README.md").read_text()
    assert re.findall(r"^### (\w+)$", text, re.M) == list(DATASETS)
    for name in DATASETS:
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert f"dinolizer manifest {name} " in section
        # Name, title, number of images and licence.
        assert re.search(rf"^\| \[{name}\]\(#{name}\)( \| [^|]+){{3}} \|$", text, re.M)


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_masks_whose_black_is_the_edit_are_inverted_when_asked(
    orientation: int, tmp_path: Path
) -> None:
    """A list of a photograph, its edit and a mask, all turned alike, and a mask for both."""
    scene, exif = trees.Scene(0, 64), trees.Image.Exif()
    exif[0x0112] = orientation
    trees.save(tmp_path / "real.png", scene.photo[:48], exif=exif)
    trees.save(tmp_path / "edit.png", scene.edited(scene.photo)[:48], exif=exif)
    trees.save(tmp_path / "mask.png", 255 - scene.mask[:48])
    (tmp_path / "own.csv").write_text("image,mask,source\nedit.png,mask.png,real.png\n")
    assert "looks inverted" in refused("csv", tmp_path / "own.csv", tmp_path / "out.csv")
    report = make_manifest("csv", tmp_path / "own.csv", tmp_path / "out.csv", invert=True)
    assert "polarity as expected in the 1 pairs compared" in str(report)
    row = read_manifest(tmp_path / "out.csv").iloc[0]
    assert Path(row["mask"]).parent == tmp_path / "out-images"
    stored = np.asarray(trees.Image.open(row["mask"]))
    np.testing.assert_array_equal(stored, scene.mask[:48])
    np.testing.assert_array_equal(read_pair(row)[1], turn(stored > 0, orientation))
    np.testing.assert_array_equal(trees.Image.open(tmp_path / "mask.png"), 255 - scene.mask[:48])
