"""Datasets whose folders and file names say what belongs together; see data/README.md."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dinolizer.data.datasets.rows import SPLITS, Report, Row, Tree
from dinolizer.data.files import read_table
from dinolizer.data.manifest import coco_group
from dinolizer.errors import InputError

BFREE_REAL = "COCO_real_512"
BFREE_FOLDERS = {
    BFREE_REAL: ("", "real", "real"),
    "SD2.1_selfconditioned": ("", "reencoded", "reencoded"),
    "SD2.1_selfconditioned_origBG": ("mask", "reencoded", "real"),
    "SD2.1_inpainted_samecat": ("mask", "fr", "reencoded"),
    "SD2.1_inpainted_samecat_origBG": ("mask", "sp", "real"),
    "SD2.1_inpainted_diffcat": ("bbox", "fr", "reencoded"),
    "SD2.1_inpainted_diffcat_origBG": ("bbox", "sp", "real"),
}
"""Folder to its masks' folder, its kind and its background. The generator is the folder's name."""
BFREE_LISTS = {"train_list.csv": "train", "valid_list.csv": "valid"}

TGIF = r"(?P<top>[^/]+)/(?P<split>[^/]+)/(?P<category>[^/]+)/(?P<name>[^/]+)"
TGIF_FAKE = re.compile(
    r"(?P<id>\d+)_mask_(?P<type>bbox|segm|random)\.png"
    r"_(?:(?P<spliced>ps)_mask\.png_[^_]+|ps|.+-(?P<size>512|1024))_\d+\.png"
)
"""The three forms of names: spliced, by Photoshop, and of a crop of a size."""
TGIF_AUTHENTIC = re.compile(r"(?P<id>\d+)_orig(?:_(?:512|1024))?\.png")

TURNS = ("test", "valid", "train", "train", "train")
"""Splits that photographs of one's own get in turn."""


def bfree(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of the B-Free training set; absent folders are noted, unlisted images out."""

    def plain(name: str) -> str:
        """Of '9', '000000000009' and '000000000009.png', all of which a list may name."""
        return Path(name).name.removesuffix(".png").lstrip("0") or "0"

    split_of: dict[str, str] = {}
    for name, split in BFREE_LISTS.items():
        for listed in read_table(tree.path(name), ["id"])["id"]:
            if split_of.setdefault(plain(listed), split) != split:
                raise InputError(f"The id {listed} is in both lists of {tree.root}; give it once.")
    present = set()
    for folder, (masks, kind, background) in BFREE_FOLDERS.items():
        files = list(tree.match(f"{re.escape(folder)}/(.+)"))
        if not files:
            report.notes.append(f"the folder {folder} is absent or empty")
        for path, named in files:
            name, group = named[1].casefold(), plain(named[1].casefold())
            if group not in split_of:
                report.left_out["images in none of the lists"] += 1
                continue
            present.add(group)
            mask = tree.path(masks, name) if masks else ""
            source, generator = tree.get(BFREE_REAL, name), "none" if kind == "real" else folder
            photo, split = coco_group(group), split_of[group]
            yield Row(path, split, photo, mask, generator, kind, source, background)
    report.left_out["ids that are listed but not there"] += len(split_of.keys() - present)


def tgif(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of TGIF, of TGIF2, or of as much of them as there is."""
    for key, path in tree.files.items():
        at = re.fullmatch(TGIF, key)
        if at is None or at["split"] not in SPLITS:
            report.left_out["files that are not in <what>/<split>/<category>"] += 1
            continue
        if at["top"].startswith("masks"):
            continue
        kind = next((kind for kind in ("sp", "fr") if kind in at["top"].split("-")), "")
        name = (TGIF_FAKE if kind else TGIF_AUTHENTIC).fullmatch(at["name"])
        if name is None:
            report.left_out["images of another name, such as crop windows"] += 1
            continue
        split, group = SPLITS[at["split"]], coco_group(name["id"])
        if not kind:
            yield Row(path, split, group)
            continue
        # Folders made for FLUX or for random masks, if there are, and then the common ones.
        ends = [*(f"-{word}" for word in ("flux", "random") if word in at["top"]), ""]
        size = f"_{name['size']}" if name["size"] else ""
        file = f"{name['id']}_mask_{name['type']}{size or '.png_ps_mask'}.png"
        names = (at["split"], at["category"], file)
        mask = tree.first([f"masks{end}" for end in ends], *names) or tree.path("masks", *names)
        tops = [top + end for end in ends for top in ("orig", "original")]
        source = tree.first(tops, *names[:2], f"{name['id']}_orig{size}.png")
        generator = at["top"].partition(f"-{kind}")[0]
        yield Row(path, split, group, mask, generator, kind, source)


def cocoglide(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of CocoGlide, paired by the COCO id that ends every name."""
    real, fake, mask = (
        {named[1]: path for path, named in tree.match(rf"{folder}/(?:.*\D)?(\d+)(_up|_mask)?\.png")}
        for folder in ("real", "fake", "mask")
    )
    report.left_out["pairs of which an image is not there"] += len(real.keys() ^ fake.keys())
    for photo in real.keys() & fake.keys():
        edited = mask.get(photo) or tree.path("mask", f"{Path(real[photo]).stem}_mask.png")
        group = coco_group(photo)
        yield Row(real[photo], "test", group)
        yield Row(fake[photo], "test", group, edited, "glide", "sp", real[photo])


def brgen(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of BR-Gen's validation tree; its raw tree is not documented."""
    authentic = tree.stems("Au")
    for path in authentic.values():
        yield Row(path, "test", coco_group(Path(path).stem))
    name = r"(?:(?P<method>.+?)_(?:stuff|background)_)?(?P<photo>.+)"
    for path, named in tree.match(rf"Tp/(?P<stem>{name})\.\w+"):
        mask = tree.path("Gt", f"{named['stem']}_mask.png")
        source, method = authentic.get(named["photo"].casefold(), ""), named["method"] or "unknown"
        yield Row(path, "test", coco_group(named["photo"]), mask, method, "fr", source)


def autosplice(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of AutoSplice, of forged images those of JPEG quality 75."""
    authentic = tree.stems("Authentic")
    for path in authentic.values():
        yield Row(path, "test", f"autosplice/{Path(path).stem.partition('_')[0]}")
    for path, named in tree.match(r"Forged_JPEG(\d+)/.+"):
        if named[1] != "75":
            report.left_out[f"forged images of JPEG quality {named[1]}"] += 1
            continue
        photo = Path(path).stem.partition("_")[0]
        mask, source = tree.path("Mask", f"{photo}_mask.png"), authentic.get(photo.casefold(), "")
        yield Row(path, "test", f"autosplice/{photo}", mask, "dall-e-2", "sp", source)


def paired_folders(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of pictures of one's own, in ``images`` with their masks in ``masks``."""
    report.dataset = tree.root.name
    files: dict[str, dict[str, str]] = {"images": {}, "masks": {}}
    for path, named in tree.match(r"(images|masks)/(.+)\.(?!csv$|parquet$)\w+"):
        other = files[named[1].casefold()].setdefault(named[2].casefold(), path)
        if other != path:
            raise InputError(f"{other} and {path} have one name; rename one, and its mask.")
    masks = files["masks"]
    for name in masks.keys() - files["images"].keys():
        alike = "name both alike, as images/cat.jpg and masks/cat.png"
        report.fault("masks of no image", f"{masks[name]} is the mask of no image; {alike}.")
    photos = {name.rpartition("/")[2] for name in files["images"]}
    ordered = sorted(photos, key=lambda photo: hashlib.sha256(photo.encode()).digest())
    split_of = {photo: TURNS[turn % len(TURNS)] for turn, photo in enumerate(ordered)}
    for name, path in files["images"].items():
        folder, _, photo = name.rpartition("/")
        row = Row(path, split_of[photo], f"{tree.root.name}/{photo}")
        made = folder.partition("/")[0] or "unknown"
        yield row._replace(mask=masks[name], generator=made, kind="sp") if name in masks else row
    counts = Counter(split_of.values())
    shares = ", ".join(f"{counts[split]} {split}" for split in dict.fromkeys(TURNS[::-1]))
    report.notes.append(f"{len(files['images'].keys() - masks.keys())} without a mask: authentic")
    report.notes.append(f"photographs, by their names: {shares}")
