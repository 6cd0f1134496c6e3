"""Every reader of a file that a user may have from elsewhere, and what it reads if all is well."""

import csv
import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from fuzz import Reader, mend_png
from PIL import Image
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dinolizer.bulk.run import read_listing
from dinolizer.bulk.table import SCHEMA, read_rows, save_rows
from dinolizer.data.datasets import make_manifest
from dinolizer.data.fetch import extract
from dinolizer.data.images import read_header, read_image
from dinolizer.data.manifest import COLUMNS, read_manifest
from dinolizer.data.masks import read_mask
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import card_for, load_head, make_head, save_head
from dinolizer.model.specs import BackboneSpec
from dinolizer.model.weights import (
    checked,
    fetched_path,
    fit_weights,
    read_checkpoint,
    read_weights,
)
from dinolizer.paths import PROFILES, cache_dir
from dinolizer.study.cache import cached
from dinolizer.study.parameters import check_values, read_defaults, read_profile
from dinolizer.study.peers import DECLARATION, read_peers
from dinolizer.study.results import LIST, check
from dinolizer.training.loop import optimise
from dinolizer.training.tokens import extract as tokens

WIDTH, HEIGHT = 20, 24
PEER = "name: other\npolarity: high = edited\nrange: [0, 1]\nthreshold: 0.5\narray: map\n"


def tiny_transformer() -> VisionTransformer:
    sizes = {"img_size": 28, "patch_size": 14, "embed_dim": 4, "depth": 1, "num_heads": 1}
    return VisionTransformer(**sizes, num_classes=0, dynamic_img_size=True)


TINY = BackboneSpec(
    name="tiny",
    architecture=tiny_transformer,
    patch=14,
    window=28,
    stride=14,
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    weights=None,
    licence="Apache-2.0",
    citation="",
)


def readers(folder: Path) -> list[Reader]:
    """All readers, each with a file of its own in the folder; `DINOLIZER_CACHE` lies in it."""
    made = [*_of_pictures(folder), *_of_tables(folder), *_of_peers(folder), *_of_texts(folder)]
    return [*made, *_of_weights(folder)]


def _of_pictures(folder: Path) -> list[Reader]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    mask = Image.fromarray(np.uint8(255) * (np.indices((HEIGHT, WIDTH))[1] > 9).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    bare = _encoded(picture, "JPEG")
    oriented = _encoded(picture, "JPEG", exif=exif)
    deep = rng.integers(0, 2**16, (HEIGHT, WIDTH, 3), np.uint16)
    plain = {
        suffix: cv2.imencode(f".{suffix}", deep)[1].tobytes() for suffix in ("png", "tiff", "ppm")
    }
    common = [
        *(bare, oriented, _encoded(picture, "WEBP"), _encoded(picture, "WEBP", lossless=True)),
        *(_encoded(picture, "BMP"), _encoded(picture, "GIF"), _encoded(mask, "PPM")),
        *(_encoded(picture, "TIFF", compression=kind) for kind in ("raw", "tiff_lzw", "jpeg")),
        *(_encoded(picture.convert("CMYK"), "TIFF"), _encoded(picture, "AVIF", quality=30)),
        *(plain["tiff"], plain["ppm"], _encoded(picture, "MPO", save_all=True)),
    ]
    pngs = [
        *(_encoded(picture, "PNG", exif=exif), _encoded(picture.quantize(7), "PNG"), plain["png"]),
        *(_encoded(picture.convert(mode), "PNG") for mode in ("RGBA", "LA", "1", "I;16")),
        _encoded(mask, "PNG"),
    ]
    masks = [_encoded(mask, kind) for kind in ("GIF", "BMP", "TIFF", "PPM", "JPEG")]
    start = exif.tobytes()

    def with_exif(content: bytes) -> bytes:
        content = content[: 2**16 - 3]
        return bare[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + bare[2:]

    def read_oriented(path: Path) -> None:
        header = read_header(path)
        if read_image(path).shape[:2] != (header.height, header.width):
            raise AssertionError("the header and the pixels have other sizes")

    return [
        Reader("image", read_image, folder / "image", common),
        Reader("png", read_image, folder / "image.png", pngs, mend_png),
        Reader("header", read_header, folder / "header", common),
        Reader("exif", read_oriented, folder / "exif.jpg", [start], with_exif),
        Reader("mask", read_mask, folder / "mask", masks),
        Reader("png mask", read_mask, folder / "mask.png", pngs, mend_png),
    ]


def _of_tables(folder: Path) -> list[Reader]:
    cells = ["0.png", "", "True", "a set", "none", "real", "real", "test", "0", "20", "24", "0.0"]
    edited = ["1.png", "m.png", "False", "a set", "sd2", "sp", "real", "test", "1", "20", "24", "1"]
    rows = _csv(COLUMNS, cells, edited)
    pair = _csv(["image", "mask"], ["0.png", ""], ["1.png", "m.png"])
    listed = b'[["a.png", "Negative"], ["b.png", "m.png"]]'
    keep = folder / "rows.parquet"
    row = dict.fromkeys(SCHEMA.names) | {"path": "0.png", "score": 0.5, "sha256": "0" * 64}
    save_rows(SCHEMA.empty_table().from_pylist([row], SCHEMA), {"model": "tiny"}, keep)
    parquets = folder / "parquet"
    parquets.mkdir()
    png = _encoded(Image.new("L", (2, 2)), "PNG")
    cell = {"bytes": png, "path": "0.png"}
    table = {"key": ["a"], "image": [cell], "mask": [cell], "label": [1]}
    frame = io.BytesIO()
    pd.DataFrame(table).to_parquet(frame, compression=None)
    values = pd.DataFrame({"iou": [0.5, 0.25], "method": ["a", "b"]})
    cached("rows", "table", lambda: values)

    def dataset(name: str, path: Path) -> None:
        make_manifest(name, path, folder / f"made-{name}.csv")

    def read_table(path: Path) -> None:
        if not cached("rows", "table", lambda: values).equals(values):
            raise AssertionError("a damaged table was taken from the cache")

    return [
        Reader("manifest", read_manifest, folder / "manifest.csv", [rows]),
        Reader("list of images", read_listing, folder / "list.csv", [rows, pair]),
        Reader("csv dataset", partial(dataset, "csv"), folder / "own.csv", [pair]),
        Reader("imdl dataset", partial(dataset, "imdl"), folder / "imdl.json", [listed]),
        Reader("rows of a run", read_rows, keep, [keep.read_bytes()]),
        Reader(
            "parquet dataset",
            lambda path: dataset("opensdi", path.parent),
            parquets / "sd3-test.parquet",
            [frame.getvalue()],
        ),
        Reader("cached table", read_table, *_file(cache_dir() / "rows" / "table.parquet")),
    ]


def _of_peers(folder: Path) -> list[Reader]:
    values = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, values)
    np.savez(npz, map=values)
    png = _encoded(Image.fromarray(np.uint8(255 * values)), "PNG")
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    row = {"image": "0.jpg"}

    def predicted(path: Path) -> None:
        (peer,) = read_peers([str(path.parent)], pd.DataFrame([row]))
        peer.predict(image, row)

    def of_map(suffix: str, content: bytes, wrap: Callable[[bytes], bytes]) -> Reader:
        path = folder / f"peer {suffix}" / f"0.{suffix}"
        path.parent.mkdir()
        top = 255 if suffix == "png" else 1
        (path.parent / DECLARATION).write_text(PEER.replace("1]", f"{top}]"))
        return Reader(f"peer's {suffix}", predicted, path, [content], wrap)

    declared = folder / "peer"
    declared.mkdir()
    np.save(declared / "0.npy", values)
    return [
        of_map("npy", npy.getvalue(), bytes),
        of_map("npz", npz.getvalue(), bytes),
        of_map("png", png, mend_png),
        Reader("peer's declaration", predicted, declared / DECLARATION, [PEER.encode()]),
    ]


def _of_texts(folder: Path) -> list[Reader]:
    notebook = PROFILES.parent / "03-benchmark.ipynb"
    defaults = read_defaults(notebook)
    profile = (PROFILES / "pocket.yaml").read_bytes()
    code = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["seed = 0"]}
    results = folder / "results"
    results.mkdir()

    def read_values(path: Path) -> None:
        given = read_profile(path)
        known = {name: value for name, value in given.items() if name in defaults}
        check_values(known, defaults, str(path), {})

    record = b'{"sha256": "0", "licence": "nonprofit"}'
    folder_of_weights = cache_dir() / "weights"
    folder_of_weights.mkdir(exist_ok=True)
    (folder_of_weights / "bfree.safetensors").write_bytes(b"weights")
    return [
        Reader("profile", read_values, folder / "profile.yaml", [profile]),
        Reader(
            "notebook", read_defaults, folder / "n.ipynb", [json.dumps({"cells": [code]}).encode()]
        ),
        Reader(
            "record of weights",
            lambda path: checked("bfree", fetched_path("bfree")),
            folder_of_weights / "bfree.json",
            [record],
        ),
        Reader(
            "list of results",
            lambda path: check(path.parent),
            results / LIST,
            [b"0" * 64 + b"  tables/a.csv\n" + b"1" * 64 + b"  b.png\n"],
        ),
    ]


def _of_weights(folder: Path) -> list[Reader]:
    torch.manual_seed(0)
    model = tiny_transformer()
    backbone = Backbone(TINY, model)
    head = folder / "head.safetensors"
    save_head(head, make_head(backbone.dim), card_for(backbone))
    content = head.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")

    def with_header(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + content[length:]

    def read_fitting(path: Path) -> None:
        fit_weights(tiny_transformer(), read_weights(path, "tiny"), path, "tiny")

    checkpoint = io.BytesIO()
    torch.save({"model": {"weight": torch.ones(2), "bias": torch.zeros(1)}, "epoch": 1}, checkpoint)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("BFREE/config.yaml", "arch: timm\n")
        file.writestr("BFREE/model.pth", b"12345678" * 16)

    def unpack(path: Path) -> None:
        extract(path, folder, 2**16, ["config.yaml", "model.pth"])

    def unpack_tree(path: Path) -> None:
        extract(path, folder / "tree", 2**20)

    progress = folder / "training.pt"

    def train(path: Path, steps: int = 2) -> None:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(layer.weight)
        ones = torch.ones(1, 1)
        optimise(
            layer,
            lambda first, last: ((ones,) for _ in range(first, last)),
            lambda model, batch: model(batch).square().sum(),
            steps=steps,
            lr=0.1,
            score=lambda: 0.5,
            score_every=1,
            checkpoint=path,
            settings={"steps": 2},
        )

    train(progress)
    images = [np.zeros((28, 28, 3), np.uint8)]
    right = tokens(backbone, images)

    def read_tokens(path: Path) -> None:
        if not tokens(backbone, images).equal(right):
            raise AssertionError("damaged tokens were taken from the cache")

    (kept,) = (cache_dir() / "tokens").iterdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    of_head = partial(load_head, backbone=backbone)
    return [
        Reader("head", of_head, head, [content]),
        Reader("card of a head", of_head, folder / "card", [content[8:length]], with_header),
        Reader("weights", read_fitting, folder / "w.safetensors", [save(state)]),
        Reader(
            "checkpoint",
            lambda path: read_checkpoint(path, "model", "another"),
            folder / "a.pth",
            [checkpoint.getvalue()],
        ),
        Reader("archive", unpack, folder / "a.zip", [archive.getvalue()]),
        Reader("tree of an archive", unpack_tree, folder / "tree.zip", [archive.getvalue()]),
        Reader("state of a training", train, *_file(progress)),
        Reader("cached tokens", read_tokens, *_file(kept)),
    ]


def _file(path: Path) -> tuple[Path, list[bytes]]:
    return path, [path.read_bytes()]


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _csv(*rows: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
