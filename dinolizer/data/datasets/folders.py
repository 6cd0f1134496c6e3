"""Datasets whose folders and file names say what belongs together; see data/README.md."""

import re
from collections.abc import Iterator
from pathlib import Path

from dinolizer.data.datasets.rows import Report, Row, real_row
from dinolizer.data.datasets.tree import SPLITS, Tree
from dinolizer.data.files import read_table
from dinolizer.errors import InputError

BFREE_REAL = "COCO_real_512"
BFREE_FOLDERS = {
    "SD2.1_selfconditioned": ("", "reencoded", "reencoded"),
    "SD2.1_selfconditioned_origBG": ("mask", "reencoded", "real"),
    "SD2.1_inpainted_samecat": ("mask", "fr", "reencoded"),
    "SD2.1_inpainted_samecat_origBG": ("mask", "sp", "real"),
    "SD2.1_inpainted_diffcat": ("bbox", "fr", "reencoded"),
    "SD2.1_inpainted_diffcat_origBG": ("bbox", "sp", "real"),
}
"""Folder to its masks' folder, its kind and its background. The generator is the folder's name."""
BFREE_LISTS = ("train_list.csv", "valid_list.csv")

TGIF_FAKE = re.compile(
    r"(?P<id>\d+)_mask_(?P<type>bbox|segm|random)\.png"
    r"_(?:(?P<spliced>ps)_mask\.png_[^_]+|ps|.+-(?P<size>512|1024))_\d+\.png"
)
"""The three forms of names: spliced, by Photoshop, and of a crop of a size."""
TGIF_AUTHENTIC = re.compile(r"(?P<id>\d+)_orig(?:_(?:512|1024))?\.png")
TGIF_LAYOUT = re.compile(r"(?P<top>[^/]+)/(?P<split>[^/]+)/(?P<category>[^/]+)/(?P<name>[^/]+)")
TGIF_KINDS = {"sp": ("sp", "real"), "fr": ("fr", "reencoded")}

COCO_ID = re.compile(r"(\d+)(?:_up|_mask)?\.png")
BRGEN_NAME = re.compile(r"(?P<method>.+?)_(?:stuff|background)_(?P<photo>.+)", re.IGNORECASE)
AUTOSPLICE_QUALITIES = ("75", "90", "100")


def bfree(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of the B-Free training set; absent folders are noted, unlisted images left out.
    White is taken to mark the change: the polarity check decides."""
    # The lists may name '9', '000000000009' or '000000000009.png': compare without these.
    split_of: dict[str, str] = {}
    for split, name in zip(("train", "valid"), BFREE_LISTS, strict=True):
        for listed in read_table(tree.path(name), ["id"])["id"]:
            if split_of.setdefault(_bfree_id(listed), split) != split:
                raise InputError(
                    f"The id {listed} is in both {' and '.join(BFREE_LISTS)} of "
                    f"{tree.root}; each photograph must be in one."
                )
    present = set()
    for folder in (BFREE_REAL, *BFREE_FOLDERS):
        files = dict(tree.under(folder))
        if not files:
            report.notes.append(f"the folder {folder} is absent or empty")
        for name, path in files.items():
            group = _bfree_id(name)
            if group not in split_of:
                report.left_out["images in none of the lists"] += 1
                continue
            present.add(group)
            if folder == BFREE_REAL:
                yield real_row(path, split_of[group], group)
                continue
            masks, kind, background = BFREE_FOLDERS[folder]
            mask, source = tree.path(masks, name) if masks else "", tree.get(BFREE_REAL, name)
            yield Row(path, mask, folder, kind, background, split_of[group], group, source)
    report.left_out["ids that are listed but not there"] += len(split_of.keys() - present)


def _bfree_id(listed: str) -> str:
    return listed.rpartition("/")[2].removesuffix(".png").lstrip("0") or "0"


def tgif(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of TGIF, of TGIF2, or of as much of them as there is. The generator comes
    before ``-sp`` or ``-fr`` in a folder's name; the group is category and id, as some photographs
    are in several categories."""
    splits_of_id: dict[str, set[str]] = {}
    for key, path in tree.files.items():
        at = TGIF_LAYOUT.fullmatch(key)
        if at is None or at["split"] not in SPLITS:
            report.left_out["files that are not in <what>/<split>/<category>"] += 1
            continue
        if at["top"].startswith("masks"):
            continue
        kind = next((kind for kind in TGIF_KINDS if kind in at["top"].split("-")), None)
        name = (TGIF_FAKE if kind else TGIF_AUTHENTIC).fullmatch(at["name"])
        if name is None:
            report.left_out["images of another name, such as crop windows"] += 1
            continue
        split, group = SPLITS[at["split"]], f"{at['category']}/{name['id']}"
        splits_of_id.setdefault(name["id"], set()).add(split)
        if kind is None:
            yield real_row(path, split, group)
            continue
        size = f"_{name['size']}" if name["size"] else ""
        mask_name = f"{name['id']}_mask_{name['type']}{size or '.png_ps_mask'}.png"
        folder = (at["split"], at["category"])
        mask = _tgif_path(tree, at["top"], ("masks",), (*folder, mask_name))
        source_name = f"{name['id']}_orig{size}.png"
        source = _tgif_path(tree, at["top"], ("orig", "original"), (*folder, source_name))
        generator = at["top"].partition(f"-{kind}")[0]
        mask = mask or tree.path("masks", *folder, mask_name)
        yield Row(path, mask, generator, *TGIF_KINDS[kind], split, group, source)
    shared = sum(len(splits) > 1 for splits in splits_of_id.values())
    if shared:
        report.notes.append(f"{shared} photographs are in several splits, in other categories")


def _tgif_path(tree: Tree, top: str, folders: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Path in the folder made for FLUX or for random masks, if it has one, or in the common one."""
    suffixes = [f"-{word}" for word in ("flux", "random") if word in top]
    special = [folder + suffix for suffix in suffixes for folder in (*folders, "original")]
    return next((path for folder in (*special, *folders) if (path := tree.get(folder, *names))), "")


def cocoglide(tree: Tree, report: Report) -> Iterator[Row]:
    """Give the rows of CocoGlide, paired by the COCO id that ends every name."""
    real, fake, mask = (
        {named[1]: path for name, path in tree.under(folder) if (named := COCO_ID.search(name))}
        for folder in ("real", "fake", "mask")
    )
    report.left_out["pairs of which an image is not there"] += len(real.keys() ^ fake.keys())
    for group in real.keys() & fake.keys():
        missing = tree.path("mask", f"{Path(real[group]).stem}_mask.png")
        marked = mask.get(group, missing)
        yield real_row(real[group], "test", group)
        yield Row(fake[group], marked, "glide", "sp", "real", "test", group, real[group])


def brgen(tree: Tree, report: Report, split: str = "test") -> Iterator[Row]:
    """Give the rows of BR-Gen's validation tree; its raw tree is not documented. That the whole
    image went through the generator is our reading, the weaker claim of the two."""
    authentic = tree.stems("Au")
    for path in authentic.values():
        yield real_row(path, split, Path(path).stem)
    for _, path in tree.under("Tp"):
        stem = Path(path).stem
        name = BRGEN_NAME.fullmatch(stem)
        method, photo = (name["method"], name["photo"]) if name else ("unknown", stem)
        mask, source = tree.path("Gt", f"{stem}_mask.png"), authentic.get(photo.casefold(), "")
        yield Row(path, mask, method, "fr", "reencoded", split, photo, source)


def autosplice(
    tree: Tree, report: Report, quality: str = "75", split: str = "test"
) -> Iterator[Row]:
    """Give the rows of AutoSplice, with the forged images of one JPEG quality: 75 is that of the
    authentic ones; with 90 or 100 the format alone tells which are forged."""
    if str(quality) not in AUTOSPLICE_QUALITIES:
        names = ", ".join(AUTOSPLICE_QUALITIES)
        raise InputError(f"quality is {quality!r}, but it must be one of {names}.")
    authentic = tree.stems("Authentic")
    for path in authentic.values():
        yield real_row(path, split, Path(path).stem.partition("_")[0])
    for other in AUTOSPLICE_QUALITIES:
        for _, path in tree.under(f"Forged_JPEG{other}"):
            if other != str(quality):
                report.left_out[f"forged images of JPEG quality {other}"] += 1
                continue
            photo = Path(path).stem.partition("_")[0]
            mask, source = tree.path("Mask", f"{photo}_mask.png"), authentic.get(photo.casefold())
            yield Row(path, mask, "dall-e-2", "sp", "real", split, photo, source or "")
