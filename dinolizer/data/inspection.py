"""What files say of themselves: sizes from headers, areas of masks; a hundred thousand a minute."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pandas as pd
from PIL import ExifTags, Image

from dinolizer.data.images import FORMATS, MAX_PIXELS, read_image, read_mask
from dinolizer.errors import InputError

Result = TypeVar("Result")

AREA_TOLERANCE = 1e-3
"""How far a manifest's area may be from its mask's."""


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the image that `read_image` would give, without decoding it.

    Of a PNG, an orientation is seen only where it stands before the pixels.

    Raises
    ------
    InputError
        As `read_image`, but what is damaged behind its header is not noticed.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # The method of PNG files would decode the pixels, to look for an orientation behind.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
            turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"  # turned by Pillow
            if 0 < width * height <= MAX_PIXELS:
                return (height, width) if turned else (width, height)
    except Exception:  # whatever it is, read_image has the sentence for it, or can read it
        pass
    height, width = read_image(path).shape[:2]
    return width, height


def mask_area(path: str | Path) -> tuple[int, int, float]:
    """Width and height of a mask, and the share of its pixels that `read_mask` finds edited.

    Raises
    ------
    InputError
        As `read_mask`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "PNG" and image.mode in ("1", "L"):
                histogram = image.histogram()
                width, height = image.size
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                ones_only = histogram[1] > 0 and not any(histogram[2:])
                if orientation == 1 and not ones_only and width * height <= MAX_PIXELS:
                    return width, height, sum(histogram[128:]) / (width * height)
    except Exception:  # as above, for read_mask
        pass
    mask = read_mask(path)
    return mask.shape[1], mask.shape[0], float(mask.mean())


def measure(
    function: Callable[[str], Result], paths: Iterable[str]
) -> dict[str, Result | InputError]:
    """Apply a function to every path once, in threads; an `InputError` is kept as the result."""

    def run(some: list[str]) -> list[Result | InputError]:
        results: list[Result | InputError] = []
        for path in some:
            try:
                results.append(function(path))
            except InputError as error:
                results.append(error)
        return results

    unique = list(dict.fromkeys(paths))
    parts = [unique[start : start + 256] for start in range(0, len(unique), 256)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = [result for part in pool.map(run, parts) for result in part]
    return dict(zip(unique, results, strict=True))


def check_files(frame: pd.DataFrame) -> int:
    """Check a manifest against its files; `validate` has checked the table itself.

    Every image and mask is there, the sizes and areas are as the table says, and no edited image
    has a mask that is all black. Pixels of images are not decoded, those of masks are.

    Returns
    -------
    How many masks have another size than their image; `read_pair` resizes them.

    Raises
    ------
    InputError
        Naming the first row that is wrong.
    """
    sizes = measure(image_size, frame["image"])
    masks = measure(mask_area, frame.loc[frame["mask"] != "", "mask"])
    resized = 0
    columns = ("image", "mask", "authentic", "width", "height", "area")
    for number, (image, mask, authentic, width, height, area) in enumerate(
        frame[list(columns)].itertuples(index=False)
    ):
        where = f"Row {number} of the manifest"
        size = sizes[image]
        if isinstance(size, InputError):
            raise InputError(f"{where}: {size}")
        if size != (width, height):
            raise InputError(
                f"{where} says {width}x{height} pixels, but {image} has {size[0]}x{size[1]}; make "
                "the manifest again."
            )
        if not mask:
            continue
        found = masks[mask]
        if isinstance(found, InputError):
            raise InputError(f"{where}: {found}")
        resized += found[:2] != size
        if authentic:
            continue
        if found[2] == 0:
            raise InputError(
                f"{where}: the mask {mask} is all black, but {image} is edited and white must mark "
                "where; mend the mask or take the row out."
            )
        if abs(found[2] - area) > AREA_TOLERANCE:
            raise InputError(
                f"{where} says that {area:.4f} of {image} is edited, but its mask says "
                f"{found[2]:.4f}; make the manifest again."
            )
    return resized
