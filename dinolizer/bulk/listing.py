"""The images of a bulk run: one list, whatever order it came in, and its shards."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dinolizer.data.files import find_images, read_csv
from dinolizer.errors import InputError


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a list, numbered from 1.

    Which images are in it depends on their names alone: not on their order, nor on what else is
    listed.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``"2/4"``: the second of four.

        Raises
        ------
        InputError
            For anything else, and for a number that is not from 1 to the count.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise InputError(
                f"The shard is {text!r}, but it must be NUMBER/COUNT with a number from 1 to the "
                "count, such as 1/4 or 4/4."
            )
        return cls(int(number), int(count))

    def has(self, name: str) -> bool:
        """Whether an image of that name is in this shard: by SHA-256 of the name, modulo count."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


@dataclass(frozen=True)
class Listing:
    """Images below a folder.

    Attributes
    ----------
    root
        The folder.
    names
        Paths relative to it, with ``/``, or absolute where an image lies elsewhere; sorted, each
        once.
    """

    root: Path
    names: tuple[str, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the names; see `list_hash`."""
        return list_hash(self.names)

    def path(self, name: str) -> Path:
        """Where an image is."""
        return self.root / name

    def name(self, path: str | Path) -> str:
        """Name of the image at a path that `path` gave."""
        return str(path).removeprefix(f"{self.root}{os.sep}")


def list_hash(names: Iterable[str]) -> str:
    """SHA-256 of names in sorted order: the same for the same images, listed in any order."""
    return hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()


def read_listing(source: Path) -> Listing:
    """List the images in and below a folder, or those in the column ``image`` of a CSV file.

    Of a manifest, or of any CSV file with such a column, nothing else is read; its paths are
    relative to the file's own folder or absolute.

    Raises
    ------
    InputError
        Where there is no such folder or file, or no image in it.
    """
    if source.is_dir():
        root = source.absolute()
        paths = [str(path) for path in find_images([root])]
    else:
        root = source.parent.absolute()
        # os.path: pathlib takes ten times as long, which counts with a million rows.
        paths = [os.path.join(root, name) for name in _column(source)]  # noqa: PTH118
    inside = f"{root}{os.sep}"
    names = {os.path.normpath(path).removeprefix(inside) for path in paths}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"The name of the image {name!r} is not UTF-8; rename the file."
            ) from None
    return Listing(root, tuple(sorted(names)))


def _column(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"There is no manifest {path}; give a CSV file, or a folder of images.")
    frame = read_csv(path, ["image"], usecols=["image"], dtype=str)
    names = list(frame["image"])
    if not all(names):
        raise InputError(
            f"{path} lists {names.count('')} images without a path and {len(names)} in all; give "
            "every image its path."
        )
    return names
