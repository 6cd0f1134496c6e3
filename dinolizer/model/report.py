"""What was found in a photograph as one HTML file, to look at, to print and to hand on."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from dinolizer.errors import printable
from dinolizer.model.localization import Localization
from dinolizer.paths import ASSETS, check_outputs, file_name, write_file

SIDE = 1600
"""Pixels that the longer side of a picture in a report has at most."""
THUMBNAIL = 240
MAGENTA = (230, 0, 126)
SAID = ("model", "licence", "caution", "threshold", "score", "date")
"""Facts that a report has in its text and not in its table."""


@dataclass(frozen=True)
class Entry:
    """A report as the index lists it; ``thumbnail``, with the mask in magenta, is a data URI."""

    file: Path
    picture: str
    thumbnail: str
    score: float
    predicted_area: float


def report_path(directory: Path, name: str) -> Path:
    return directory / file_name(name, ".report.html")


def report_page(result: Localization, name: str = "", back: bool = False) -> str:
    """A page of HTML: the photograph, the map over it, the outline of the mask, what they mean, and
    `Localization.summary`, without the photograph's folder, as a table and as JSON. It loads
    nothing from anywhere: photograph (JPEG) and map (PNG) are inside of it, scaled down to `SIDE`.
    ``name`` is that of a photograph without a file; ``back`` adds a link to the page above."""
    source = Path(result.source).name
    facts = result.summary() | {"source": source, "torch": torch.__version__}
    mask = _scaled(np.uint8(255) * result.mask, SIDE) > 0
    probability = _scaled(result.probability, SIDE)
    return render(
        "report-picture.html",
        title=printable(source or name),
        back=back,
        facts=facts,
        rows=[(key, _shown(value)) for key, value in facts.items() if key not in SAID],
        side=mask.shape,
        photo=_uri(_scaled(result.image, SIDE), "JPEG", quality=90),
        map=_uri((255 * probability + 0.5).astype(np.uint8), "PNG", optimize=True),
        outline=_outline(mask),
        flat=_outline(_scaled(np.uint8(255) * result.flat, SIDE) > 127),
    )


def save_report(result: Localization, folder: Path, name: str, *, overwrite: bool = False) -> Entry:
    """Write a `report_page` to `report_path`; raises `InputError` as `check_outputs`."""
    path, source = report_path(folder, name), Path(result.source)
    check_outputs([path], inputs=[source], overwrite=overwrite)
    write_file(path, report_page(result, name))
    photo = _scaled(result.image, THUMBNAIL)
    mask = _scaled(np.uint8(255) * result.mask, THUMBNAIL)[..., None] > 0
    tinted = np.where(mask, 0.4 * photo + 0.6 * np.array(MAGENTA), photo).astype(np.uint8)
    thumbnail = _uri(tinted, "JPEG", quality=80)
    picture = printable(source.name or name)
    return Entry(path, picture, thumbnail, result.score, result.predicted_area)


def save_index(path: Path, entries: Iterable[Entry], failed: Iterable[str] = ()) -> None:
    """Write a page of links to reports in its folder, the highest score first, and of failures."""
    ordered = sorted(entries, key=lambda entry: -entry.score)
    rows = [(quote(bytes(Path(entry.file.name))), entry) for entry in ordered]
    title, lost = f"Reports on {len(rows)} pictures", [*map(printable, failed)]
    write_file(path, render("report-index.html", title=title, rows=rows, failed=lost))


def render(template: str, **values: Any) -> str:
    """A page of a template in ``assets``; in HTML whatever is put is escaped."""
    rules: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True}
    rules |= {"autoescape": template.endswith(".html"), "keep_trailing_newline": True}
    pages = Environment(loader=FileSystemLoader(ASSETS), **rules)
    return pages.get_template(template).render(values)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _scaled(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """Scale an array ``(H, W, ...)`` down to a longer side by averaging; never up."""
    scale = min(1, side / max(pixels.shape[:2]))
    height, width = (max(round(length * scale), 1) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _uri(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _outline(mask: NDArray[np.bool_]) -> str:
    """An SVG path (column and row) around each part of a mask ``(H, W)`` and each hole in one."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return "".join(f"M{' '.join(map(str, points.ravel()))}Z" for points in contours)
