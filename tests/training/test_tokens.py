"""Tokens are computed once, kept under a key of all they depend on, and remade when damaged."""

import hashlib
import multiprocessing
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import small_backbone
from timm.layers import PatchEmbed
from torch import Tensor

from dinolizer.errors import InputError
from dinolizer.model import backbones
from dinolizer.model.batches import as_batch
from dinolizer.paths import atomic
from dinolizer.training import tokens as tokens_module
from dinolizer.training.tokens import extract, extract_layers

IMAGES = [np.random.default_rng(k).integers(0, 256, (56, 56, 3), np.uint8) for k in range(5)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes the backbone is called with, the probe of the key apart."""
    monkeypatch.setattr(backbones.Backbone, "fingerprint", "the same")
    sizes: list[int] = []
    asked = backbones.Backbone.tokens_of_layers

    def counted(self: backbones.Backbone, batch: Tensor, layers: Sequence[int]) -> list[Tensor]:
        sizes.append(len(batch))
        return asked(self, batch, layers)

    monkeypatch.setattr(backbones.Backbone, "tokens_of_layers", counted)
    return sizes


def test_tokens_are_the_backbones_own_in_half_precision(cache: Path) -> None:
    backbone = small_backbone()
    tokens = extract(backbone, IMAGES)
    assert tokens.dtype == torch.float16
    assert tokens.shape == (5, 32, 4, 4)
    for image, of_image in zip(IMAGES, tokens, strict=True):
        pixels = torch.tensor(image.astype(np.float32).transpose(2, 0, 1)[None] / 255)
        torch.testing.assert_close(of_image.float(), backbone(pixels)[0], atol=4e-3, rtol=1e-3)


def test_a_batch_is_rgb_from_0_to_1() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = [255, 51, 0]
    batch = as_batch([image], torch.device("cpu"))
    assert batch.shape == (1, 3, 2, 3)
    torch.testing.assert_close(batch[0, :, 1, 2], torch.tensor([1.0, 0.2, 0.0]))


def test_the_second_time_the_backbone_is_not_asked(cache: Path, forwards: list[int]) -> None:
    first = extract(small_backbone(), IMAGES)
    assert forwards == [4, 1]
    second = extract(small_backbone(), IMAGES)
    assert forwards == [4, 1]
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert len(list(cache.iterdir())) == 1


def test_layers_come_from_one_pass_and_the_last_one_is_shared(
    cache: Path, forwards: list[int]
) -> None:
    backbone = small_backbone()
    last = extract(backbone, IMAGES)
    layers = extract_layers(backbone, IMAGES, [1, 2])
    assert forwards == [4, 1, 4, 1]  # the second pass was for the first layer only
    assert list(layers) == [1, 2]
    torch.testing.assert_close(layers[2], last, rtol=0, atol=0)
    assert not torch.allclose(layers[1].float(), last.float(), atol=0.01)
    again = extract_layers(backbone, IMAGES, [1])
    assert forwards == [4, 1, 4, 1]
    torch.testing.assert_close(again[1], layers[1], rtol=0, atol=0)


def test_what_enters_the_first_layer_is_cached_though_it_lies_otherwise_in_memory(
    cache: Path,
) -> None:
    backbone = small_backbone()
    first = extract_layers(backbone, IMAGES[:4], [0, 2])  # one batch of four
    again = extract_layers(backbone, IMAGES[:4], [0, 2])
    assert len([*cache.iterdir()]) == 2
    for layer in (0, 2):
        torch.testing.assert_close(first[layer], again[layer], rtol=0, atol=0)


def one_pixel_changed() -> list[NDArray[np.uint8]]:
    changed = [image.copy() for image in IMAGES]
    changed[3][55, 55, 2] ^= 1
    return changed


@pytest.mark.parametrize(
    ("seed", "images"),
    [(1, IMAGES), (0, one_pixel_changed()), (0, IMAGES[::-1]), (0, IMAGES[:4])],
    ids=["weights", "pixel", "order", "number"],
)
def test_what_tokens_depend_on_is_in_the_key(
    seed: int, images: list[NDArray[np.uint8]], cache: Path, forwards: list[int]
) -> None:
    extract(small_backbone(), IMAGES)
    tokens = extract(small_backbone(seed), images)
    assert sum(forwards) == 5 + len(images)
    assert len(list(cache.iterdir())) == 2
    assert len(tokens) == len(images)


def test_other_code_or_libraries_are_in_the_key(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(small_backbone(), IMAGES)
    with monkeypatch.context() as patch:
        patch.setattr(tokens_module.timm, "__version__", "0.0")
        extract(small_backbone(), IMAGES)
    assert len(list(cache.iterdir())) == 2
    embed = PatchEmbed.forward
    monkeypatch.setattr(PatchEmbed, "forward", lambda self, image: 1.1 * embed(self, image))
    changed = extract(small_backbone(), IMAGES)
    assert len(list(cache.iterdir())) == 3
    assert not torch.allclose(changed.float(), first.float(), atol=0.01)


def test_tokens_that_are_no_numbers_are_refused_and_not_kept(cache: Path) -> None:
    backbone = small_backbone()
    backbone.model.norm.bias.data[3] = torch.inf
    with pytest.raises(InputError, match="The layer 2 of 'small' is not finite"):
        extract(backbone, IMAGES)
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "bit"])
def test_a_damaged_cache_file_is_computed_again(
    damage: str, cache: Path, forwards: list[int]
) -> None:
    expected = extract(small_backbone(), IMAGES)
    (file,) = cache.iterdir()
    data = file.read_bytes()
    one_bit = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
    damaged = {"cut": data[:-100], "garbage": b"x" * len(data), "empty": b"", "bit": one_bit}
    file.write_bytes(damaged[damage])
    torch.testing.assert_close(extract(small_backbone(), IMAGES), expected, rtol=0, atol=0)
    assert sum(forwards) == 2 * len(IMAGES)
    extract(small_backbone(), IMAGES)
    assert sum(forwards) == 2 * len(IMAGES)
    assert list(cache.iterdir()) == [file]


def one_of_two(meeting: Path, name: str) -> None:
    """Fill and read the cache in step with another process, on a slow disk."""

    def slowly(path: Path, content: bytes) -> None:
        whole = content + hashlib.sha256(content).digest()
        with atomic(path) as draft, draft.open("wb") as file:  # where the other finds half a file
            for first in range(0, len(whole), 100):
                file.write(whole[first : first + 100])
                file.flush()
                time.sleep(0.001)

    tokens_module.write_checked = slowly  # in this process alone
    torch.set_num_threads(1)
    backbone = small_backbone()
    for part in range(4):
        (meeting / f"{part} {name}").touch()
        end = time.monotonic() + 60  # where the other one has failed
        while len(list(meeting.glob(f"{part} *"))) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        images = [np.full((56, 56, 3), 16 * part + number, np.uint8) for number in range(5)]
        stored = extract(backbone, images).float()
        computed = tokens_module._compute(backbone, images, [backbone.depth], torch.float16)[
            backbone.depth
        ]
        torch.testing.assert_close(stored, computed.float(), rtol=0, atol=0)


def test_two_processes_at_once_fill_and_read_one_cache(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    fork = multiprocessing.get_context("fork")  # torch is not imported again
    processes = [
        fork.Process(target=one_of_two, args=(tmp_path / "meeting", name)) for name in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(cache.glob("*.tokens"))) == len(list(cache.iterdir())) == 4


def test_a_full_disk_is_one_sentence_and_leaves_no_half(cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    images = [np.zeros((56, 56, 3), np.uint8)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written to .* make room"):
            extract(small_backbone(), images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert len(extract(small_backbone(), images)) == 1


def test_images_of_several_sizes_or_none_are_refused(cache: Path) -> None:
    with pytest.raises(InputError, match="one and the same"):
        extract(small_backbone(), [IMAGES[0], IMAGES[1][:42]])
    with pytest.raises(InputError, match="one and the same"):
        extract(small_backbone(), [])
    assert not cache.exists()
