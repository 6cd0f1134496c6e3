"""A file in a published model's layout becomes that model; anything else is refused."""

import hashlib
import json
import math
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from checkpoints import (
    CONFIG,
    Release,
    bfree_state,
    build_small_bfree,
    build_small_release,
    make_bfree_small,
    make_release,
    randomize,
    release_state,
    save_bfree,
    save_bfree_zip,
    save_release,
)
from numpy.typing import NDArray
from PIL import Image
from servers import Server, serving
from small import random_head
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner, Result

from dinolizer import Localizer
from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, load_backbone
from dinolizer.model.head import HeadCard, make_head, save_head
from dinolizer.model.published import PUBLISHED, fetch
from dinolizer.model.specs import BACKBONES, IMAGENET_MEAN, IMAGENET_STD, build
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
def model(monkeypatch: pytest.MonkeyPatch) -> VisionTransformer:
    return make_bfree_small(monkeypatch)


def publish(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let an archive be the published one."""
    md5 = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    monkeypatch.setitem(PUBLISHED, "bfree", replace(PUBLISHED["bfree"], hash=md5))
    return archive


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def trusted(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()]


def refused(result: Result, says: str) -> None:
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("dinolizer: ")]
    assert len(lines) == 1 and lines[0] == result.stderr.splitlines()[-1]
    assert says in lines[0]


def test_the_full_size_checkpoint_round_trips(tmp_path: Path) -> None:
    with torch.device("meta"):  # timm's own random weights would take seconds
        original = build(BACKBONES["bfree"])
    noise = 0.05 * torch.randn(2**16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in original.to_empty(device="cpu").parameters():
            repeats = -(-parameter.numel() // noise.numel())
            parameter.copy_(noise.repeat(repeats)[: parameter.numel()].view_as(parameter))
    state = bfree_state(original)
    # What is known of the real file; for the sources see the module's docstring.
    assert next(iter(state)) == "patch_embed.proj.weight"
    assert len(state) == 177 and state["pos_embed"].shape == (1, 1296, 768)
    fetch("bfree", save_bfree(tmp_path / "model_epoch_best.pth", original))
    backbone = load_backbone("bfree", device="cpu")
    loaded = backbone.model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    tokens = backbone(torch.rand(1, 3, 504, 504))
    assert tokens.shape == (1, 768, 36, 36)  # 1296 tokens, 768 wide
    assert tokens.isfinite().all()
    head = make_head(backbone.dim)
    assert sum(parameter.numel() for parameter in head.parameters()) == 769
    assert head(tokens).shape == (1, 1, 36, 36)


@pytest.mark.parametrize("source", ["zip", "pth"])
def test_what_is_converted_gives_the_logit_of_the_original(
    source: str, model: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "zip":
        file = publish(save_bfree_zip(tmp_path / "BFREE_dino2reg4.zip", model), monkeypatch)
    else:
        file = save_bfree(tmp_path / "model_epoch_best.pth", model)
    before = file.read_bytes()
    result = run("fetch", "bfree", "--from-file", file)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(fetched_path("bfree"))) and "nonprofit" in result.stdout
    backbone = load_backbone("bfree", device="cpu")
    batch = torch.rand(3, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(batch), model(batch), rtol=0, atol=0)
    assert backbone.model(batch).shape == (3, 1)
    assert file.read_bytes() == before


def test_the_record_says_what_was_converted(
    model: VisionTransformer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(save_bfree_zip(tmp_path / "BFREE_dino2reg4.zip", model), monkeypatch)
    path = fetch("bfree", file)
    assert sorted(trusted(cache)) == ["bfree.json", "bfree.safetensors"]
    record = json.loads(path.with_suffix(".json").read_text())
    with zipfile.ZipFile(file) as archive:
        checkpoint = archive.read("BFREE_dino2reg4/model_epoch_best.pth")
    assert record["bfree.safetensors"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["checkpoint_sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert (record["source"], record["published"]) == ("BFREE_dino2reg4.zip", True)
    assert "nonprofit" in record["licence"]
    assert record["date"].endswith("+00:00")


def test_it_is_downloaded_once_and_again_only_where_it_is_damaged(
    model: VisionTransformer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(save_bfree_zip(tmp_path / "published.zip", model), monkeypatch)
    asked = []

    def send(url: str, path: Path, _: str, **_options: object) -> None:
        asked.append(url)
        path.write_bytes(published.read_bytes())

    monkeypatch.setattr("dinolizer.model.published.download", send)
    assert run("fetch", "bfree").exit_code == 0
    assert asked == [PUBLISHED["bfree"].url]
    assert sorted(trusted(cache)) == ["bfree.json", "bfree.safetensors"]
    assert run("fetch", "bfree").exit_code == 0
    assert len(asked) == 1
    fetched_path("bfree").write_bytes(b"damaged")
    assert run("fetch", "bfree").exit_code == 0
    assert len(asked) == 2
    load_backbone("bfree", device="cpu")


def of_another_width(_: VisionTransformer) -> object:
    wide = timm.create_model(
        "vit_base_patch14_reg4_dinov2",
        img_size=56,
        num_classes=1,
        depth=1,
        embed_dim=48,
        num_heads=2,
    )
    return {"model": bfree_state(wide)}


CHECKPOINTS: dict[str, tuple[Callable[[VisionTransformer], object], str]] = {
    "other width": (of_another_width, "is (1, 1, 48) and not (1, 1, 32)"),
    "other grid": (
        lambda _: {"model": bfree_state(build_small_bfree(70))},
        "pos_embed is (1, 25, 32) and not (1, 16, 32)",
    ),
    "not a number": (
        lambda m: {"model": {**bfree_state(m), "head.bias": torch.tensor([torch.nan])}},
        "The head.bias of",
    ),
    "part missing": (
        lambda m: {"model": {k: v for k, v in bfree_state(m).items() if k != "head.bias"}},
        "head.bias is missing",
    ),
    "part too many": (
        lambda m: {"model": {**bfree_state(m), "blocks.1.bias": torch.zeros(3)}},
        "blocks.1.bias is not part of it",
    ),
    "wrapped keys": (
        lambda m: {"model": {f"model.{k}": v for k, v in bfree_state(m).items()}},
        "cls_token is missing",
    ),
    "no 'model'": (bfree_state, "no state dict under the key 'model'"),
    "a list": (lambda m: list(bfree_state(m).values()), "no state dict under the key 'model'"),
    "numbers": (lambda _: {"model": {"head.bias": 3.0}}, "no state dict under the key 'model'"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_another_checkpoint_is_refused(
    kind: str, model: VisionTransformer, tmp_path: Path, cache: Path
) -> None:
    content, says = CHECKPOINTS[kind]
    torch.save(content(model), tmp_path / "model.pth")
    refused(run("fetch", "bfree", "--from-file", tmp_path / "model.pth"), says)
    assert trusted(cache) == []


class Code:
    """Runs when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    legacy: bool, model: VisionTransformer, tmp_path: Path, cache: Path
) -> None:
    file, proof = tmp_path / "model.pth", tmp_path / "it-ran"
    content = {"model": bfree_state(model), "extra": Code(proof)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    torch.load(file, weights_only=False)
    assert proof.exists()  # the trap works
    proof.unlink()
    refused(run("fetch", "bfree", "--from-file", file), "holds more than tensors, perhaps code")
    assert not proof.exists()
    assert trusted(cache) == []


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(
    share: float, model: VisionTransformer, tmp_path: Path, cache: Path
) -> None:
    file = save_bfree(tmp_path / "model.pth", model)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    refused(run("fetch", "bfree", "--from-file", file), str(file))
    assert trusted(cache) == []


def test_an_archive_that_is_damaged_or_lacks_the_checkpoint_is_refused(
    model: VisionTransformer, tmp_path: Path, cache: Path
) -> None:
    file = save_bfree_zip(tmp_path / "a.ZIP", model)
    file.write_bytes(file.read_bytes()[:-100])
    refused(run("fetch", "bfree", "--from-file", file), "cannot be read")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("BFREE_dino2reg4/config.yaml", CONFIG)
    refused(run("fetch", "bfree", "--from-file", file), "holds model_epoch_best.pth 0 times")
    refused(run("fetch", "bfree", "--from-file", tmp_path / "no.zip"), "There is no file")
    assert trusted(cache) == []


def test_converted_weights_are_checked_at_every_load(
    model: VisionTransformer, tmp_path: Path
) -> None:
    path = fetch("bfree", save_bfree(tmp_path / "model.pth", model))
    good, record = path.read_bytes(), path.with_suffix(".json")
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # one bit of one weight
    with pytest.raises(InputError, match=r"SHA-256 .*run 'dinolizer fetch bfree' again"):
        load_backbone("bfree")
    path.write_bytes(good)
    load_backbone("bfree", device="cpu")
    for damage in ("", "[]", "{}", '{"bfree.safetensors": 1', "[" * 100_000):
        record.write_text(damage)
        with pytest.raises(InputError, match="not recorded"):
            load_backbone("bfree")
    record.unlink()
    with pytest.raises(InputError, match="not recorded"):
        load_backbone("bfree")


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let the system refuse to write on, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("source", ["zip", "pth"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    source: str,
    model: VisionTransformer,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if source == "zip":
        file = publish(save_bfree_zip(tmp_path / "a.zip", model), monkeypatch)
    else:
        file = save_bfree(tmp_path / "model.pth", model)
    with no_file_over(10_000):
        result = run("fetch", "bfree", "--from-file", file)
    refused(result, "make room")
    assert list((cache / "weights").iterdir()) == []


def test_localize_says_what_to_run(tmp_path: Path, model: VisionTransformer) -> None:
    Image.new("RGB", (60, 60)).save(tmp_path / "photo.png")
    words = ("localize", tmp_path / "photo.png", "--model", "bfree", "--out", tmp_path / "out")
    refused(run(*words), "run 'dinolizer fetch bfree'")
    fetch("bfree", save_bfree(tmp_path / "model.pth", model))
    refused(run(*words), "that was trained on it")
    assert "--" not in run(*words).stderr
    assert not (tmp_path / "out").exists()
    backbone = load_backbone("bfree", device="cpu")
    card = HeadCard("bfree", backbone.hash, "pristine", 56, 28)
    save_head(tmp_path / "head.safetensors", random_head(backbone.dim), card)
    done = run(*words, "--head", tmp_path / "head.safetensors", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "photo.json").exists()


def test_one_grid_only(model: VisionTransformer) -> None:
    backbone = Backbone(BACKBONES["bfree"], randomize(model))
    with pytest.raises(InputError, match=r"70x56.*made for windows of 56x56"):
        backbone(torch.rand(1, 3, 70, 56))


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


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Code(tmp_path / "ran")}, tmp_path / "release.ckpt")
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
