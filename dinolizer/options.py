"""The choices and options that several commands share, without what takes long to import.

Commands import torch and the like inside: ``--help`` answers at once. So the choices are written
out; a test compares them with the tables that they are the keys of."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

# fmt: off
ModelName = Literal[
    "dinolizer", "pocket", "pocket-learned", "pocket-rotary", "pocket-images", "pocket-generic",
    "pocket-learned-1", "pocket-rotary-1", "pocket-images-1", "pocket-generic-1",
    "pocket-learned-2", "pocket-rotary-2", "pocket-images-2", "pocket-generic-2", "bfree",
    "dinov2-small", "dinov2-base", "dinov2-large", "dinov3-small", "dinov3-base", "dinov3-large",
    "untrained-pocket", "untrained-pocket-learned", "untrained-pocket-rotary", "untrained-bfree",
    "untrained-dinov2-small", "untrained-dinov2-base", "untrained-dinov2-large",
    "untrained-dinov3-small", "untrained-dinov3-base", "untrained-dinov3-large",
]
DatasetName = Literal[
    "bfree", "tgif", "cocoglide", "sagid", "btb", "brgen", "opensdi", "autosplice", "magicbrush",
    "folder", "imdl", "csv",
]
# fmt: on
Precision = Literal["float32", "bfloat16", "float16"]
Engine = Literal["torch", "openvino", "onnx", "auto"]
FetchName = Literal["dinolizer", "bfree", "cocoglide", "photos", "bsds", "inpaintings"]
Small = Literal["resize", "pad"]
Policy = Literal["pristine", "fake", "three-class"]
VariantName = Literal["v1", "v2"]

Model = Annotated[
    ModelName,
    Option(
        "--model",
        metavar="NAME",
        help="'dinolizer' and 'bfree' once they are fetched, 'pocket', 'dinov2-base', "
        "'dinov3-base', either also '-small' or '-large', or 'untrained-' and one of these.",
    ),
]
File = Annotated[Path | None, Option(metavar="FILE", help="By default the model's published one.")]
Device = Annotated[str | None, Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")]
Precise = Annotated[Precision, Option(help="Of the backbone's products; faster on some hardware.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace results that are there already.")]
Profile = Annotated[str, Argument(metavar="PROFILE", help="A profile's name, or its YAML file.")]


@dataclass(frozen=True)
class Answering:
    """Which model answers, and how: options that several commands have."""

    model: Annotated[
        ModelName | None,
        Option(metavar="NAME", help="By default 'dinolizer' where it was fetched, else 'pocket'."),
    ] = None
    head: File = None
    weights: File = None
    threshold: Annotated[float | None, Option(min=0, max=1, help="Default: the head's.")] = None
    stride: Annotated[
        int | None, Option(min=1, help="In pixels; a wide one is fast; default: the head's.")
    ] = None
    small: Annotated[Small | None, Option(help="Under a window; default: the head's.")] = None
    device: Device = None
    precision: Annotated[
        Precision | None,
        Option(help="Of the backbone's products; default: float32, or what 'auto' takes."),
    ] = None
    engine: Annotated[
        Engine, Option(help="'auto': the fastest that is installed and agrees with torch.")
    ] = "torch"


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Answering`, in place of its ``chosen``."""
    others = [part for part in signature(command).parameters.values() if part.name != "chosen"]
    shared = signature(Answering).parameters

    def run(**given: Any) -> None:
        chosen = Answering(**{name: given.pop(name) for name in shared})
        command(**given, chosen=chosen)

    parts = [part.replace(kind=Parameter.KEYWORD_ONLY) for part in (*others, *shared.values())]
    typed: Any = run
    typed.__name__, typed.__doc__ = command.__name__, command.__doc__
    typed.__signature__ = Signature(parts)
    typed.__annotations__ = {part.name: part.annotation for part in parts}
    return run
