"""DinoLizer: generative inpainting localized from the patch tokens of a frozen transformer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinolizer.model.localizer import Localization, Localizer

__version__ = "0.1.0"
__all__ = ["Localization", "Localizer", "__version__"]


def __getattr__(name: str) -> object:
    """Import the localizer on first use: it brings torch along, which takes seconds."""
    if name in ("Localizer", "Localization"):
        from dinolizer.model import localizer

        return getattr(localizer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
