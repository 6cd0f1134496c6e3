"""What a map costs: time against pixels, the backbone's share, and what a wider stride saves."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from skimage.util import montage
from torch.utils.benchmark import Timer

from dinolizer.model.localizer import Localizer
from dinolizer.study.evaluation import pictures
from dinolizer.study.samples import draw_rows

LARGE = 1024  # pixels: several windows
MOSAIC_RULE = (
    f"one picture for each photograph, at least {LARGE} pixels on a side; smaller images are put "
    "side by side to a square mosaic"
)


def median_seconds(run: Callable[[], object], min_seconds: float) -> float:
    """Median wall-clock seconds of a run, repeated for at least so long after a warm-up."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=min_seconds).median


@torch.inference_mode()
def seconds_by_size(localizer: Localizer, sides: Sequence[int], min_seconds: float) -> pd.DataFrame:
    """Time the localizer, and its backbone alone on as many windows, on squares of noise with
    ``sides`` of so many windows: ``side`` and ``megapixels``, ``passes``, median ``seconds`` and
    ``backbone_seconds``, and ``backbone_share``, their ratio."""
    rows = []
    window = torch.zeros(1, 3, localizer.window, localizer.window, device=localizer.backbone.device)
    for side in (localizer.window * count for count in sides):
        square = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        passes = localizer.plan(side, side).passes
        batches = window.expand(passes, -1, -1, -1).split(localizer.batch)
        seconds = median_seconds(lambda: localizer(square), min_seconds)  # noqa: B023
        alone = median_seconds(lambda: [*map(localizer.backbone, batches)], min_seconds)  # noqa: B023
        rows.append((side, side**2 / 1e6, passes, seconds, alone, alone / seconds))
    columns = ["side", "megapixels", "passes", "seconds", "backbone_seconds", "backbone_share"]
    return pd.DataFrame(rows, columns=columns)


def large_pictures(
    manifest: pd.DataFrame, count: int = 0, seed: int = 0
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Make one picture for each photograph of edited images, see `MOSAIC_RULE`; of at most
    ``count``, 0 for all. Images of one size for a mosaic, and photographs, are drawn by the seed.
    Yields the photograph's name, the picture, uint8 ``(H, W, 3)``, and its truth."""
    for first in draw_rows(manifest.drop_duplicates("group"), count, seed).to_dict("records"):
        same = ["group", "width", "height"]
        alike = manifest[(manifest[same] == [first[name] for name in same]).all(axis=1)]
        across = -(-LARGE // min(first["width"], first["height"]))
        few = len(alike) < across**2
        drawn = alike.sample(across**2, replace=few, random_state=seed)
        images, truths, _ = zip(*pictures(drawn), strict=True)
        square = {"grid_shape": (across, across)}
        picture = montage(np.stack(images), **square, channel_axis=-1)
        yield first["group"], picture, montage(np.stack(truths), **square)
