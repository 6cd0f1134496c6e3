"""Modes of the localizer: how many passes of the backbone an image's map is made of."""

from dataclasses import dataclass

from dinolizer.errors import InputError


@dataclass(frozen=True)
class Mode:
    """A named way to lay windows on an image.

    Attributes
    ----------
    name
        The key in `MODES`.
    description
        One sentence.
    """

    name: str
    description: str


MODES = {
    mode.name: mode
    for mode in (
        Mode("exact", "Every window of the head's stride, the last ones flush with the edges."),
    )
}


def pick_mode(name: str) -> Mode:
    """Mode of that name.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in MODES:
        raise InputError(f"The mode is {name!r}, but it must be one of {list(MODES)}.")
    return MODES[name]
