"""Safe reading and writing of images: whatever comes in, uint8 RGB comes out, or one sentence."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from dinolizer.data.formats import (
    bare_png,
    check_jpeg,
    check_tiff,
    has_16_bit_colour,
    is_png,
    other_file,
)
from dinolizer.errors import InputError
from dinolizer.paths import atomic, file_hash

Pixel = TypeVar("Pixel", bound=np.generic)

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
"""The Pillow formats that are read; a file's content decides, not its name."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Names by which the images of a folder are known."""
MAX_PIXELS = 120_000_000
"""Enough for a camera of 100 megapixels; Pillow's own limit (179 million) stays in force."""


DEFLATED = 8 * 1032
"""Pixels of 1 bit that a byte of a PNG file holds at most: deflate packs 1032 bytes into one."""


class Header(NamedTuple):
    """Size of an image as `read_image` gives it, and the EXIF orientation that was applied."""

    width: int
    height: int
    orientation: int


def read_image(source: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Read an image as uint8 ``(H, W, 3)`` RGB, upright: the EXIF orientation is applied.

    ``source`` may be a path, a PIL image, or a uint8 array: ``(H, W)`` grey, ``(H, W, 3)`` RGB,
    whose memory is shared, or ``(H, W, 4)`` RGBA. Alpha is dropped and the colour under it kept, as
    blending would invent pixels. 16-bit values become ``round(value / 257)``, so that 0 and 65535
    become 0 and 255. CMYK, palette, grey and 1-bit images are converted by Pillow, without colour
    profiles. Of an animation the first frame is read. A PIL image of a 16-bit RGB file has lost its
    low bytes already: pass the path.

    Raises `InputError` for what is missing, empty, damaged, larger than `MAX_PIXELS` or of none of
    `FORMATS`, for TIFF files of several pages, and for another type or shape.
    """
    if isinstance(source, np.ndarray):
        _check_array(source, channels=(3, 4))
        return _rgb(source)
    if not isinstance(source, str | Path | Image.Image):
        raise InputError(
            f"The image is a {type(source).__name__}, but it must be a path, a PIL image "
            "or a uint8 array (H, W, 3)."
        )
    return _rgb(read_samples(source)[0])


def read_samples(source: str | Path | Image.Image) -> tuple[NDArray[Any], int]:
    """Read an image's values with alpha, and the EXIF orientation, 1 to 8, that was applied: uint8
    or uint16, ``(H, W)`` grey or ``(H, W, C)`` with C 2 (grey, alpha), 3 (RGB) or 4 (RGBA)."""
    name = "The PIL image" if isinstance(source, Image.Image) else str(source)
    try:
        with warnings.catch_warnings(action="ignore"):
            if isinstance(source, Image.Image):
                return _decode(source, name, None)
            with _opened(Path(source)) as image:
                return _decode(image, name, Path(source))
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is {other_file(Path(name))} (formats that are read: {', '.join(FORMATS)})."
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{name} may not be read by this user; change its permissions.") from None
    except Exception as error:  # decoders meet damage with almost any exception
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(
            f"{name} cannot be read ({reason}); it may be damaged or cut short: get a whole copy."
        ) from error


def read_header(path: str | Path) -> Header:
    """Read an image's size and orientation without decoding it, a hundred thousand a minute. Errors
    are those of `read_image`, but what is damaged behind the header is not noticed."""
    try:
        with warnings.catch_warnings(action="ignore"), _opened(Path(path), pixels=False) as image:
            width, height = image.size
            orientation = _orientation(image)
            turned = orientation >= 5 and image.format != "TIFF"  # whose size Pillow gives turned
            if 0 < width * height <= MAX_PIXELS:
                return Header(*((height, width) if turned else (width, height)), orientation)
    except Exception:  # whatever it is, read_samples has the sentence for it, or can read it
        pass
    pixels, orientation = read_samples(path)
    return Header(pixels.shape[1], pixels.shape[0], orientation)


def file_facts(path: str | Path) -> dict[str, Any]:
    """What the file of a readable image is: SHA-256, format, number of pages or frames, of which
    the first is read, and the EXIF orientation, 1 to 8, that `read_image` applies."""
    with warnings.catch_warnings(action="ignore"), _opened(Path(path), pixels=False) as image:
        # An APNG's first picture counts twice where `bare_png` has left out which it is.
        pages = getattr(image, "n_frames", 1) - bool(image.info.get("default_image"))
        facts = {"format": image.format, "pages": pages}
        return {"sha256": file_hash(path)} | facts | {"orientation": _orientation(image)}


def turn(pixels: NDArray[Pixel], orientation: int) -> NDArray[Pixel]:
    """Set an array (H, W, ...) upright that has an EXIF orientation (EXIF 2.3, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def write_image(
    path: str | Path, image: NDArray[np.uint8], texts: Mapping[str, str] | None = None
) -> None:
    """Write a uint8 array, ``(H, W)`` grey or ``(H, W, 3)`` RGB, as PNG with ``texts`` in its
    metadata, whole or not at all; another array or a suffix but ``.png`` is an `InputError`."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"The image was to be written as {path.name}, but only .png is lossless.")
    _check_array(image, channels=(3,))
    info = PngInfo()
    for key, value in (texts or {}).items():
        info.add_itxt(key, value)
    with atomic(path) as draft:
        Image.fromarray(image).save(draft, format="PNG", pnginfo=info)


def _rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours of uint8 or uint16 values, as uint8 (H, W, 3)."""
    if pixels.dtype == np.uint16:
        pixels = _eight_bits(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        return np.stack([pixels] * 3, axis=-1)
    return np.ascontiguousarray(pixels[..., :3])


def _check_array(array: NDArray[np.uint8], channels: tuple[int, ...]) -> None:
    """Refuse what is not uint8 and grey or colour; a value range is never guessed from the data."""
    if array.dtype != np.uint8:
        remedy = (
            "multiply it by 255, round and convert it if its range is [0, 1]"
            if np.issubdtype(array.dtype, np.floating) or array.dtype == np.bool_
            else "scale it to [0, 255] and convert it"
        )
        raise InputError(f"The image array is {array.dtype}, but it must be uint8; {remedy}.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in channels):
        raise InputError(
            f"The image array has the shape {array.shape}, but it must be (H, W) grey or "
            f"{' or '.join(f'(H, W, {count})' for count in channels)}, channels last."
        )
    if not array.size:
        raise InputError(
            f"The image array has the shape {array.shape}, but it must hold at least one pixel."
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large("The image array")


@contextmanager
def _opened(path: Path, *, pixels: bool = True) -> Iterator[Image.Image]:
    if path.is_dir():
        raise InputError(f"{path} is a folder, but one image file is expected here.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; check its name and folder.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); get a whole copy of the file.")
    # Pillow gets a handle, not the name: mapped from its name, an uncompressed grey TIFF
    # with an orientation comes out wrongly turned (Pillow 13.0).
    with path.open("rb") as file:
        content = bare_png(file, pixels) if is_png(file) else file
        with Image.open(content, formats=FORMATS) as image:
            yield image


def _decode(image: Image.Image, name: str, path: Path | None) -> tuple[NDArray[Any], int]:
    """Values and orientation of an opened image; ``path`` is None for one made in memory."""
    if not image.width or not image.height:
        raise InputError(
            f"{name} has {image.width}x{image.height} pixels; it must hold at least 1."
        )
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    if path is not None and image.format == "PNG":
        size = path.stat().st_size
        if image.width * image.height > DEFLATED * size:
            raise InputError(
                f"{name} is cut short: its {size:,} bytes cannot hold {image.width}x{image.height} "
                "pixels; get a whole copy."
            )
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise InputError(
            f"{name} holds {'floating-point' if image.mode == 'F' else '32-bit'} values of unknown "
            "range; convert it to 8 or 16 bits."
        )
    if path is not None and image.format == "TIFF":
        check_tiff(image, name)
    if path is not None and image.format in ("JPEG", "MPO"):
        with path.open("rb") as file:
            check_jpeg(file, name)
    deep_colour = path is not None and has_16_bit_colour(image)
    # Before load(): Pillow turns TIFFs itself while loading, and then forgets their orientation.
    orientation = _orientation(image)
    image.load()  # raises where the file is cut short, which OpenCV only warns of
    if path is not None and deep_colour:
        pixels = _deep_colour(path)
    elif image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.uint16)
    else:
        alpha = "A" if "transparency" in image.info or image.mode[-1] in "Aa" else ""
        mode = ("L" if image.mode in ("1", "L", "LA", "La") else "RGB") + alpha
        pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels if image.format == "TIFF" else turn(pixels, orientation), orientation


def _deep_colour(path: Path) -> NDArray[np.uint16]:
    # Pillow keeps the high byte only. IMREAD_COLOR would be simpler, but with 16-bit TIFFs it
    # returned uninitialised memory (OpenCV 5.0).
    with path.open("rb") as file:
        content = bare_png(file, True) if is_png(file) else file
        bgr = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.dtype != np.uint16:
        raise InputError(f"{path} cannot be read at its 16 bits; convert it to 8-bit PNG.")
    order = [2, 1, 0, 3][: bgr.shape[2]]
    return np.asarray(bgr[..., order], np.uint16)


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """``round(value / 257)`` in integers; 65535 = 255 * 257, and 257 is odd: no halves."""
    result = np.empty(values.shape, np.uint8)
    for row, wide in zip(result, values, strict=True):  # 32 bits of the whole may be gigabytes
        row[...] = (wide.astype(np.uint32) + 128) // 257
    return result


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a photograph with damaged EXIF is still a photograph
        return 1
    return value if 1 <= value <= 8 else 1


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels, which is the most that is "
        "read; cut it into parts."
    )


def palette_png(png: bytes) -> bytes:
    """A PNG with a palette of 256 colours in place of its own: about a third of the size."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as drawn:
        palette = drawn.convert("RGB").quantize(256, kmeans=3)
        palette.save(small, "PNG", optimize=True, dpi=drawn.info["dpi"])
    return small.getvalue()
