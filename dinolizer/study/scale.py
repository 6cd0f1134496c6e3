"""What many images cost: windows, hours, bytes and money, from the cost of one window.

Run as a module (``make scale``), it writes its tables into ``docs/scale.md`` anew.
"""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from dinolizer.errors import InputError
from dinolizer.model.windows import origins
from dinolizer.paths import ROOT, atomic

DOCUMENT = ROOT / "docs" / "scale.md"
WINDOW, STRIDE = 504, 128
"""The paper's."""
STRIDES = (128, 252, 504)
COUNTS = (10_000, 1_000_000, 1_000_000_000)
SIDE = 1024
"""Of the square image of which the tables count."""
SIZES = {
    "512 x 512": (512, 512),
    "256 x 256, resized to 1016 x 1016": (1016, 1016),
    "1024 x 1024": (1024, 1024),
    "1920 x 1080": (1080, 1920),
    "4000 x 3000 (12 megapixels)": (3000, 4000),
    "6000 x 4000 (24 megapixels)": (4000, 6000),
}

READ_BYTES = 0.3
"""Bytes a pixel of a file that is read: the study's photographs as JPEG of quality 90."""
MASK_BYTES, MAP_BYTES = 0.03, 0.45
"""Bytes a pixel of what is written: means over forged images."""
ROW_BYTES = 30
"""Bytes of a row of the table, with a path of 22 letters and random numbers."""
READ_SECONDS = 0.012
"""Seconds in which one core of the development machine reads a megapixel of JPEG."""


@dataclass(frozen=True)
class Machine:
    """Something that is paid by the hour.

    Attributes
    ----------
    name
        What it is.
    seconds
        That it takes for a window of 504 x 504 pixels and a ViT-B/14.
    price
        Of an hour, in any currency: assumed, not quoted.
    source
        Where ``seconds`` comes from.
    """

    name: str
    seconds: float
    price: float
    source: str


def transformer_flops(tokens: int, dim: int, depth: int, patch: int, prefix: int = 5) -> float:
    """Floating-point operations of one forward of a vision transformer, a multiply-add as two.

    Twelve ``dim x dim`` products a token and block (query, key, value, output, and four and four of
    the MLP), attention's two products with all tokens, and the embedding of the patches.

    Parameters
    ----------
    tokens
        With the class token and the registers, of which there are ``prefix``.
    """
    block = 12 * tokens * dim**2 + 2 * tokens**2 * dim
    return 2.0 * (depth * block + (tokens - prefix) * 3 * patch**2 * dim)


WINDOW_FLOPS = transformer_flops(tokens=36 * 36 + 5, dim=768, depth=12, patch=14)
H100_FLOPS, H100_SHARE = 989e12, 0.4

MACHINES = (
    Machine("CPU core", 3.65, 0.04, "measured: one core of the development machine, float32"),
    Machine("T4", 0.92 / 25, 0.40, "a third party's: 25 windows in 0.92 s, half precision"),
    Machine(
        "H100",
        WINDOW_FLOPS / (H100_FLOPS * H100_SHARE),
        3.00,
        "assumed: 40 % of the 989 TFLOP/s that its maker states for dense bfloat16",
    ),
)


def windows_of(height: int, width: int, window: int = WINDOW, stride: int = STRIDE) -> int:
    """Number of windows of an image of that size, in pixels, no side under the window."""
    return len(origins(height, window, stride)) * len(origins(width, window, stride))


def cost(count: int, pixels: int, windows: int, machine: Machine) -> dict[str, float]:
    """What a number of images costs.

    Parameters
    ----------
    count
        Images.
    pixels, windows
        Of each.
    machine
        That does the work.

    Returns
    -------
    dict
        ``windows``, ``hours`` of one machine, ``price``, and the bytes of the images read and of
        the rows, masks and maps written.
    """
    hours = count * windows * machine.seconds / 3600
    return {
        "windows": count * windows,
        "hours": hours,
        "price": hours * machine.price,
        "read": count * pixels * READ_BYTES,
        "rows": count * ROW_BYTES,
        "masks": count * pixels * MASK_BYTES,
        "maps": count * pixels * MAP_BYTES,
    }


def tables() -> dict[str, pd.DataFrame]:
    """Tables of the document, by name: ``windows``, ``machines``, ``hours`` and ``bytes``."""
    windows = windows_of(SIDE, SIDE)
    pixels = SIDE * SIDE
    costs = {count: cost(count, pixels, windows, MACHINES[0]) for count in COUNTS}
    return {
        "windows": pd.DataFrame(
            [
                {"image": name}
                | {f"stride {stride}": f"{windows_of(*size, stride=stride)}" for stride in STRIDES}
                for name, size in SIZES.items()
            ]
        ),
        "machines": pd.DataFrame(
            [
                {
                    "machine": machine.name,
                    "ms a window": short(1000 * machine.seconds),
                    "images a second": short(1 / (windows * machine.seconds)),
                    "cores that read for it": short(
                        pixels / 1e6 * READ_SECONDS / (windows * machine.seconds)
                    ),
                    "price of an hour": f"{machine.price:.2f}",
                    "source": machine.source,
                }
                for machine in MACHINES
            ]
        ),
        "hours": hours(MACHINES),
        "bytes": pd.DataFrame(
            [
                {"images": f"{count:,}"}
                | {
                    "read": size(costs[count]["read"]),
                    "rows written": size(costs[count]["rows"]),
                    "masks, if asked for": size(costs[count]["masks"]),
                    "maps, if asked for": size(costs[count]["maps"]),
                }
                for count in COUNTS
            ]
        ),
    }


def hours(machines: Sequence[Machine]) -> pd.DataFrame:
    """Hours and price of every number of images on every machine, as texts."""
    windows = windows_of(SIDE, SIDE)
    rows = []
    for count, machine in product(COUNTS, machines):
        values = cost(count, SIDE * SIDE, windows, machine)
        rows.append(
            {
                "images": f"{count:,}",
                "windows": short(values["windows"]),
                "machine": machine.name,
                "hours of one": short(values["hours"]),
                "of them to be done in a week": f"{math.ceil(values['hours'] / 168):,}",
                "price": short(values["price"]),
            }
        )
    return pd.DataFrame(rows)


def short(value: float) -> str:
    """Two digits that count, with separators: ``7.2``, ``370``, ``36,000,000``."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def size(count: float) -> str:
    """Bytes in the largest decimal unit that gives at least 1."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    step = min(int(math.log10(count) // 3), len(units) - 1)
    return f"{short(count / 1000**step)} {units[step]}"


def filled(text: str) -> str:
    """Put the tables into a text: each between ``<!-- NAME -->`` and ``<!-- end -->``.

    Raises
    ------
    InputError
        If the text has no place for one of them.
    """
    for name, frame in tables().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise InputError(
                f"The document has no place for the table {name!r}: write '<!-- {name} -->' and "
                "'<!-- end -->' on lines of their own."
            )
        table = markdown(frame)
        text = place.sub(rf"\g<1>{table}\g<2>", text)
    return text


def markdown(frame: pd.DataFrame) -> str:
    """A table of texts as Markdown."""
    rows = [list(map(str, frame)), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the document's tables, or print hours and price of a machine of one's own."""
    parser = argparse.ArgumentParser(prog="python -m dinolizer.study.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, help="that your machine takes for a window")
    parser.add_argument("--price", type=float, default=1.0, help="of an hour of it")
    given = parser.parse_args(arguments)
    if given.seconds is None:
        text = filled(DOCUMENT.read_text(encoding="utf-8"))
        with atomic(DOCUMENT) as draft:
            draft.write_text(text, encoding="utf-8")
    else:
        yours = Machine("yours", given.seconds, given.price, "given")
        print(markdown(hours([yours])), end="")


if __name__ == "__main__":
    main()
