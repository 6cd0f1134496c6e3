"""Weights come from the hub's cache or a named file, and fit one model only."""

import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from checkpoints import hub_cache, randomize
from PIL import Image
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.model import weights
from dinolizer.model.backbones import BACKBONES, load_backbone
from dinolizer.model.localizer import Localizer

TINY = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture, size in (("dinov2-small", DINOV2, 504), ("dinov3-small", DINOV3, 512)):
        spec = replace(
            BACKBONES[name],
            architecture=lambda a=architecture, s=size: timm.create_model(a, img_size=s, **TINY),
        )
        monkeypatch.setitem(BACKBONES, name, spec)


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-small"])
def test_without_network_and_cache_it_is_one_sentence(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (60, 60)).save(tmp_path / "photo.png")
    words = ["localize", str(tmp_path / "photo.png"), "--model", name, "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for what in (name, "connect to the network once", "HF_HOME", "name a file of weights"):
        assert what in result.stderr
    assert "--" not in result.stderr


def test_a_file_of_the_hubs_cache_that_was_changed_is_refused(cache: Path) -> None:
    # The hub's client keeps a large file under its SHA-256, and links to it from its name.
    file = hub_cache(cache, f"timm/{DINOV2}") / "model.safetensors"
    model = randomize(timm.create_model(DINOV2, img_size=518, **TINY))
    save_file(model.state_dict(), file)
    blob = file.parents[2] / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
    blob.parent.mkdir()
    file.replace(blob)
    file.symlink_to(blob)
    load_backbone("dinov2-small", device="cpu")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(InputError, match=f"but the hub has {blob.name[:12]}.*delete {blob}"):
        load_backbone("dinov2-small", device="cpu")


def test_a_file_of_the_hub_that_is_far_too_large_is_not_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hub(BaseHTTPRequestHandler):
        """Answers as the hub does of a large file, but has none to send."""

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{"0" * 64}"')
            self.send_header("Content-Length", str(10**12))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        here = partial(huggingface_hub.hf_hub_download, endpoint=endpoint)
        monkeypatch.setattr(weights, "hf_hub_download", here)
        with pytest.raises(InputError, match=r"has 1,000,000,000,000 bytes, but at most"):
            load_backbone("dinov2-small", device="cpu")
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "architecture", "served"),
    [("dinov2-small", DINOV2, 518), ("dinov3-small", DINOV3, 256)],
)
def test_the_hubs_cache_serves_offline_what_timm_itself_would_load(
    name: str, architecture: str, served: int, cache: Path
) -> None:
    # As on the hub: DINOv2's position embedding is for 37x37 patches, DINOv3 has none.
    published = randomize(timm.create_model(architecture, img_size=served, **TINY))
    file = hub_cache(cache, f"timm/{architecture}") / "model.safetensors"
    save_file(published.state_dict(), file)
    backbone = load_backbone(name, device="cpu")
    expected = timm.create_model(
        architecture,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        img_size=BACKBONES[name].window,
        **TINY,
    )
    assert backbone.hash == weights.weights_hash(expected)
    assert load_backbone(name, file, "cpu").hash == backbone.hash
    if name == "dinov2-small":
        assert published.pos_embed.shape[1] == 37 * 37
        resampled = resample_abs_pos_embed(published.pos_embed, [36, 36], num_prefix_tokens=0)
        torch.testing.assert_close(backbone.model.pos_embed, resampled)
        assert backbone(torch.rand(1, 3, 504, 504)).shape == (1, 32, 36, 36)
    else:
        assert backbone(torch.rand(1, 3, 512, 512)).shape == (1, 32, 32, 32)


@pytest.mark.parametrize(
    ("architecture", "options", "says"),
    [
        (DINOV3, {}, r"is missing"),
        (DINOV2, {"embed_dim": 64}, r"is \(1, 1, 64\) and not \(1, 1, 32\)"),
        (DINOV2, {"patch_size": 16, "img_size": 576}, r"patch_embed.proj.weight is \(32, 3, 16"),
        (DINOV2, {"depth": 2}, r"blocks.1.\S+ is not part of it"),
        (DINOV2, {"num_classes": 10}, r"head\.\w+ is not part of it"),
        ("vit_small_patch14_dinov2", {"img_size": 504}, "is missing"),
    ],
)
def test_weights_of_another_model_are_refused(
    architecture: str, options: dict[str, int], says: str, tmp_path: Path
) -> None:
    other = timm.create_model(architecture, **(TINY | options))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=f"do not fit the model 'dinov2-small' .*{says}") as caught:
        Localizer.from_pretrained("dinov2-small", weights=tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)


def test_a_position_embedding_of_no_square_grid_is_refused(tmp_path: Path) -> None:
    state = timm.create_model(DINOV2, img_size=504, **TINY).state_dict()
    save_file({**state, "pos_embed": torch.zeros(1, 1000, 32)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"pos_embed is \(1, 1000, 32\)"):
        load_backbone("dinov2-small", tmp_path / "w.safetensors")


def test_a_pickle_is_no_weights_file(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="give a whole safetensors file"):
        load_backbone("dinov2-small", tmp_path / "w.safetensors")
