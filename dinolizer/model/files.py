"""Image files localized one after the other, with a line about each."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm.auto import tqdm

from dinolizer.data.images import read_header
from dinolizer.errors import InputError, printable, refuse, say, unwatched
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer

SLOW = 200
"""Windows of an image over which a wider stride is named."""


def result_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Each image with the name of its results: its stem, and where two have it a hash besides."""
    paths = list(dict.fromkeys(paths))
    number = Counter(path.stem.lower() for path in paths)
    hashes = {path: hashlib.sha256(os.fsencode(path)).hexdigest()[:8] for path in paths}
    alone = {path for path in paths if number[path.stem.lower()] == 1}
    names = {path: path.stem if path in alone else f"{path.stem}-{hashes[path]}" for path in paths}
    one = "Results of two of the images would have one name; give these to two folders."
    refuse({one: len(set(names.values())) < len(names)})
    return names


def localize_files(
    localizer: Localizer,
    images: Mapping[Path, str],
    save: Callable[[Localization, str], object],
    *,
    as_json: bool = False,
) -> list[str]:
    """Give each result and its name (see `result_names`) to ``save``, and print a line, or the
    summary as JSON; return the sentences on the images that failed, which are said too."""
    failed: list[str] = []
    introduced = False
    for path, name in tqdm(images.items(), disable=len(images) == 1 or unwatched()):
        try:
            say_slow(localizer, path)
            result = localizer(path, progress=True)
            save(result, name)
        except InputError as error:
            failed.append(str(error))
            say(str(error))
            continue
        if not introduced:
            say_which(localizer)
            introduced = True
        renamed = "" if name == path.stem else f"  saved as {name}"
        score = f"score {result.score:.3f} ({result.meaning})"
        line = f"{path}  {score}  predicted area {result.predicted_area:.1%}"
        tqdm.write(json.dumps(result.summary()) if as_json else printable(line + renamed))
    return failed


def localize_bytes(localizer: Localizer, name: str, content: bytes) -> Localization:
    """Localize in a photograph that came as a file's name and content; nothing stays on disk."""
    with TemporaryDirectory() as folder:
        path, name = Path(folder, "picture"), printable(Path(name).name) or "picture"
        path.write_bytes(content)
        try:
            return replace(localizer(path), source=name)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def say_which(localizer: Localizer) -> None:
    """Say which model answers, and what its reader must know."""
    spec = localizer.backbone.spec
    say(f"model '{spec.name}'. {spec.caution}")


def say_slow(localizer: Localizer, path: Path) -> None:
    """Say what a wider stride would save, before an image of many windows."""
    header = read_header(path)
    wide = localizer.with_settings(stride=localizer.window)
    passes, tiles = (one.plan(header.height, header.width).passes for one in (localizer, wide))
    if passes > max(SLOW, tiles):
        fewer = f"--stride {localizer.window} takes {tiles}, and gives a somewhat different map"
        say(f"{path} has {passes} windows; {fewer}.")
