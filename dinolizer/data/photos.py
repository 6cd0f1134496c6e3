"""The photographs of the pocket study: natural colour pictures that come inside two libraries."""

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from dinolizer.data.images import read_image
from dinolizer.errors import InputError

PHOTOS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "china": ("sklearn.datasets", "images/china.jpg"),
    "flower": ("sklearn.datasets", "images/flower.jpg"),
}
"""Name to package and file. Licences: see the packages' own notes beside the files."""


def load_photo(name: str) -> NDArray[np.uint8]:
    """Load one of `PHOTOS`: uint8 ``(H, W, 3)`` RGB.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name not in PHOTOS:
        raise InputError(f"The photograph is {name!r}, but it must be one of {list(PHOTOS)}.")
    package, file = PHOTOS[name]
    with as_file(files(package) / file) as path:
        return read_image(path)
