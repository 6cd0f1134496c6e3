"""Memory is bounded: maps in strips, and batches that fit."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from small import random_head, small_backbone
from torch import Tensor, nn

from dinolizer.bulk.stream import localize_many
from dinolizer.errors import InputError
from dinolizer.model import batches
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import BYTES_PER_PIXEL, batch_size
from dinolizer.model.head import HeadCard
from dinolizer.model.localization import Localization, gathered
from dinolizer.model.localizer import Localizer
from dinolizer.training.tokens import extract

CPU = torch.device("cpu")


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def localizer() -> Localizer:
    backbone = small_backbone()
    card = HeadCard("small", backbone.hash, "pristine", 56, 28, small="pad")
    return Localizer(backbone, random_head(backbone.dim), card)


def itself(result: Localization) -> Localization:
    return result


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 33), (10, 10), (101, 1), (57, 130)])
def test_the_score_of_strips_is_numpys_percentile(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    array = rng.random(size, np.float32)
    array[rng.random(size) < 0.3] = 0.75  # many that are equal
    probability, score = gathered(torch.from_numpy(array).split(7), size)
    np.testing.assert_array_equal(probability, array)
    assert score == pytest.approx(np.percentile(array.astype(np.float64), 99), rel=1e-12)


def peak() -> int:
    """Most bytes that this process has had in memory so far."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def localize_a_tall_image() -> None:
    """Exit with the megabytes that it took, 250 at most: to be run in a fresh process, as one that
    is forked has memory of the tests before, in which the image's would find room."""
    torch.set_num_threads(1)
    backbone = small_backbone()
    card = HeadCard("small", backbone.hash, "three-class", 224, 224)
    loc = Localizer(backbone, random_head(backbone.dim, 3), card)
    image = np.ones((100_000, 224, 3), np.uint8)
    loc(image[:2240])
    before = peak()
    loc(image)
    sys.exit(min((peak() - before) // 10**6, 250))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_of_a_tall_image_little_more_than_map_and_mask_is_in_memory() -> None:
    """22.4 million pixels: the map takes 90 MB, as much again while its score is sought, and the
    mask 22 MB. Each of the three channels of its logits would take 90 MB."""
    child = subprocess.run([sys.executable, __file__], check=False)
    assert 90 <= child.returncode < 230


class Cramped(nn.Module):
    """A backbone that finds memory for two windows, and else fails as torch does."""

    def __init__(self, error: Exception | None, room: int = 2) -> None:
        super().__init__()
        self.inner, self.error, self.room = small_backbone(), error, room
        self.batches: list[int] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.batches.append(len(batch))
        if len(batch) > self.room:
            if self.error is None:
                torch.empty(10**15)  # no machine has this: torch's own error
            else:
                raise self.error
        return self.inner(batch)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)


ERRORS = [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")]


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "python", "cuda"])
def test_batches_are_halved_when_memory_runs_out_and_a_line_says_so(
    error: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy = localizer()
    cramped = Cramped(error)
    loc = Localizer(cramped, roomy.head, roomy.card)  # type: ignore[arg-type]
    image = photo(56, 56 + 5 * 28)  # 6 windows
    np.testing.assert_allclose(loc(image).probability, roomy(image).probability, atol=1e-5)
    assert cramped.batches == [4, 2, 2, 2]
    said = capsys.readouterr().err
    assert said == "dinolizer: Memory ran out with 4 windows: from here on batches of 2.\n"
    loc(image)
    assert cramped.batches[4:] == [2, 2, 2]
    assert capsys.readouterr().err == ""


def test_what_an_image_gives_does_not_depend_on_its_neighbours_in_halved_batches_either() -> None:
    roomy = localizer()
    photos = [photo(56, 56 + 28 * number, number) for number in range(6)]

    def maps(chosen: list[int]) -> list[NDArray[np.float32]]:
        cramped = Cramped(None)
        loc = Localizer(cramped, roomy.head, roomy.card)  # type: ignore[arg-type]
        results = list(localize_many(loc, [photos[index] for index in chosen], itself))
        assert set(cramped.batches) == {4, 2}
        return [result.probability for result in results if isinstance(result, Localization)]

    whole = maps([0, 1, 2, 3, 4, 5])
    for some in ([5, 2], [3], [4, 0, 1]):
        for index, again in zip(some, maps(some), strict=True):
            np.testing.assert_array_equal(again, whole[index])


def test_tokens_are_extracted_in_halved_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [photo(56, 56, seed) for seed in range(5)]
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "roomy"))
    expected = extract(small_backbone(), images)
    asked = Backbone.tokens_of_layers

    def cramped(self: Backbone, batch: Tensor, layers: list[int]) -> list[Tensor]:
        if len(batch) > 1:
            raise MemoryError
        return asked(self, batch, layers)

    monkeypatch.setattr(Backbone, "tokens_of_layers", cramped)
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cramped"))
    torch.testing.assert_close(extract(small_backbone(), images), expected, atol=2e-3, rtol=1e-3)
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [
        " Memory ran out with 4 windows",
        " Memory ran out with 2 windows",
    ]


def test_memory_for_less_than_a_window_is_one_sentence_and_other_errors_pass() -> None:
    roomy = localizer()
    none = Localizer(Cramped(None, room=0), roomy.head, roomy.card)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not enough for one window"):
        none(photo(60, 60))
    wrong = Cramped(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Localizer(wrong, roomy.head, roomy.card)(photo(60, 170))  # type: ignore[arg-type]
    assert wrong.batches == [4]


@pytest.mark.parametrize(("windows", "expected"), [(100, 4), (4, 4), (3.9, 2), (1.9, 1), (0, 1)])
def test_batches_take_half_of_the_free_memory_at_most(
    windows: float,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    free = int(windows * 2 * BYTES_PER_PIXEL * 100**2)  # twice what so many windows take
    memory = psutil.virtual_memory()._replace(available=free)
    monkeypatch.setattr(batches.psutil, "virtual_memory", lambda: memory)
    assert batch_size(CPU, 100) == expected
    said = capsys.readouterr().err
    line = f"dinolizer: Memory is short: batches of {expected} windows and not of 4.\n"
    assert said == ("" if expected == 4 else line)
    assert batch_size(CPU) == 4


if __name__ == "__main__":
    localize_a_tall_image()
