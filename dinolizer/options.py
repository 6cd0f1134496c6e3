"""The choices and options that several commands share, without what takes long to import.

Commands import torch and the like inside: ``--help`` answers at once. So the choices are written
out; a test compares them with the tables that they are the keys of.
"""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

# fmt: off
ModelName = Literal[
    "dinolizer", "pocket", "pocket-learned", "pocket-rotary", "bfree",
    "dinov2-small", "dinov2-base", "dinov2-large", "dinov3-small", "dinov3-base", "dinov3-large",
    "untrained-pocket", "untrained-pocket-learned", "untrained-pocket-rotary", "untrained-bfree",
    "untrained-dinov2-small", "untrained-dinov2-base", "untrained-dinov2-large",
    "untrained-dinov3-small", "untrained-dinov3-base", "untrained-dinov3-large",
]
DatasetName = Literal[
    "bfree", "tgif", "cocoglide", "sagid", "btb", "brgen", "opensdi", "autosplice", "magicbrush",
    "inpaintings", "imdl", "csv",
]
# fmt: on
Precision = Literal["float32", "bfloat16", "float16"]
FetchName = Literal["dinolizer", "bfree", "cocoglide", "photos", "bsds", "inpaintings"]
Small = Literal["resize", "pad"]
Policy = Literal["pristine", "fake", "three-class"]
VariantName = Literal["v1", "v2"]

Model = Annotated[
    ModelName,
    Option(
        "--model",
        metavar="NAME",
        help="'dinolizer' and 'bfree' once they are fetched, 'pocket', 'pocket-learned', "
        "'pocket-rotary', 'dinov2-base', 'dinov3-base', either also '-small' or '-large', or "
        "'untrained-' and one of these.",
    ),
]
File = Annotated[Path | None, Option(metavar="FILE", help="By default the model's published one.")]
Answering = Annotated[
    ModelName | None,
    Option(metavar="NAME", help="By default 'dinolizer' where it was fetched, else 'pocket'."),
]
Threshold = Annotated[float | None, Option(min=0, max=1, help="Default: the head's.")]
Stride = Annotated[
    int | None, Option(min=1, help="In pixels; a wide one is fast; default: the head's.")
]
SmallImages = Annotated[Small | None, Option(help="Under a window; default: the head's.")]
Device = Annotated[str | None, Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")]
Precise = Annotated[Precision, Option(help="Of the backbone's products; faster on some hardware.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace results that are there already.")]
Profile = Annotated[str, Argument(metavar="PROFILE", help="A profile's name, or its YAML file.")]
