"""Safe reading and writing of images: whatever comes in, uint8 RGB comes out, or one sentence."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from dinolizer.errors import InputError
from dinolizer.paths import atomic

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
"""The Pillow formats that are read; a file's content decides, not its name."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff"),
    *(".bmp", ".gif", ".ppm", ".pgm", ".pbm"),
)
"""Names by which `find_images` knows the images of a folder."""
MAX_PIXELS = 120_000_000
"""Pixels an image may have: those of a camera of 100 megapixels and some more. Pillow's own limit
(179 million) stays in force."""

# EXIF orientation to what sets it upright (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Read an image as 8-bit RGB.

    Parameters
    ----------
    source
        A path, a PIL image, or a uint8 array: ``(H, W)`` grey, ``(H, W, 3)`` RGB or
        ``(H, W, 4)`` RGBA.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W, 3)`` RGB, [0, 255], upright: the EXIF orientation is applied. That of an RGB array
        shares its memory.

    Notes
    -----
    Alpha is dropped and the colour under it kept, as blending would invent pixels. 16-bit values
    become ``round(value / 257)``, so that 0 and 65535 become 0 and 255. CMYK, palette, grey and
    1-bit images are converted by Pillow, without colour profiles. Of an animation the first frame
    is read. A PIL image of a 16-bit RGB file has lost its low bytes already: pass the path.

    Raises
    ------
    InputError
        For what is missing, empty, damaged, larger than `MAX_PIXELS` or not an image of one of
        `FORMATS`, and for arrays and PIL images of another type or shape.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, str | Path | Image.Image):
        raise InputError(
            f"The image is a {type(source).__name__}, but it must be a path, a PIL image "
            "or a uint8 array (H, W, 3)."
        )
    name = "The PIL image" if isinstance(source, Image.Image) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(source, Image.Image):
                return _decode(source, name, None)
            path = Path(source)
            _check_file(path)
            # Pillow gets a handle, not the name: mapped from its name, an uncompressed grey TIFF
            # with an orientation comes out wrongly turned (Pillow 13.0).
            with path.open("rb") as handle, Image.open(handle, formats=FORMATS) as image:
                return _decode(image, name, path)
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not an image that can be read; it must be an undamaged file of one of the "
            f"formats {', '.join(FORMATS)}."
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except InputError:
        raise
    except Exception as error:  # decoders meet damage with almost any exception
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(
            f"{name} cannot be read ({reason}); it may be damaged or cut short: get a whole copy."
        ) from error


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read a mask file: bool ``(H, W)``, True (edited) where the grey value is over 127.

    Raises
    ------
    InputError
        As `read_image`, and for a file whose values are only 0 and 1: as an image it is black.
    """
    grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    if grey.max() == 1:
        raise InputError(
            f"The mask {path} holds only the values 0 and 1, but edited pixels must be 255 "
            "(over 127); multiply it by 255."
        )
    return np.asarray(grey > 127)


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all.

    Parameters
    ----------
    path
        Its name must end in ``.png``: masks and forgeries must not be compressed with loss.
    image
        uint8, ``(H, W)`` grey or ``(H, W, 3)`` RGB.

    Raises
    ------
    InputError
        For another suffix, type or shape.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"The image was to be written as {path.name}, but only .png is lossless.")
    _check_array(image, channels=(3,))
    with atomic(path) as draft:
        Image.fromarray(image).save(draft, format="PNG")


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List image files: a folder stands for the images in and below it, sorted; a file for itself.

    Hidden files are left out of folders, and no file comes twice.

    Raises
    ------
    InputError
        If a folder holds no image.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        if not inside:
            raise InputError(
                f"The folder {path} holds no image; it must hold files ending in one of "
                f"{', '.join(SUFFIXES)}."
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def _from_array(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _check_array(array, channels=(3, 4))
    if array.ndim == 2:
        return np.stack([array] * 3, axis=-1)
    return np.ascontiguousarray(array[..., :3])


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


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, but one image file is expected here.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; check its name and folder.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); get a whole copy of the file.")


def _decode(image: Image.Image, name: str, path: Path | None) -> NDArray[np.uint8]:
    """Pixels of an opened image, upright and RGB; ``path`` is None for one made in memory."""
    if not image.width or not image.height:
        raise InputError(
            f"{name} has {image.width}x{image.height} pixels; it must hold at least 1."
        )
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise InputError(
            f"{name} holds {'floating-point' if image.mode == 'F' else '32-bit'} values of unknown "
            "range; convert it to 8 or 16 bits."
        )
    deep_colour = path is not None and _has_16_bit_colour(image)
    turned_by_opencv = deep_colour and image.format == "TIFF"
    image.load()  # raises where the file is cut short, which OpenCV only warns of
    # After load(): Pillow turns TIFFs itself while loading, and then forgets their orientation.
    orientation = 1 if turned_by_opencv else _orientation(image)
    if path is not None and deep_colour:
        rgb = Image.fromarray(_deep_colour(path))
    elif image.mode.startswith("I"):
        rgb = Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    else:
        rgb = image.convert("RGB")
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.array(rgb)


def _deep_colour(path: Path) -> NDArray[np.uint8]:
    # Pillow keeps the high byte only. IMREAD_COLOR would be simpler, but with 16-bit TIFFs it
    # returned uninitialised memory (OpenCV 5.0).
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.dtype != np.uint16:
        raise InputError(f"{path} cannot be read at its 16 bits; convert it to 8-bit PNG.")
    return _eight_bits(bgr[..., 2::-1])


def _has_16_bit_colour(image: Image.Image) -> bool:
    """Whether Pillow is about to reduce 16-bit RGB, RGBA or grey with alpha to 8 bits."""
    if image.format not in ("PNG", "TIFF") or not image.tile:  # type: ignore[attr-defined]
        return False
    arguments = image.tile[0].args  # type: ignore[attr-defined]
    raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    return str(raw_mode).startswith(("RGB;16", "RGBA;16", "LA;16"))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """``round(value / 257)`` in integers; 65535 = 255 * 257, and 257 is odd: no halves."""
    result = np.empty(values.shape, np.uint8)
    for row, wide in zip(result, values, strict=True):  # 32 bits of the whole may be gigabytes
        row[...] = (wide.astype(np.uint32) + 128) // 257
    return result


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a photograph with damaged EXIF is still a photograph
        return 1


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels, which is the most that is "
        "read; cut it into parts."
    )
