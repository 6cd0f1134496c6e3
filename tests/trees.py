"""Miniatures of the public datasets in their real layouts, consistent in their pixels.

``number`` is how many photographs a miniature has and ``side`` their side in pixels. What is inside
a mask differs from the photograph; of a splice nothing else does, and of a re-generated image all
does, but less.
"""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class Scene:
    """A photograph, a mask of an edit, and what generators make of them."""

    def __init__(self, seed: int, side: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.photo = self._noise(side, 6)
        self.mask = np.zeros((side, side), np.uint8)
        top, left = self.rng.integers(side // 8, side // 2, 2)
        self.mask[top : top + side // 3, left : left + side // 3] = 255
        self.box = cv2.dilate(self.mask, np.ones((5, 5), np.uint8))

    def _noise(self, side: int, sigma: float) -> Pixels:
        """Smooth colour noise with fine grain: the spectrum of a photograph, roughly."""
        smooth = cv2.GaussianBlur(self.rng.normal(0, 1, (side, side, 3)), (0, 0), sigma)
        grain = self.rng.normal(0, 4, (side, side, 3))
        return np.clip(128 + 40 * smooth / smooth.std() + grain, 8, 247).astype(np.uint8)

    def reencoded(self) -> Pixels:
        """The photograph as an auto-encoder returns it: a few levels off everywhere."""
        return (self.photo + self.rng.integers(1, 4, self.photo.shape)).astype(np.uint8)

    def edited(self, background: Pixels, mask: Pixels | None = None) -> Pixels:
        """New content inside the mask, over a background."""
        inside = (self.mask if mask is None else mask) > 127
        return np.where(inside[..., None], 255 - self._noise(len(background), 3), background)


def save(path: Path, pixels: Pixels, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def encode(pixels: Pixels, kind: str = "PNG") -> dict[str, object]:
    """An image as the cell of a parquet file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def scenes(number: int, side: int) -> Iterable[tuple[int, Scene]]:
    return ((seed, Scene(seed, side)) for seed in range(number))


def make_bfree(root: Path, number: int = 4, side: int = 64) -> Path:
    """``number`` photographs with six versions each; the last quarter is for validation."""
    ids = []
    for seed, scene in scenes(number, side):
        name = f"{seed + 9:012d}.png"
        ids.append(Path(name).stem)
        real, box = scene.photo, scene.box
        versions = {
            "COCO_real_512": real,
            "mask": scene.mask,
            "bbox": box,
            "SD2.1_selfconditioned": scene.reencoded(),
            "SD2.1_selfconditioned_origBG": np.where(
                scene.mask[..., None] > 127, scene.reencoded(), real
            ),
            "SD2.1_inpainted_samecat": scene.edited(scene.reencoded()),
            "SD2.1_inpainted_samecat_origBG": scene.edited(real),
            "SD2.1_inpainted_diffcat": scene.edited(scene.reencoded(), box),
            "SD2.1_inpainted_diffcat_origBG": scene.edited(real, box),
        }
        for folder, pixels in versions.items():
            save(root / folder / name, pixels)
    held_out = max(1, number // 4)
    for name, some in (("train", ids[:-held_out]), ("valid", ids[-held_out:])):
        pd.DataFrame({"id": some}).to_csv(root / f"{name}_list.csv", index=False)
    return root


def make_tgif(root: Path, number: int = 1, side: int = 64) -> Path:
    """``number`` photographs in each of three splits and two categories, with 10 fakes each."""
    places = [
        (split, category)
        for split in ("training", "validation", "testing")
        for category in ("dog", "sports ball")
    ]
    for place, (split, category) in enumerate(places):
        for seed, scene in scenes(number, side):
            scene = Scene(100 * place + seed, side)
            crop = Scene(100 * place + seed + 50, side)  # the 512 and 1024 crops: other pixels
            photo_id = 1000 + 100 * place + seed
            at = Path(split, category)
            save(root / "original" / at / f"{photo_id}_orig.png", scene.photo)
            save(root / "original-flux" / at / f"{photo_id}_orig.png", scene.photo[2:-2])
            for size in ("512", "1024"):
                save(root / "original" / at / f"{photo_id}_orig_{size}.png", crop.photo)
                # The window of the crop, which is no forgery mask.
                save(root / "masks" / at / f"{photo_id}_mask_{size}.png", crop.box)
            for shape in ("bbox", "segm"):
                stem = f"{photo_id}_mask_{shape}"
                save(root / "masks" / at / f"{stem}.png_ps_mask.png", scene.mask)
                save(root / "masks-flux" / at / f"{stem}.png_ps_mask.png", scene.mask[2:-2])
                for size in ("512", "1024"):
                    save(root / "masks" / at / f"{stem}_{size}.png", crop.mask)
                splice = scene.edited(scene.photo)
                save(root / "sd2-sp" / at / f"{stem}.png_ps_mask.png_sd2_0.png", splice)
                save(root / "ps-sp" / at / f"{stem}.png_ps_0.png", splice)
                flux = root / "flux1dev-sp" / at / f"{stem}.png_ps_mask.png_flux1dev_0.png"
                save(flux, splice[2:-2])
                again = crop.edited(crop.reencoded())
                save(root / "sd2-fr" / at / f"{stem}.png_sd2-512_0.png", again)
            stem = f"{photo_id}_mask_random"
            save(root / "masks-random" / at / f"{stem}_1024.png", crop.mask)
            again = crop.edited(crop.reencoded())
            save(root / "sdxl-fr-random" / at / f"{stem}.png_sdxl-1024_0.png", again)
            stem = f"{photo_id}_mask_segm"
            save(root / "sdxl-fr" / at / f"{stem}.png_sdxl-1024_0.png", again)
    return root


def make_cocoglide(root: Path, number: int = 3, side: int = 64, table: bool = True) -> Path:
    lines = []
    for seed, scene in scenes(number, side):
        # Sorted, the three folders are in three orders.
        name = f"{['zoo', 'cat', 'tv'][seed % 3]}_{7000 - seed}"
        files = {
            "real": f"{name}.png",
            "fake": f"glide_inpainting_val2017_{7000 - seed}_up.png",
            "mask": f"{name}_mask.png",
        }
        save(root / "real" / files["real"], scene.photo)
        save(root / "fake" / files["fake"], scene.edited(scene.photo))
        save(root / "mask" / files["mask"], scene.mask)
        lines.append({**{part: f"{part}/{file}" for part, file in files.items()}, "prompt": "a, b"})
    if table:
        pd.DataFrame(lines).to_csv(root / "table.csv", index=False, encoding="utf-8-sig")
    return root


def make_sagid(root: Path, number: int = 3, side: int = 64, prefix: str = "sagid\\") -> Path:
    """Spliced and re-generated images; the masks have half the images' size."""
    lines = []
    for seed, scene in scenes(number, side):
        split = ("train", "val", "test")[seed % 3]
        source = Path(split, "coco", "original", f"{seed}.png")
        mask = Path(split, "coco", "mask", f"{seed}.png")
        save(root / source, scene.photo)
        small = cv2.resize(scene.mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
        save(root / mask, small)
        for kind, background in (("sp", scene.photo), ("fr", scene.reencoded())):
            image = Path(split, "coco", "inpainted", f"{seed} {kind}.png")
            whole = cv2.resize(small, (side, side), interpolation=cv2.INTER_NEAREST)
            save(root / image, scene.edited(background, whole))
            lines.append(
                {
                    "img_path": prefix + str(image).replace("/", "\\"),
                    "mask_path": prefix + str(mask).replace("/", "\\"),
                    "src_path": prefix + str(source).replace("/", "\\"),
                    "split": split,
                    "type": kind,
                    "inpainting_model": "brushnet, powerpaint" if kind == "fr" else "brushnet",
                    "diffusion_model": "",
                    "prompt": "",
                }
            )
    pd.DataFrame(lines).to_csv(root / "sagid.csv", index=False)
    return root


def make_btb(root: Path, number: int = 3, side: int = 64) -> Path:
    for source in ("flickr30k", "vision"):
        lines = []
        for seed, scene in scenes(number, side):
            image, mask = (
                Path(source, "images", f"{seed}.png"),
                Path(source, "masks", f"{seed}.png"),
            )
            save(root / image, scene.edited(scene.photo))
            save(root / mask, scene.mask)
            lines.append({"prompt": "a dog", "manipulated": str(image), "truth": str(mask)})
        for place, split in enumerate(("train", "valid", "test")):
            table = pd.DataFrame(lines[place::3], columns=list(lines[0]))
            if len(table):
                table.to_csv(root / f"btb-{source}-{split}.csv", index=False)
    return root


def make_brgen(root: Path, number: int = 3, side: int = 64) -> Path:
    for seed, scene in scenes(number, side):
        photo = f"COCO_{seed:06d}"
        save(root / "Au" / f"{photo}.png", scene.photo)
        for method in ("LaMa", "Power_Paint"):
            name = f"{method}_Stuff_{photo}"
            save(root / "Tp" / f"{name}.png", scene.edited(scene.reencoded()))
            save(root / "Gt" / f"{name}_mask.png", scene.mask)
    return root


def make_opensdi(root: Path, number: int = 3, side: int = 64) -> Path:
    """Of each photograph a real image, a local edit and one generated as a whole, in two splits."""
    for split in ("train", "test"):
        rows = []
        for seed, scene in scenes(number, side):
            # Grey on the edge of the rule: the mean of (255, 255, 0) is 170, of (255, 0, 0) 85.
            mask = np.stack([scene.box, scene.mask, np.zeros_like(scene.mask)], axis=-1)
            for key, image, truth, label in (
                ("partial/real", encode(scene.photo, "JPEG"), None, 0),
                ("partial/fake", encode(scene.edited(scene.photo)), encode(mask), 1),
                ("entire/fake", encode(scene.edited(scene.photo)), None, 1),
            ):
                rows.append({"key": f"{key}/{seed}", "image": image, "mask": truth, "label": label})
        path = root / f"OpenSDI_{split}" / "data" / "sd15-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return root


def make_autosplice(root: Path, number: int = 3, side: int = 64) -> Path:
    for seed, scene in scenes(number, side):
        save(root / "Authentic" / f"{seed}.jpg", scene.photo, quality=75)
        save(root / "Mask" / f"{seed}_mask.png", scene.mask)
        for quality in (100, 90, 75):
            for version in range(2):
                path = root / f"Forged_JPEG{quality}" / f"{seed}_{version}.jpg"
                save(path, scene.edited(scene.photo), quality=quality)
    return root


def make_magicbrush(root: Path, number: int = 3, side: int = 64, parquet: bool = True) -> Path:
    """Two turns of each session; a mask is the photograph, transparent where it was edited."""
    rows = []
    for seed, scene in scenes(number, side):
        mask = np.dstack([scene.photo, 255 - scene.mask])
        target = scene.edited(scene.reencoded())
        for turn in (1, 2):
            cells = {"source_img": scene.photo, "mask_img": mask, "target_img": target}
            keys = {"img_id": str(500 + seed), "turn_index": turn, "instruction": "a dog"}
            rows.append(keys | {name: encode(pixels) for name, pixels in cells.items()})
            if not parquet:
                folder = root / "test" / "images" / str(500 + seed)
                save(folder / f"{500 + seed}-input.png", scene.photo)
                save(folder / f"{500 + seed}-mask{turn}.png", mask)
                save(folder / f"{500 + seed}-output{turn}.png", target)
    if parquet:
        path = root / "data" / "dev-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return root


def make_inpaintings(root: Path, number: int = 3, side: int = 64) -> Path:
    lines = []
    for seed, scene in scenes(number, side):
        for kind, background in (("sp", scene.photo), ("fr", scene.reencoded())):
            name = f"model_{kind}_{seed}"
            save(root / f"{name}.png", scene.edited(background))
            save(root / f"{name}_mask.png", scene.mask)
            about = {"image": f"{name}.png", "mask": f"{name}_mask.png", "generator": "A model, v2"}
            about |= {"kind": kind, "group": f"scene_{seed}", "base": "photo", "outside": "exact"}
            lines.append(about | {"repository": "someone/model", "licence": "MIT"})
    pd.DataFrame(lines).to_csv(root / "inpaintings.csv", index=False)
    return root / "inpaintings.csv"


def make_folder(root: Path, number: int = 3, side: int = 64) -> Path:
    """Pictures of one's own: photographs, and what an editor and a model made of them."""
    for seed, scene in scenes(number, side):
        save(root / "images" / "camera" / f"{seed}.png", scene.photo)
        for maker in ("editor", "model"):
            save(root / "images" / maker / f"{seed}.png", scene.edited(scene.photo))
            save(root / "masks" / maker / f"{seed}.png", scene.mask)
    return root


def make_imdl(root: Path, number: int = 3, side: int = 64) -> Path:
    """A folder of images and the JSON file that lists them; returns the file."""
    pairs = []
    for seed, scene in scenes(number, side):
        save(root / "Tp" / f"{seed}.png", scene.edited(scene.photo))
        save(root / "Gt" / f"{seed}.png", scene.mask)
        save(root / "Au" / f"{seed}.png", scene.photo)
        pairs += [[f"Tp/{seed}.png", f"Gt\\{seed}.png"], [f"Au/{seed}.png", "Negative"]]
    path = root / "list.json"
    path.write_text(json.dumps(pairs))
    return path


def make_csv(root: Path, number: int = 3, side: int = 64) -> Path:
    """As `make_imdl`, with a CSV file as a spreadsheet writes it."""
    make_imdl(root, number, side)
    lines = ["image , mask,camera"]
    for seed in range(number):
        lines += [f"Tp/{seed}.png, Gt\\{seed}.png,X1", f"Au/{seed}.png,,X1"]
    path = root / "mine.csv"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    return path


MAKERS: dict[str, Callable[..., Path]] = {
    "bfree": make_bfree,
    "tgif": make_tgif,
    "cocoglide": make_cocoglide,
    "sagid": make_sagid,
    "btb": make_btb,
    "brgen": make_brgen,
    "opensdi": make_opensdi,
    "autosplice": make_autosplice,
    "magicbrush": make_magicbrush,
    "folder": make_folder,
    "imdl": make_imdl,
    "csv": make_csv,
}
"""From the name of an adapter to what makes its miniature."""
