"""What the files that are given as images may be, and what Pillow must be told of them."""

import io
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.ExifTags import Base as Tag

from dinolizer.errors import InputError, refuse

OTHER_FILES = {
    rb"version https://git-lfs": "a Git LFS pointer; fetch the file itself with 'git lfs pull'",
    rb"\s*<(!doctype html|html)": "an HTML page; download the image itself",
    rb"\s*<(\?xml|svg)": "an XML or SVG document; save it as PNG",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "a HEIC photograph; convert it to JPEG or PNG",
    rb".{4}ftypcrx |FUJIFILMCCD": "a camera's raw file; develop it to TIFF or PNG",
    rb".{4}ftyp(?!avi[fs])": "a video; save the frame as PNG",
    rb".{4}jP  |\xff\x4f\xff\x51": "a JPEG 2000 image; convert it to PNG",
    rb".{4}JXL |\xff\x0a": "a JPEG XL image; convert it to PNG",
    rb"8BPS": "a Photoshop document; save it as PNG",
    rb"%PDF": "a PDF document; save the image as PNG",
    rb"PK\x03\x04": "a ZIP archive; unpack it",
    rb"[\t\r\n\x20-\x7e\x80-\xff]+\Z": "a text file; give an image",
}
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # none that coded pixels hold
JPEG_END = 0xD9
MORE = bytes(range(254, 0, -1))
SKIPPED = 1024  # bytes in front of the end of a JPEG that cameras may leave, and no more
ARITHMETIC = range(0xC9, 0xCC)  # frames whose coded pixels may end in zeros that are left out


def other_file(path: Path, unknown: str) -> str:
    """What a file that is no image is, by its first bytes, and what to do."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError:
        start = b""
    flags = re.DOTALL | re.IGNORECASE
    return next((what for key, what in OTHER_FILES.items() if re.match(key, start, flags)), unknown)


def bare_png(file: BinaryIO, pixels: bool) -> BinaryIO:
    """A PNG file without texts and profiles (Pillow refuses long ones, as AI tools write them),
    with its orientation before the pixels, which may be left out: then it knows its frames. Other
    files stay as they are."""
    parts, kept = [file.read(8)], PNG_CHUNKS if pixels else (*PNG_CHUNKS, b"acTL")
    if parts != [PNG_START]:
        file.seek(0)
        return file
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind not in kept or (kind == b"IDAT" and not pixels):
            file.seek(length + 4, io.SEEK_CUR)
            continue
        chunk = start + file.read(length + 4)
        if len(chunk) < length + 12:
            raise EOFError("its file ends within a chunk")
        parts.insert(2 if kind == b"eXIf" else len(parts), chunk)  # behind IHDR
        if kind == b"IEND":
            break
    if not pixels:
        parts.insert(-1, struct.pack(">I4sI", 0, b"IDAT", 0x35AF061E))  # an empty one, with its CRC
    return io.BytesIO(b"".join(parts))


def check_jpeg(data: bytes, name: str) -> None:
    """Refuse a JPEG file whose pixels end before its end marker does, or long before: libjpeg makes
    up the rest, or skips it, with a warning, which Pillow does not pass on. In front of the marker
    more bytes change the picture where some are missing, and other bytes where they are its own."""
    at, kind = 2, 0
    while kind != JPEG_END:
        start, marker = at, JPEG_MARKER.search(data, at)
        if marker is None:
            raise InputError(f"{name} is cut short: it has no end; get a whole copy.")
        at, kind = marker.start(), data[marker.start() + 1]
        if kind in ARITHMETIC:
            return
        at += 0 if kind == JPEG_END else 2 + int.from_bytes(data[at + 2 : at + 4])
    drawn: list[bytes] = []
    for own in (at, at, max(at - SKIPPED, start)):
        more = MORE if drawn else b""
        with Image.open(io.BytesIO(data[:own] + more + data[at:]), formats=("JPEG",)) as image:
            if "progressive" not in image.info:  # whose means depend on all before: that is quicker
                image.draft(None, (image.width // 8 or 1, image.height // 8 or 1))
            drawn.append(image.tobytes())
    cut = f"{name} is cut short: its pixels end too early; get a whole copy."
    skipped = f"{name} is damaged: its last {SKIPPED} bytes are no pixels; get a whole copy."
    refuse({cut: drawn[0] != drawn[1], skipped: own > start and drawn[0] == drawn[2]})


def check_tiff(image: Any, name: str) -> None:
    """Refuse what Pillow reads wrongly, and files of which another page may be the picture."""
    tags, pictures = image.tag_v2, []
    is_deep = max(tags.get(Tag.BitsPerSample, (1,))) > 8
    is_common = tags.get(Tag.PlanarConfiguration, 1) == 1 and (
        tags.get(Tag.PhotometricInterpretation) in (1, 2)  # black is zero, RGB
    )
    is_rare = set(tags.get(Tag.SampleFormat, (1,))) != {1} or (is_deep and not is_common)
    is_volume = tags.get(32997, 1) != 1  # ImageDepth: a slice of it would be read
    raw = f"{name} is a camera's raw file (DNG); develop it to TIFF or PNG."
    rare = f"{name} has a rare layout (signed, in planes, inverted, deep); convert it to PNG."
    refuse({raw: Tag.DNGVersion in tags, rare: is_rare or is_volume})
    for page in range(image.n_frames):
        image.seek(page)
        # Bits: 1 for a reduced copy, 4 for a transparency mask of the picture (TIFF 6.0, p. 36).
        if not image.tag_v2.get(Tag.NewSubfileType, 0) & 5:
            pictures.append(page)
    if pictures != [0]:
        pages = f"{image.n_frames} pages, of which the first is not the only picture"
        raise InputError(f"{name} holds {pages}; save the one that is meant as a file of its own.")
    image.seek(0)
