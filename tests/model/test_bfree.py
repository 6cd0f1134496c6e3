"""A file in B-Free's layout becomes the same model; anything else is refused and leaves nothing."""

import hashlib
import json
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from checkpoints import (
    CONFIG,
    bfree_state,
    build_small_bfree,
    make_bfree_small,
    randomize,
    save_bfree,
    save_bfree_zip,
)
from PIL import Image
from small import random_head
from timm.models.vision_transformer import VisionTransformer
from typer.testing import CliRunner, Result

from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.head import HeadCard, make_head, save_head
from dinolizer.model.published import PUBLISHED, fetch
from dinolizer.model.specs import build
from dinolizer.model.weights import fetched_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
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
        "tensor head.bias in",
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
    for damage in ("", "[]", "{}", '{"bfree.safetensors": 1'):
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
