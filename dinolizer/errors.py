"""The one error that a user can cause, how it is shown, and how progress is."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence: what was got, what is expected, and what to do. The command line
    prints it and exits with code 1; code that calls the package catches it as a ``ValueError``."""


def check_choice(what: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in (choices := list(allowed)):
        raise InputError(f"The {what} is {value!r}, but it must be one of {choices}.")


def refuse(reasons: Mapping[str, object]) -> None:
    """Raise the first of some sentences whose reason holds."""
    for sentence, holds in reasons.items():
        if holds:
            raise InputError(sentence)


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Say where nothing more can be written, of an OSError in the block."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        advice = "make room or give another folder, and run the same command again: it goes on"
        raise InputError(f"Results cannot be written to {folder} ({reason}); {advice}.") from None


def printable(text: str) -> str:
    """One line of text, whatever is in the names of files: what does not print is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def say(sentence: str) -> None:
    """Print a line to stderr, above whatever progress bar there is."""
    from tqdm import tqdm  # here: most who import an error say nothing

    tqdm.write(f"dinolizer: {printable(sentence)}", file=sys.stderr)


def progress(items: Iterable[Item], of: str, total: int | None = None) -> Iterable[Item]:
    """Count what is drawn, with the time left: on a terminal, and in a notebook in a browser."""
    from tqdm.auto import tqdm

    return tqdm(items, of, total=total, leave=False, disable=unwatched())


def unwatched() -> bool:
    """Whether nobody sees a progress bar: a notebook run without a browser would keep it."""
    in_browser = "JPY_SESSION_NAME" in os.environ  # Jupyter's server sets it
    return not in_browser and not sys.stderr.isatty()
