"""Many photographs as one stream of windows: batches do not end where a photograph ends."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinolizer.data.images import read_image
from dinolizer.errors import InputError
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer
from dinolizer.model.windows import Pixels, Plan

THREADS = 4
"""That read images ahead, and again as many that finish results behind."""

Source = str | Path | NDArray[np.uint8]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False)
class _Open:
    """A photograph whose windows are on their way."""

    image: NDArray[np.uint8]
    source: str
    plan: Plan
    windows: list[Pixels]
    logits: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0


def localize_many(
    localizer: Localizer,
    sources: Iterable[Source],
    then: Callable[[Localization], Out],
    *,
    batch: int | None = None,
    threads: int = THREADS,
) -> Iterator[Out | InputError]:
    """Localize images one after the other, as `Localizer` does each, at the backbone's own speed.

    Images are read ahead and results finished behind in threads. Every batch has the same number of
    windows (by default the localizer's), of as many images as it takes, the last one filled up with
    repeats: so what a window gives depends neither on its neighbours nor on where a run was taken
    up again; but where memory is short batches are halved, and the last bits may be others.

    Sources, as for `read_image`, are drawn from as results are taken: at any time the images of one
    batch are in memory, and some ``2 * threads`` more. Each result goes to ``then``, in a thread,
    which saves what is to be saved. What that returns, or why an image could not be read, is
    yielded in order. A result's ``seconds`` are its share, by windows, of the time that passed."""

    def load(source: Source) -> _Open | InputError:
        try:
            image = read_image(source)
            plan = localizer.plan(*image.shape[:2])
        except InputError as error:
            return error
        windows = plan.windows(image, localizer.backbone.device)
        return _Open(image, "" if isinstance(source, np.ndarray) else str(source), plan, windows)

    def finish(done: _Open | InputError) -> Out | InputError:
        if isinstance(done, InputError):
            return done
        return then(
            localizer.localization(done.image, done.plan, done.logits, done.source, done.seconds)
        )

    loaded = in_threads(load, sources, threads)
    batches = _through(localizer, loaded, batch or localizer.batch)
    yield from in_threads(finish, batches, threads)


def _through(
    localizer: Localizer, images: Iterable[_Open | InputError], size: int
) -> Iterator[_Open | InputError]:
    """Each image, with the logits of its windows on the device, when its last one is through."""
    queue: deque[_Open | InputError] = deque()
    waiting: deque[tuple[_Open, Pixels]] = deque()
    clock = time.perf_counter()

    def run() -> None:
        nonlocal clock
        batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        windows = [window for _, window in batch]
        logits = localizer.window_logits(windows + windows[-1:] * (size - len(windows)))
        now = time.perf_counter()
        for (opened, _), patch_logits in zip(batch, logits[: len(batch)].split(1), strict=True):
            opened.logits.append(patch_logits)
            opened.seconds += (now - clock) / len(batch)
        clock = now

    def ready() -> Iterator[_Open | InputError]:
        while queue:
            item = queue[0]
            if isinstance(item, _Open) and len(item.logits) < item.plan.passes:
                return
            yield queue.popleft()

    for item in images:
        queue.append(item)
        if isinstance(item, _Open):
            waiting.extend((item, window) for window in item.windows)
            item.windows.clear()
        # Each image that waits has a window in the batch: where more wait, most are errors.
        while len(waiting) >= size or (waiting and len(queue) > size):
            run()
        yield from ready()
    while waiting:
        run()
    yield from ready()


def in_threads(
    function: Callable[[In], Out], items: Iterable[In], threads: int = THREADS
) -> Iterator[Out]:
    """``map``, in threads and in order, at most ``threads`` ahead; the caller's own draws items."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Out]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
