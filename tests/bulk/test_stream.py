"""A stream of images gives what each gives alone, in order, and holds only a few at a time."""

import time
import weakref
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small import random_head, small_backbone

from dinolizer.bulk.stream import in_threads, localize_many
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.head import HeadCard
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer

# One window, several, many, one pixel more, smaller than a window, and very long.
SIZES = [(56, 56), (70, 131), (57, 56), (20, 30), (112, 112), (56, 400), (1, 1), (90, 60)]


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def localizer(classes: int = 1, **settings: object) -> Localizer:
    backbone = small_backbone()
    policy = "pristine" if classes == 1 else "three-class"
    card = HeadCard("small", backbone.hash, policy, 56, 28, **settings)  # type: ignore[arg-type]
    return Localizer(backbone, random_head(backbone.dim, classes), card)


def itself(result: Localization) -> Localization:
    return result


@pytest.mark.parametrize("batch", [1, 3, 64, None])
@pytest.mark.parametrize(("classes", "small"), [(1, "pad"), (3, "resize")])
def test_a_stream_gives_what_each_image_gives_alone(
    batch: int | None, classes: int, small: str
) -> None:
    loc = localizer(classes, small=small, reduce="mean")
    photos = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    results = list(localize_many(loc, photos, itself, batch=batch))
    assert len(results) == len(photos)
    for image, result in zip(photos, results, strict=True):
        alone = loc(image)
        assert isinstance(result, Localization)
        np.testing.assert_allclose(result.probability, alone.probability, atol=1e-4)
        np.testing.assert_array_equal(result.image, image)
        assert result.score == pytest.approx(alone.score, abs=1e-4)
        for field in fields(Localization):
            if field.name not in ("probability", "mask", "image", "score", "seconds", "date"):
                assert getattr(result, field.name) == getattr(alone, field.name)


@pytest.mark.parametrize("stride", [28, 56])
def test_a_stream_passes_the_windows_of_each_image_once(stride: int) -> None:
    loc = localizer(small="resize").with_settings(stride=stride)
    photos = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    alone = [loc(image) for image in photos]
    passed: list[int] = []
    loc.backbone.register_forward_hook(lambda _module, inputs, _out: passed.append(len(inputs[0])))
    for one, result in zip(alone, localize_many(loc, photos, itself, batch=3), strict=True):
        assert isinstance(result, Localization)
        np.testing.assert_allclose(result.probability, one.probability, atol=1e-4)
        assert result.plan == one.plan
    # The last batch of three is filled up; so are those that run because images pile up.
    passes = sum(one.plan.passes for one in alone)
    assert passes <= sum(passed) <= passes + 2 * len(photos)


def test_what_an_image_gives_does_not_depend_on_its_neighbours() -> None:
    loc = localizer(small="pad")
    photos = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    whole = list(localize_many(loc, photos, itself))
    for some in ([7, 2, 4], [5], [1, 6, 0]):
        again = localize_many(loc, [photos[index] for index in some], itself)
        for index, result in zip(some, again, strict=True):
            np.testing.assert_array_equal(result.probability, whole[index].probability)


def test_what_cannot_be_read_takes_its_place_in_the_order(tmp_path: Path) -> None:
    loc = localizer()
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for number, path in enumerate(paths):
        if number % 3 == 1:
            path.write_text("no image")
        else:
            write_image(path, photo(56 + 20 * number, 60, number))
    results = list(localize_many(loc, paths, lambda result: result.source, batch=4))
    for number, (path, result) in enumerate(zip(paths, results, strict=True)):
        if number % 3 == 1:
            assert isinstance(result, InputError)
            assert f"{number}.png is a text file" in str(result)
        else:
            assert result == str(path)


def test_only_a_few_images_are_in_memory_however_many_there_are() -> None:
    loc, threads, batch = localizer(), 2, 4
    alive = drawn = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def stream(count: int) -> Iterator[NDArray[np.uint8]]:
        nonlocal alive, drawn, most
        for seed in range(count):
            image = photo(56, 56, seed)
            weakref.finalize(image, gone)
            alive, drawn = alive + 1, drawn + 1
            most = max(most, alive)
            yield image
            del image

    results = localize_many(
        loc, stream(80), lambda result: result.score, batch=batch, threads=threads
    )
    for number, _ in enumerate(results, start=1):
        # Read ahead, in the batch, behind it, and one in each pair of hands between them.
        assert drawn - number <= 2 * (threads + 1) + batch
    assert number == drawn == 80
    assert most <= 2 * (threads + 1) + batch + 1
    assert alive == 0


def test_errors_do_not_pile_up_behind_an_image_that_waits_for_its_batch(tmp_path: Path) -> None:
    drawn = 0

    def sources() -> Iterator[Path | NDArray[np.uint8]]:
        nonlocal drawn
        yield photo(56, 56)
        for number in range(100):
            drawn += 1
            yield tmp_path / f"{number}.png"

    results = localize_many(localizer(), sources(), itself, batch=8, threads=1)
    assert isinstance(next(results), Localization)
    assert drawn < 20
    assert sum(isinstance(result, InputError) for result in results) == 100


def test_the_seconds_of_all_images_are_the_time_that_passed() -> None:
    start = time.perf_counter()
    results = localize_many(localizer(), [photo(56, 56 + 28 * n) for n in range(6)], itself)
    seconds = [result.seconds for result in results if isinstance(result, Localization)]
    assert all(share > 0 for share in seconds)
    assert sum(seconds) <= time.perf_counter() - start


def test_an_error_in_what_is_done_with_a_result_stops_the_stream() -> None:
    def full(result: Localization) -> None:
        raise InputError("The disk is full.")

    with pytest.raises(InputError, match="disk is full"):
        list(localize_many(localizer(), [photo(56, 56)] * 20, full))


def test_threads_keep_the_order_and_a_closed_stream_leaves_none() -> None:
    def slow(number: int) -> int:
        time.sleep(0.01 if number % 2 else 0)
        return number

    assert list(in_threads(slow, range(20), 3)) == list(range(20))
    stream = in_threads(slow, iter(range(1000)), 3)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(stream)
