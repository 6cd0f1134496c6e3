"""What a map costs: time against pixels, the share of each stage, the limit, and every mode."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from dinolizer.data.images import read_image, write_image
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import as_batch
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.study.evaluation import ALL_FAMILIES, Method, Predict, evaluate_all, summarise
from dinolizer.study.heads import localizers
from dinolizer.study.loops import cut
from dinolizer.study.machine import Demand, seconds_of
from dinolizer.study.pairing import compare
from dinolizer.study.timing import interleaved_seconds

EXACT = "exact"
FEWER, LOST = 4.0, 0.005
"""The goal of a fast mode: so many times fewer passes, at so much macro IoU lost at most."""
OVERHEAD = {"cpu": 0.03, "cuda": 0.10}
"""The goal of the exact mode: its time over that of the backbone alone."""
SIDE = 512
"""Pixels of a side of the image that peers and stages are measured on: no window is larger."""
ENDS = ("", "_low", "_high")

Value = TypeVar("Value")


def seconds_by_pixels(
    localizer: Localizer, image: NDArray[np.uint8], sides: Sequence[int], repeats: int
) -> pd.DataFrame:
    """Time the localizer on squares of an image, which is repeated to fill them.

    Parameters
    ----------
    localizer
        In any mode.
    image
        uint8 ``(H, W, 3)`` RGB.
    sides
        Of the squares, in windows.
    repeats
        Rounds; in each the squares are met in turn.

    Returns
    -------
    DataFrame
        A row for each square and round: ``side`` in pixels, ``megapixels, passes, seconds``.
    """
    squares = {side: tiled(image, side) for side in (localizer.window * one for one in sides)}
    found: dict[int, Localization] = {}

    def run(side: int) -> None:
        found[side] = localizer(squares[side])

    def runs(side: int) -> Callable[[], None]:
        return lambda: run(side)

    rounds = interleaved_seconds({str(side): runs(side) for side in squares}, repeats)
    return pd.DataFrame(
        [
            (side, side**2 / 1e6, found[side].passes, seconds)
            for side in squares
            for seconds in rounds[str(side)]
        ],
        columns=["side", "megapixels", "passes", "seconds"],
    )


def tiled(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Square of that side, of copies of an image."""
    copies = (-(-side // length) for length in image.shape[:2])
    return np.ascontiguousarray(np.tile(image, (*copies, 1))[:side, :side])


def line_fit(points: pd.DataFrame) -> pd.DataFrame:
    """Least squares of ``seconds`` on ``megapixels``, over all rounds.

    Returns
    -------
    DataFrame
        One row: ``seconds_per_megapixel`` with the ends ``low`` and ``high`` of its 95 % interval
        (Student's t), ``seconds_at_zero``, ``r_squared`` and ``n``.
    """
    fitted = stats.linregress(points["megapixels"], points["seconds"])
    reach = stats.t.ppf(0.975, len(points) - 2) * fitted.stderr
    return pd.DataFrame(
        [
            {
                "seconds_per_megapixel": fitted.slope,
                "low": fitted.slope - reach,
                "high": fitted.slope + reach,
                "seconds_at_zero": fitted.intercept,
                "r_squared": fitted.rvalue**2,
                "n": len(points),
            }
        ]
    )


def stage_seconds(localizer: Localizer, image: NDArray[np.uint8], repeats: int) -> pd.DataFrame:
    """Time each stage of an image's way from a PNG file to the files of its map, one by one.

    Parameters
    ----------
    localizer
        In the exact mode.
    image
        uint8 ``(H, W, 3)`` RGB, no side under the window.
    repeats
        Rounds, after one that is not counted.

    Returns
    -------
    DataFrame
        ``stage``, median ``seconds``, and ``share``, of the sum of all stages.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        write_image(path, image)
        rounds = [_stages(localizer, path) for _ in range(repeats + 1)]
    median = pd.DataFrame(rounds[1:]).median()
    return pd.DataFrame(
        {"stage": median.index, "seconds": median.values, "share": (median / median.sum()).values}
    )


@torch.inference_mode()
def _stages(localizer: Localizer, path: Path) -> dict[str, float]:
    """Seconds of each stage, once."""
    seconds: dict[str, float] = {}

    def timed(stage: str, run: Callable[[], Value]) -> Value:
        made: list[Value] = []
        seconds[stage] = seconds_of(lambda: made.append(run()))
        return made[0]

    backbone, head = localizer.backbone, localizer.head
    image = timed("read", lambda: read_image(path))
    batch = timed("prepare", lambda: as_batch(cut(localizer, image), backbone.device))
    tokens = timed(
        "backbone", lambda: torch.cat([backbone(part) for part in batch.split(localizer.batch)])
    )
    patch_logits = timed("head", lambda: head(tokens))
    height, width = image.shape[:2]
    layout = localizer.layout(height, width)
    found = timed(
        "assemble",
        lambda: [
            localizer.probability(strip)
            for strip in localizer.strips([patch_logits], layout, (height, width))
        ],
    )
    result = timed(
        "mask and score", lambda: localizer.localization(image, found, layout, str(path))
    )
    timed("save", lambda: result.save(path.parent, "map"))
    return seconds


def limits(asked: Demand, peak: float, bandwidth: float, seconds: float) -> pd.DataFrame:
    """The least time of a window that arithmetic and memory allow, beside the measured one.

    Parameters
    ----------
    asked
        By a window.
    peak, bandwidth
        Floating-point operations and bytes a second of the machine.
    seconds
        Of a window through the backbone alone.

    Returns
    -------
    DataFrame
        ``limit, amount, rate, milliseconds, share``: 10^9 operations or bytes of a window and a
        second, the time that follows, and its share of the measured one.
    """
    bounds = (
        ("arithmetic", asked.flops, peak),
        ("memory, weights and pixels only", asked.least_bytes, bandwidth),
        ("memory, each operation by itself", asked.most_bytes, bandwidth),
    )
    rows = [
        (name, amount / 1e9, rate / 1e9, 1e3 * amount / rate, amount / rate / seconds)
        for name, amount, rate in bounds
    ]
    rows.append(("measured, backbone alone", np.nan, np.nan, 1e3 * seconds, 1.0))
    return pd.DataFrame(rows, columns=["limit", "amount", "rate", "milliseconds", "share"])


def passes_by_size(
    localizer: Localizer, sides: Sequence[int], modes: Sequence[str]
) -> pd.DataFrame:
    """Passes that each mode takes for squares, by where its windows lie; nothing is run.

    Parameters
    ----------
    localizer
        Its backbone, head and card are those of every mode.
    sides
        Of the squares, in windows.
    modes
        Keys of `dinolizer.model.modes.MODES`.

    Returns
    -------
    DataFrame
        ``mode, side`` (pixels), ``passes`` and ``tokens``, their patches; ``most_passes``, with
        all windows that a mode may add where its map is undecided.
    """
    lines = []
    for mode in modes:
        own = Localizer(localizer.backbone, localizer.head, localizer.card, mode=mode)
        for side in (localizer.window * one for one in sides):
            layout = own.layout(side, side)
            most = layout.passes + len(layout.between)
            lines.append((mode, side, layout.passes, layout.tokens, most))
    return pd.DataFrame(lines, columns=["mode", "side", "passes", "tokens", "most_passes"])


def mode_rows(
    backbone: Backbone,
    heads: Mapping[str, nn.Conv2d],
    manifest: pd.DataFrame,
    modes: Sequence[str],
) -> pd.DataFrame:
    """Map every image in every mode, in turn, by the head that never met its photograph.

    Returns
    -------
    DataFrame
        The rows of `dinolizer.study.evaluation.evaluate_all`, ``method`` being the mode, and the
        ``passes`` and patch ``tokens`` of each map.
    """
    spent: dict[tuple[str, str], tuple[int, int]] = {}

    def of(mode: str) -> Predict:
        own = localizers(backbone, heads, mode)

        def predict(image: NDArray[np.uint8], row: Mapping[Any, Any]) -> NDArray[np.floating]:
            found = own[row["group"]](image)
            spent[mode, row["image"]] = (found.passes, found.tokens)
            return found.probability

        return predict

    methods: dict[str, Method] = {mode: (of(mode), 0.5) for mode in modes}
    rows = evaluate_all(methods, manifest, ranking=False)
    costs = [spent[key] for key in zip(rows["method"], rows["image"], strict=True)]
    return rows.assign(
        passes=[passes for passes, _ in costs], tokens=[tokens for _, tokens in costs]
    )


def mode_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What each mode costs and finds, and its difference to the exact mode on the same images.

    Parameters
    ----------
    rows : of `mode_rows`, the exact mode among them.
    seed : of the bootstrap.

    Returns
    -------
    A line a mode: ``mode, n_images``; ``passes`` and ``tokens``, means over the images;
    ``fewer_passes`` and ``fewer_tokens``, how many times fewer than in the exact mode; ``iou`` and
    ``f1``, means over the families, with ``_low`` and ``_high``; their ``_change`` against the
    exact mode with ``_change_low`` and ``_change_high``, paired (`dinolizer.study.pairing`).
    """
    table = summarise(rows, seed)
    table = table[table["family"] == ALL_FAMILIES].set_index("method")
    spent = rows.groupby("method", sort=False)[["passes", "tokens"]].mean()
    lines = []
    for mode in spent.index:
        line = {"mode": mode, "n_images": table.loc[mode, "n_images"], **spent.loc[mode]}
        for what in ("passes", "tokens"):
            line[f"fewer_{what}"] = spent.loc[EXACT, what] / spent.loc[mode, what]
        for score in ("iou", "f1"):
            line |= {f"{score}{end}": table.loc[mode, f"{score}{end}"] for end in ENDS}
            differences = compare(rows, mode, [EXACT], score=score, by=["kind"], seed=seed)
            paired = differences.set_index("family").loc[ALL_FAMILIES]
            line |= {f"{score}_change": paired["difference"]}
            line |= {f"{score}_change_{end}": paired[end] for end in ("low", "high")}
        lines.append(line)
    return pd.DataFrame(lines)


def mode_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """Time of each mode on the same images: ``mode``, median ``seconds`` of an image, and
    ``faster``, the median of how many times faster than the exact mode it was on an image."""
    seconds = rows.pivot(index="image", columns="method", values="seconds")
    seconds = seconds[list(rows["method"].unique())]
    faster = seconds.rdiv(seconds[EXACT], axis=0).median()
    return pd.DataFrame(
        {"mode": seconds.columns, "seconds": seconds.median().values, "faster": faster.values}
    )


def reaches_goal(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of `mode_table` with `FEWER` times fewer passes and at most `LOST` IoU lost."""
    return table[(table["fewer_passes"] >= FEWER) & (table["iou_change"] >= -LOST)]
