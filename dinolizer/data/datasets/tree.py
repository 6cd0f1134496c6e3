"""A dataset's folder: its files by name, whatever their case."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dinolizer.data.files import LeftOut, walk
from dinolizer.data.images import SUFFIXES
from dinolizer.errors import InputError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names that datasets give to their splits, to the names that manifests use."""


@dataclass(frozen=True)
class Tree:
    """The images, tables and parquet files in and below a folder, and what `walk` leaves out.
    ``files`` leads from a path relative to ``root``, with ``/`` and in lower case, to the path."""

    root: Path
    files: dict[str, str]
    left_out: LeftOut

    def get(self, *names: str) -> str:
        """Path of a file, by its folders and name in any case; empty if it is absent."""
        return self.files.get("/".join(names).casefold(), "")

    def path(self, *names: str) -> str:
        """Path of a file, or the path it ought to have."""
        return self.get(*names) or os.path.join(self.root, *names)  # noqa: PTH118 (speed)

    def first(self, folders: Iterable[str], *names: str) -> str:
        """Path of a file in the first of some folders that has it; empty if none has."""
        return next(filter(None, (self.get(folder, *names) for folder in folders)), "")

    def find(self, listed: str, *folders: str) -> str:
        """Path of a file that a table lists, empty if it is absent; it may be written in the
        Windows way, from up to two folders above the root, or from one of ``folders`` below it."""
        parts = [part for part in listed.replace("\\", "/").split("/") if part not in ("", ".")]
        above = (self.get(*parts[start:]) for start in range(min(3, len(parts))))
        return next(filter(None, above), "") or self.first(folders, *parts)

    def stems(self, folder: str) -> dict[str, str]:
        """Path of each file below a folder by its name without suffix, in lower case."""
        prefix = f"{folder}/".casefold()
        return {Path(key).stem: path for key, path in self.files.items() if key.startswith(prefix)}

    def match(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """The files whose path relative to the root, with ``/``, is a pattern's, in any case."""
        for path in self.files.values():
            relative = path[len(str(self.root)) + 1 :].replace(os.sep, "/")
            if named := re.fullmatch(pattern, relative, re.IGNORECASE):
                yield path, named


def open_tree(root: Path, dataset: str, needed: Sequence[str]) -> Tree:
    """List the files of a dataset, which is called ``dataset`` in sentences.

    ``root`` must hold what is ``needed``: patterns of names, in any case; ``"orig|original"`` are
    two names of one thing. If nothing is, the files may be at any depth. Raises `InputError` if the
    folder is absent or lacks something, naming its parent or a folder in it that would do, and if
    two names differ only in case.
    """
    wanted = ", ".join(name.replace("|", " or ") for name in needed) or "its files"
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give that of {dataset}, with {wanted}.")
    if missing := _missing(root, needed):
        inside = sorted(path for path in root.iterdir() if path.is_dir())
        for other, level in ((root.parent, "low"), *((path, "high") for path in inside)):
            if not _missing(other, needed):
                raise InputError(
                    f"{root} is one level too {level} to be the folder of {dataset}; give {other}."
                )
        names = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root} holds {names}, but the folder of {dataset} must hold {wanted} "
            f"({missing[0].replace('|', ' or ')} is missing); give that folder."
        )
    tree = Tree(root, {}, {})
    for path in walk(root, tree.left_out):
        key = path[len(str(root)) + 1 :].replace(os.sep, "/").casefold()
        if not key.endswith((*SUFFIXES, ".csv", ".parquet")):
            continue
        if tree.files.setdefault(key, path) != path:
            raise InputError(f"{tree.files[key]} and {path} differ only in case; rename one.")
    return tree


def _missing(folder: Path, needed: Sequence[str]) -> list[str]:
    """Which of the patterns no name in the folder fits."""
    try:
        names = [path.name.casefold() for path in folder.iterdir()]
    except OSError:
        return list(needed)
    return [
        patterns
        for patterns in needed
        if not any(fnmatchcase(n, p.casefold()) for p in patterns.split("|") for n in names)
    ]
