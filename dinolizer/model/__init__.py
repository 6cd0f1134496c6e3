"""The localizer: backbone, head, windows, and what trains them.

torch and timm are imported here, before all others import them: without a search for garbage, of
which there is none, and without torch's compiler. That takes as long to load as torch itself, and
torchvision and timm want but two functions of it, which wait."""

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is loaded when something is wanted of it that was not put here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks through all modules asks for these
            raise AttributeError(name)
        _clear()
        return getattr(import_module(self.__name__), name)


def _clear() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _Later)]:
        del sys.modules[name]


def _import_timm() -> None:
    import torch  # noqa: F401  # before what stands in for a part of it

    compiler, utils = _Later("torch._dynamo"), _Later("torch._dynamo.utils")
    asked = "is_compile_supported"
    # One of timm's models keeps the compiler out of a function of its own.
    vars(compiler)["disable"] = lambda function, *_, **__: function or (lambda inner: inner)
    vars(utils)[asked] = lambda device: utils.__getattr__(asked)(device)
    sys.modules |= {module.__name__: module for module in (compiler, utils)}
    import timm  # noqa: F401

    _clear()


if not {"timm", "torch._dynamo"} & sys.modules.keys():
    searched = gc.isenabled()
    gc.disable()
    _import_timm()
    gc.freeze()  # what was imported stays: to free it would take half a second at the end
    if searched:
        gc.enable()
