"""A checkpoint in the release's layout becomes its model; anything else is refused."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import (
    Release,
    build_small_release,
    make_release,
    randomize,
    release_state,
    save_release,
)
from numpy.typing import NDArray
from PIL import Image
from servers import Server, serving
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from dinolizer import Localizer
from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.model.published import PUBLISHED, fetch
from dinolizer.model.specs import BACKBONES, IMAGENET_MEAN, IMAGENET_STD
from dinolizer.model.weights import fetched_path, head_file

WINDOW, STRIDE = 56, 14  # the release's 504 and 128, a ninth


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    small = replace(
        BACKBONES["dinolizer"], architecture=build_small_release, window=WINDOW, stride=STRIDE
    )
    monkeypatch.setitem(BACKBONES, "dinolizer", small)
    return tmp_path / "cache"


@pytest.fixture
def release() -> Release:
    return make_release(randomize(build_small_release()))


def unmerged_logits(release: Release, batch: Tensor) -> Tensor:
    """Logits ``(N, 3, h, w)`` by the formula of LoRA-ViT: the adapters beside the frozen layers."""

    def adapter(block: int) -> Callable[..., Tensor]:
        def hook(_layer: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            output, dim = output.clone(), release.model.embed_dim
            for third, rows in (("q", slice(0, dim)), ("v", slice(2 * dim, 3 * dim))):
                a, b = release.adapters[block, third]
                output[..., rows] += 64 // 64 * (inputs[0] @ a.T) @ b.T
            return output

        return hook

    hooks = [
        block.attn.qkv.register_forward_hook(adapter(number))
        for number, block in enumerate(release.model.blocks)
    ]
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        tokens = release.model.forward_features((batch - mean) / std)[:, 5:]  # (N, h w, D)
        logits = tokens @ release.weight.T + release.bias
    for hook in hooks:
        hook.remove()
    side = math.isqrt(logits.shape[1])
    return logits.transpose(1, 2).unflatten(2, (side, side))


def published_protocol(release: Release, image: NDArray[np.uint8]) -> tuple[Tensor, float]:
    """Map and image score by the release's protocol, as plainly as it is told: a double loop."""
    height, width = image.shape[:2]
    if min(height, width) < WINDOW:
        area = (1016 * WINDOW / 504) ** 2
        scale = max(math.sqrt(area / (height * width)), WINDOW / min(height, width))
        size = (max(round(width * scale), WINDOW), max(round(height * scale), WINDOW))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    rows, columns = pixels.shape[1:]
    total, count = torch.zeros(3, rows, columns), torch.zeros(rows, columns)
    for top in [*range(0, rows - WINDOW, STRIDE), rows - WINDOW]:
        for left in [*range(0, columns - WINDOW, STRIDE), columns - WINDOW]:
            there = (slice(top, top + WINDOW), slice(left, left + WINDOW))
            logits = unmerged_logits(release, pixels[:, *there][None])
            total[:, *there] += F.interpolate(
                logits, (WINDOW, WINDOW), mode="bicubic", align_corners=False
            )[0]
            count[there] += 1
    inpainted = (total / count).softmax(0)[2]
    score = float(np.percentile(inpainted.numpy(), 99))
    if inpainted.shape != (height, width):
        inpainted = F.interpolate(
            inpainted[None, None], (height, width), mode="bicubic", align_corners=False
        )[0, 0].clamp(0, 1)
    return inpainted, score


@pytest.mark.parametrize("size", [(30, 41), (56, 56), (40, 120), (61, 83), (97, 56)])
def test_the_map_is_that_of_the_published_protocol(
    size: tuple[int, int], release: Release, tmp_path: Path
) -> None:
    file = save_release(tmp_path / "release.ckpt", release_state(release))
    fetch("dinolizer", file)
    localizer = Localizer.from_pretrained("dinolizer", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    result = localizer(image)
    expected, score = published_protocol(release, image)
    np.testing.assert_allclose(result.probability, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(result.mask, result.probability > 0.5)
    assert result.score == pytest.approx(score, abs=1e-4)
    assert result.probability.std() > 0.01  # a map of one value would agree with much
    settings = {name: result.settings[name] for name in ("reduce", "restore", "score_threshold")}
    assert settings == {"reduce": "mean", "restore": "bicubic", "score_threshold": 0.59466}


def test_the_record_says_what_was_converted_and_what_was_left_out(
    release: Release, tmp_path: Path
) -> None:
    file = save_release(tmp_path / "release.ckpt", release_state(release))
    before = file.read_bytes()
    path = fetch("dinolizer", file)
    assert path == fetched_path("dinolizer")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["checkpoint_sha256"] == hashlib.sha256(before).hexdigest()
    assert record["dinolizer.safetensors"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        record["dinolizer-head.safetensors"]
        == hashlib.sha256(head_file("dinolizer").read_bytes()).hexdigest()
    )
    assert record["published"] is False
    assert "nonprofit" in record["licence"]
    assert record["left_out"] == [
        "net.model.lora_vit.head.weight",
        "net.model.lora_vit.proj_3d.weight",
        "net.criterion.pos_weight",
        "net.model.unheard_of",
    ]
    assert file.read_bytes() == before


def test_a_fetched_head_that_was_changed_is_refused(release: Release, tmp_path: Path) -> None:
    """One number of it, and the file is a good head still."""
    fetch("dinolizer", save_release(tmp_path / "release.ckpt", release_state(release)))
    path = head_file("dinolizer")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"SHA-256 of .*dinolizer-head.* run 'dinolizer fetch"):
        Localizer.from_pretrained("dinolizer", device="cpu")
    assert Localizer.from_pretrained("dinolizer", path, device="cpu").head is not None


@pytest.mark.parametrize("prefix", ["", "net.", "model."])
def test_prefixes_may_be_missing_and_values_in_half_precision(
    prefix: str, release: Release, tmp_path: Path
) -> None:
    halved = {
        prefix + name.removeprefix("net.model.").removeprefix("lora_vit."): tensor.half()
        for name, tensor in release_state(release).items()
    }
    halved[f"{prefix}cls_head.weight"] = halved[f"{prefix}cls_head.weight"][:, :, None, None]
    fetch("dinolizer", save_release(tmp_path / "release.ckpt", halved))
    localizer = Localizer.from_pretrained("dinolizer", device="cpu")
    batch = torch.rand(2, 3, WINDOW, WINDOW, generator=torch.Generator().manual_seed(0))
    assert {value.dtype for value in localizer.backbone.state_dict().values()} == {torch.float32}
    with torch.no_grad():
        logits = localizer.head(localizer.backbone(batch))
    # Half precision keeps 11 bits of each weight.
    expected = unmerged_logits(release, batch)
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


Change = Callable[[dict[str, Tensor]], object]
LAYER = "net.model.lora_vit.blocks.1.attn.qkv"
REFUSED: dict[str, tuple[Change, str]] = {
    "a missing matrix": (
        lambda state: state.pop(f"{LAYER}.linear_b_v.weight"),
        "blocks.1.attn.qkv.linear_b_v.weight is missing",
    ),
    "another rank": (
        lambda state: state.update({f"{LAYER}.linear_a_q.weight": torch.ones(32, 128)}),
        r"linear_a_q.weight is \(32, 128\) and not \(64, 128\)",
    ),
    "a missing tensor of the backbone": (
        lambda state: state.pop("net.model.lora_vit.norm.bias"),
        "norm.bias is missing",
    ),
    "a head of two classes": (
        lambda state: state.update({"net.model.cls_head.weight": torch.ones(2, 128)}),
        r"cls_head.weight': \(2, 128\).* report these names and shapes",
    ),
    "a head of two layers": (
        lambda state: state.update({"net.model.cls_head.2.weight": torch.ones(3, 128)}),
        r"cls_head.2.weight under several prefixes",
    ),
    "no head": (
        lambda state: [state.pop(f"net.model.cls_head.{end}") for end in ("weight", "bias")],
        "report these names and shapes",
    ),
    "NaN": (
        lambda state: state.update(
            {f"{LAYER}.linear_a_q.weight": torch.full((64, 128), torch.nan)}
        ),
        "linear_a_q.weight .* is not finite",
    ),
    "one tensor twice": (
        lambda state: state.update({"net.norm.bias": torch.ones(128)}),
        "norm.bias under several prefixes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_needed_is_read_strictly(case: str, release: Release, tmp_path: Path) -> None:
    change, says = REFUSED[case]
    state = release_state(release)
    change(state)
    with pytest.raises(InputError, match=says) as caught:
        fetch("dinolizer", save_release(tmp_path / "release.ckpt", state))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.json"))
    assert not fetched_path("dinolizer").exists()


class Runs:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Runs(tmp_path / "ran")}, tmp_path / "release.ckpt")
    with pytest.raises(InputError, match="more than tensors, perhaps code"):
        fetch("dinolizer", tmp_path / "release.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "release.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"give the published 'epoch=36_val_loss=0.2130.ckpt'"):
        fetch("dinolizer", tmp_path / "release.ckpt")


def test_a_changed_conversion_is_not_trusted(release: Release, tmp_path: Path) -> None:
    path = fetch("dinolizer", save_release(tmp_path / "release.ckpt", release_state(release)))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="run 'dinolizer fetch dinolizer' again"):
        Localizer.from_pretrained("dinolizer")


def test_the_default_is_the_release_where_it_was_fetched(release: Release, tmp_path: Path) -> None:
    assert Localizer.from_pretrained().backbone.spec.name == "pocket"
    fetch("dinolizer", save_release(tmp_path / "release.ckpt", release_state(release)))
    assert Localizer.from_pretrained().backbone.spec.name == "dinolizer"


def test_the_head_of_another_conversion_is_refused(release: Release, tmp_path: Path) -> None:
    fetch("dinolizer", save_release(tmp_path / "one.ckpt", release_state(release)))
    head = head_file("dinolizer").read_bytes()
    other = make_release(release.model, seed=1)
    fetch("dinolizer", save_release(tmp_path / "two.ckpt", release_state(other)))
    (tmp_path / "one.safetensors").write_bytes(head)
    with pytest.raises(InputError, match="was trained on 'dinolizer'"):
        Localizer.from_pretrained("dinolizer", tmp_path / "one.safetensors")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, release: Release, tmp_path: Path) -> Iterator[Server]:
    """Serves a released checkpoint, and is where the release is thought to be."""
    content = save_release(tmp_path / "served.ckpt", release_state(release)).read_bytes()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        server.content = content
        sha256 = f"sha256:{hashlib.sha256(content).hexdigest()}"
        known = replace(PUBLISHED["dinolizer"], url=server.url, hash=sha256, size=len(content))
        monkeypatch.setitem(PUBLISHED, "dinolizer", known)
        yield server


def test_fetching_goes_on_where_the_connection_was_cut(server: Server, cache: Path) -> None:
    server.breaks_after = 1_500_000  # what arrives is kept by whole chunks of 2**20
    with pytest.raises(InputError, match="run the command again and it goes on"):
        fetch("dinolizer")
    assert [path.name for path in (cache / "weights").iterdir()] == [
        "epoch=36_val_loss=0.2130.ckpt.part"
    ]
    server.breaks_after = None
    result = CliRunner().invoke(app, ["fetch", "dinolizer"])
    assert result.exit_code == 0, result.output
    assert server.asked == [None, f"bytes={2**20}-"]
    assert "nonprofit" in result.stdout
    assert sorted(path.name for path in (cache / "weights").iterdir()) == [
        "dinolizer-head.safetensors",
        "dinolizer.json",
        "dinolizer.safetensors",
    ]
    assert json.loads(fetched_path("dinolizer").with_suffix(".json").read_text())["published"]
    asked = len(server.asked)
    assert CliRunner().invoke(app, ["fetch", "dinolizer"]).exit_code == 0
    assert len(server.asked) == asked  # what is there is not downloaded again
    head_file("dinolizer").write_bytes(b"damaged")
    assert CliRunner().invoke(app, ["fetch", "dinolizer"]).exit_code == 0
    assert len(server.asked) == asked + 1
    assert Localizer.from_pretrained("dinolizer", device="cpu").head is not None


def test_what_else_a_share_sends_is_named_with_the_way_by_hand(server: Server, cache: Path) -> None:
    for content, what in (
        (b"<!DOCTYPE html><title>Nextcloud</title>", "an HTML page, at least 39 bytes"),
        (b"PK\x03\x04" + bytes(500), "a ZIP archive, at least 504 bytes"),
        (bytes(len(server.content)), "another file, at least"),
        (bytes(len(server.content) + 1), "another file, at least"),
    ):
        server.content = content
        result = CliRunner().invoke(app, ["fetch", "dinolizer"])
        assert result.exit_code == 1
        line = result.stderr.splitlines()[-1]
        assert f"sent {what}" in line and "univ-lille.fr" in line and "--from-file FILE" in line
        assert not list((cache / "weights").iterdir())


def test_another_file_is_converted_after_a_line_that_says_so(
    release: Release, tmp_path: Path
) -> None:
    file = save_release(tmp_path / "mine.ckpt", release_state(release))
    result = CliRunner().invoke(app, ["fetch", "dinolizer", "--from-file", str(file)])
    assert result.exit_code == 0, result.output
    assert "mine.ckpt is not the published file" in result.stderr
    record = json.loads(fetched_path("dinolizer").with_suffix(".json").read_text())
    assert not record["published"]
    assert record["checkpoint_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_shell_says_which_model_answers_and_marks_its_files(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((60, 70, 3), np.uint8)).save("photo.png")
    fetch("dinolizer", save_release(tmp_path / "release.ckpt", release_state(release)))
    for words, model in (([], "dinolizer"), (["--model", "pocket", "--overwrite"], "pocket")):
        result = CliRunner().invoke(app, ["localize", "photo.png", *words])
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith(f"dinolizer: model '{model}'. ")
        summary = json.loads(Path("localized/photo.json").read_text())
        with Image.open("localized/photo.mask.png") as mask:
            assert mask.text == {  # type: ignore[attr-defined]
                name: summary[name] for name in ("model", "licence", "caution")
            }
        assert summary["model"] == model and summary["licence"] and summary["caution"]
