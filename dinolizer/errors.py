"""The one error that a user can cause, and how it is shown."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence: what was got, what is expected, and what to do. The command line
    prints it and exits with code 1; code that calls the package catches it as a ``ValueError``.
    """


def check_choice(what: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in (choices := list(allowed)):
        raise InputError(f"The {what} is {value!r}, but it must be one of {choices}.")


def refuse(reasons: Mapping[str, object]) -> None:
    """Raise the first of some sentences whose reason holds."""
    for sentence, holds in reasons.items():
        if holds:
            raise InputError(sentence)


def unwritable(folder: Path, error: OSError) -> InputError:
    """Say that nothing more can be written; what there is is kept."""
    return InputError(
        f"The results cannot be written to {folder} ({error.strerror or error}); make room or give "
        "a folder that you may write to, and run the same command again: it goes on."
    )


def printable(text: str) -> str:
    """One line of text, whatever is in the names of files: what does not print is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def say(sentence: str) -> None:
    """Print a line to stderr, above whatever progress bar there is."""
    from tqdm import tqdm  # here: most who import an error say nothing

    tqdm.write(f"dinolizer: {printable(sentence)}", file=sys.stderr)
