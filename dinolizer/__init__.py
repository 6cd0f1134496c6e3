"""DinoLizer: generative inpainting localized from the patch tokens of a frozen transformer."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinolizer.data.manifest import read_manifest
    from dinolizer.errors import InputError
    from dinolizer.model.backbones import load_backbone
    from dinolizer.model.localization import Localization
    from dinolizer.model.localizer import Localizer
    from dinolizer.training.recipes import train

__version__ = "0.1.0"
__all__ = ["InputError", "Localization", "Localizer", "load_backbone", "read_manifest", "train"]

_MODULES = {
    "InputError": "errors",
    "Localization": "model.localization",
    "Localizer": "model.localizer",
    "load_backbone": "model.backbones",
    "read_manifest": "data.manifest",
    "train": "training.recipes",
}


def __getattr__(name: str) -> object:
    """Import a name on first use: most bring torch along, which takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
