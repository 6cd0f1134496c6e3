"""Safe reading and writing of images: whatever comes in, uint8 RGB comes out, or one sentence."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from dinolizer.data import formats
from dinolizer.errors import InputError, refuse
from dinolizer.paths import atomic, file_hash

Pixel = TypeVar("Pixel", bound=np.generic)

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")  # of Pillow; content decides
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Names by which the images of a folder are known."""
MAX_PIXELS = 120_000_000  # for a camera of 100 megapixels; Pillow's own limit is 179 million
DEFLATED = 8 * 1032  # pixels of 1 bit in a byte of a PNG at most: deflate packs 1032 to 1
ROOM = 2**24  # pixels that any file may have: a flat WebP of 34 bytes has as many as it likes
BROKEN = "not an image that can be read, or damaged; get a whole copy in a common format"


class Header(NamedTuple):
    """Size of an image as `read_image` gives it, and the EXIF orientation that was applied."""

    width: int
    height: int
    orientation: int


def read_image(source: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Read an image as uint8 ``(H, W, 3)`` RGB, upright: the EXIF orientation is applied.

    ``source`` may be a path, a PIL image, or a uint8 array: ``(H, W)`` grey, ``(H, W, 3)`` RGB,
    whose memory is shared, or ``(H, W, 4)`` RGBA. Alpha is dropped and the colour under it kept.
    Of 16-bit values the high byte is taken, of an animation the first frame; colour profiles are
    not applied. Raises `InputError` for what is missing, empty, damaged, over `MAX_PIXELS`, of none
    of `FORMATS`, a TIFF of several pages, or of another type or shape."""
    if isinstance(source, np.ndarray):
        _check_array(source, channels=(3, 4))
        return _rgb(source)
    if not isinstance(source, str | Path | Image.Image):
        raise InputError(
            f"The image is a {type(source).__name__}, but a path, PIL image or uint8 array is due."
        )
    return _rgb(read_samples(source)[0])


def read_samples(source: str | Path | Image.Image) -> tuple[NDArray[Any], int]:
    """Read an image's values with alpha, and the EXIF orientation, 1 to 8, that was applied: uint8,
    of 16-bit grey uint16; ``(H, W)`` grey or ``(H, W, C)``: grey with alpha, RGB or RGBA."""
    name = "The PIL image" if isinstance(source, Image.Image) else str(source)
    try:
        with _opened(source) as (image, path):
            return _decode(image, name, path)
    except UnidentifiedImageError:
        what, read = formats.other_file(Path(name), BROKEN), ", ".join(FORMATS)
        raise InputError(f"{name} is {what} (formats that are read: {read}).") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(name)) from None
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{name} may not be read by this user; change its permissions.") from None
    except Exception as error:  # decoders meet damage with almost any exception
        reason = str(error).rstrip(".") or type(error).__name__
        why = f"({reason}); it may be damaged or cut short: get a whole copy"
        raise InputError(f"{name} cannot be read {why}.") from error


def read_header(path: str | Path) -> Header:
    """Read an image's size and orientation without decoding it, a hundred thousand a minute. Errors
    are those of `read_image`, but what is damaged behind the header is not noticed."""
    # Whatever is wrong, read_samples has the sentence for it, or can read it.
    with suppress(Exception), _opened(path, pixels=False) as (image, _):
        width, height = image.size
        orientation = _orientation(image)
        turned = orientation >= 5 and image.format != "TIFF"  # whose size Pillow gives turned
        if 0 < width * height <= MAX_PIXELS:
            return Header(*((height, width) if turned else (width, height)), orientation)
    pixels, orientation = read_samples(path)
    return Header(pixels.shape[1], pixels.shape[0], orientation)


def file_facts(path: str | Path) -> dict[str, Any]:
    """What the file of a readable image is: SHA-256, format, number of pages or frames, of which
    the first is read, and the EXIF orientation, 1 to 8, that `read_image` applies."""
    with _opened(path, pixels=False) as (image, _):
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
    path: str | Path,
    image: NDArray[np.uint8] | NDArray[np.bool_],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a uint8 array, ``(H, W)`` grey or ``(H, W, 3)`` RGB, or a bool mask (white is True) as
    PNG with ``texts`` in its metadata; `InputError` for another array or suffix than ``.png``."""
    path, image = Path(path), np.uint8(255) * image if image.dtype == np.bool_ else image
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
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        return np.stack([pixels] * 3, axis=-1)
    return np.ascontiguousarray(pixels[..., :3])


def _check_array(array: NDArray[Any], channels: tuple[int, ...]) -> None:
    """Refuse what is not uint8 and grey or colour; a value range is never guessed from the data."""
    wanted = " or ".join(["(H, W)", *(f"(H, W, {count})" for count in channels)])
    is_image = array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in channels))
    kind = f"The image array is {array.dtype}, but it must be uint8; scale it to [0, 255]."
    due = f"but {wanted}, channels last, of at least one pixel is due"
    shape = f"The image array has the shape {array.shape}, {due}."
    large, number = _too_large("The image array"), np.prod(array.shape[:2])
    refuse({kind: array.dtype != np.uint8, shape: not is_image, large: number > MAX_PIXELS})


def _too_large(name: str) -> str:
    most = f"{MAX_PIXELS / 1e6:.0f} million pixels"
    return f"{name} has more than {most}, the most that is read; cut it into parts."


@contextmanager
def _opened(
    source: str | Path | Image.Image, *, pixels: bool = True
) -> Iterator[tuple[Image.Image, Path | None]]:
    """A Pillow image, and its path; None if it is in memory."""
    with warnings.catch_warnings(action="ignore"):
        if isinstance(source, Image.Image):
            yield source, None
            return
        path = Path(source)
        refuse({f"{path} is a folder, but one image file is expected here.": path.is_dir()})
        refuse({f"There is no file {path}; check its name and folder.": not path.is_file()})
        refuse({f"{path} is empty (0 bytes); get a whole copy.": path.stat().st_size == 0})
        # Pillow gets a handle, not the name: mapped from its name, an uncompressed grey TIFF
        # with an orientation comes out wrongly turned (Pillow 13.0).
        with (
            path.open("rb") as file,
            Image.open(formats.bare_png(file, pixels), formats=FORMATS) as image,
        ):
            yield image, path


def _decode(image: Image.Image, name: str, path: Path | None) -> tuple[NDArray[Any], int]:
    """Values and orientation of an opened image; ``path`` is None for one made in memory."""
    number, size = image.width * image.height, f"{image.width}x{image.height}"
    is_wide = image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM"))
    length = path.stat().st_size if path else number
    empty = f"{name} has {size} pixels; it must hold at least 1."
    cut = f"{name} is cut short: {length:,} bytes hold no picture of {size}; get a whole copy."
    wide = f"{name} has floating-point or 32-bit values of unknown range; convert it to 16 bits."
    refuse({empty: not number, _too_large(name): number > MAX_PIXELS})
    refuse({cut: number > max(DEFLATED * length, ROOM), wide: is_wide})
    if path and image.format == "TIFF":
        formats.check_tiff(image, name)
    if path and image.format in ("JPEG", "MPO"):
        formats.check_jpeg(path.read_bytes(), name)
    # Before load(): Pillow turns TIFFs itself while loading, and then forgets their orientation.
    orientation = _orientation(image)
    image.load()
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.uint16)
    else:
        alpha = "A" if "transparency" in image.info or image.mode[-1] in "Aa" else ""
        mode = ("L" if image.mode in ("1", "L", "LA", "La") else "RGB") + alpha
        pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels if image.format == "TIFF" else turn(pixels, orientation), orientation


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a photograph with damaged EXIF is still a photograph
        return 1
    return value if 1 <= value <= 8 else 1


def palette_png(png: bytes) -> bytes:
    """A PNG with a palette of 256 colours, dithered: less than half of the size."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as drawn:
        few = drawn.width * drawn.height // 50  # pixels; to fit the palette to all takes seconds
        colours = drawn.convert("RGB")
        palette = colours.quantize(256, kmeans=few)
        values = np.reshape(palette.getpalette() or [], (-1, 3))
        values[(values > 245).all(axis=1)] = 255  # white is white
        palette.putpalette(values.ravel().tolist())
        colours.quantize(palette=palette).save(small, "PNG", optimize=True, dpi=drawn.info["dpi"])
    return small.getvalue()
