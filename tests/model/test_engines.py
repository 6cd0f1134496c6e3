"""Other engines give torch's maps, and ``auto`` takes none that does not."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from small import SPEC, random_head, random_image, small_backbone
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from typer.testing import CliRunner

from dinolizer import options
from dinolizer.cli import app
from dinolizer.errors import InputError
from dinolizer.model import engines
from dinolizer.model.backbones import Backbone
from dinolizer.model.engines import DIFFERENCE, NEEDS, export
from dinolizer.model.head import card_for
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer

OTHERS = ("openvino", "onnx")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """One for all: to export takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DINOLIZER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def small() -> Localizer:
    backbone = small_backbone()
    return Localizer(backbone, random_head(backbone.dim), card_for(backbone))


def installed(engine: str) -> None:
    for name in NEEDS[engine]:
        pytest.importorskip(name)


class Scaled(VisionTransformer):
    """Random weights as large as trained ones: a LayerScale of 1e-5, with which DINOv2 starts,
    would make the blocks all but the identity and hide their errors. The last norm evens out."""

    def __init__(self) -> None:
        sizes = {"embed_dim": 384, "depth": 6, "num_heads": 6, "patch_size": 14, "img_size": 98}
        super().__init__(**sizes, init_values=1.0, reg_tokens=4, num_classes=0)


def scaled() -> Localizer:
    """Half of the blocks of DINOv2's small, on windows of 7 x 7 patches."""
    spec = replace(SPEC, name="scaled", architecture=Scaled, window=98, stride=49)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(spec, Scaled())
    head = random_head(backbone.dim)
    return Localizer(backbone, head, card_for(backbone))


MODELS = {
    "small": small,
    "scaled": scaled,
    "pocket": partial(Localizer.from_pretrained, "pocket", device="cpu"),
}


def only(monkeypatch: pytest.MonkeyPatch, *kept: str) -> None:
    for name in OTHERS:
        if name not in kept:
            monkeypatch.setitem(sys.modules, NEEDS[name][0], None)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("model", MODELS)
def test_maps_are_torchs(model: str, engine: str) -> None:
    """Of pictures under a window, of its size, over it, and of more windows than a batch."""
    installed(engine)
    torch_run = MODELS[model]()
    other = torch_run.with_settings(engine=engine)
    side = other.window
    for size in [(side // 2, side - 9), (side, side), (side + 1, 2 * side + 5)]:
        image = random_image(*size)
        expected, result = torch_run(image), other(image)
        np.testing.assert_allclose(
            result.probability, expected.probability, atol=DIFFERENCE["float32"] / 10
        )
        assert result.summary()["engine"] == engine


def test_the_scaled_models_blocks_are_no_identity() -> None:
    """Else the agreement of its maps would say little: without blocks half of them is another."""
    one, other = scaled(), scaled()
    other.backbone.model.blocks = nn.Sequential(*[nn.Identity()] * other.backbone.depth)
    image = random_image(98, 200)
    moved = np.abs(one(image).probability - other(image).probability)
    assert moved.mean() > 100 * DIFFERENCE["float32"]


@pytest.mark.parametrize("engine", OTHERS)
def test_another_threshold_or_stride_does_not_compile_again(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(engine)
    library, name = {
        "openvino": ("openvino", "Core"),
        "onnx": ("onnxruntime", "InferenceSession"),
    }[engine]
    first = small().with_settings(engine=engine)
    image = random_image(70, 60)
    expected = first(image)
    monkeypatch.setattr(f"{library}.{name}", None)
    result = first.with_settings(threshold=0.1, stride=14)(image)
    assert result.mask.mean() > expected.mask.mean()


def test_auto_without_extras_is_torch_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch)
    assert small().with_settings(engine="auto").engine == "torch"
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"needs openvino.*pip install 'dinolizer\[openvino\]'"):
        small().with_settings(engine="openvino")


def test_auto_tries_bfloat16_where_the_processor_has_it_unless_a_precision_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With torch alone; whatever is faster here, the other one is said to be twice as slow."""
    only(monkeypatch)
    backbone = small_backbone(9)
    head, card = random_head(backbone.dim), card_for(backbone)
    faster = "bfloat16"

    def timed(one: Localizer, image: object) -> Localization:
        return replace(call(one, image), seconds=1.0 if one.precision == faster else 2.0)  # type: ignore[arg-type]

    call = Localizer.__call__
    monkeypatch.setattr(Localizer, "__call__", timed)
    for has, asked, taken in (
        (False, None, "float32"),
        (True, "float32", "float32"),
        (True, None, "bfloat16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})  # noqa: B023
        auto = Localizer(backbone, head, card, precision=asked, engine="auto")
        assert (auto.engine, auto.precision) == ("torch", taken)
        again = auto.with_settings(threshold=0.3)
        assert (again.engine, again.precision) == ("torch", taken)
    assert "bfloat16" in repr(Localizer(backbone, head, card).with_settings(engine="auto"))
    faster = "float32"
    other = small_backbone(10)
    assert Localizer(other, head, card_for(other), engine="auto").precision == "float32"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("engine", OTHERS)
def test_auto_takes_the_faster_of_torch_and_the_one_installed(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(engine)
    only(monkeypatch, engine)
    monkeypatch.setattr(engines, "has_bfloat16", lambda: False)  # else that is measured, too
    chosen = small().with_settings(engine="auto").engine
    records = [json.loads(path.read_text()) for path in _records()]
    both = {"torch float32", f"{engine} float32"}
    (seconds,) = [r["seconds"] for r in records if r["seconds"].keys() == both]
    assert f"{chosen} float32" == min(seconds, key=seconds.get)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fault", ["noise", "nan", "error"])
def test_a_broken_engine_is_refused_with_a_line(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed("onnx")
    only(monkeypatch, "onnx")

    def broken(engine: str, backbone: Backbone, window: int, precision: str) -> object:
        if fault == "error":
            raise RuntimeError("no such operator")
        value = 1.0 if fault == "noise" else float("nan")
        return lambda batch: value * torch.randn_like(backbone(batch))

    monkeypatch.setattr("dinolizer.model.localizer.tokens_by", broken)
    seed = 1 + ["noise", "nan", "error"].index(fault)
    backbone = small_backbone(seed)  # another one: its check is not cached
    for _ in range(2):  # the second time from the cache
        auto = Localizer(backbone, random_head(32), card_for(backbone), engine="auto")
        assert auto.engine == "torch"
        said = capsys.readouterr().err
        assert "The engine 'onnx' is not used" in said
        assert {"noise": "differ", "nan": "finite", "error": "no such operator"}[fault] in said
        monkeypatch.setattr(engines, "_compared", None)


def test_the_options_are_the_engines() -> None:
    assert get_args(options.Engine) == (*NEEDS, "auto")


def test_what_no_engine_can_do_is_refused() -> None:
    installed("onnx")
    with pytest.raises(InputError, match="precision is 'bfloat16', but the engine 'onnx' has"):
        small().with_settings(engine="onnx", precision="bfloat16")
    with pytest.raises(InputError, match="engine is 'tvm', but it must be one of"):
        small().with_settings(engine="tvm")
    with pytest.raises(InputError, match="runs on a CPU, but the device is 'cuda'"):
        engines.check_engine("onnx", "float32", torch.device("cuda"))


def test_an_exported_file_is_run_by_onnxruntime_alone(tmp_path: Path) -> None:
    """Of batches of other sizes than it was traced with; normalisation is inside."""
    onnxruntime = pytest.importorskip("onnxruntime")
    localizer, path = small(), tmp_path / "small.onnx"
    export(localizer, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        batch = torch.rand(count, 3, 56, 56, generator=torch.Generator().manual_seed(count))
        (logits,) = session.run(None, {"windows": batch.numpy()})
        with torch.inference_mode():
            expected = localizer.head(localizer.backbone(batch))
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    card = session.get_modelmeta().custom_metadata_map
    read = {name: json.loads(value) for name, value in card.items()}
    assert (read["window"], read["patch"], read["threshold"]) == (56, 14, 0.5)
    assert read["mean"] == [0.5, 0.4, 0.3]
    assert read["backbone_hash"] == localizer.backbone.hash
    assert read["licence"] == "Apache-2.0"


def test_export_refuses_before_it_works(tmp_path: Path) -> None:
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(b"another's")
    for words, reason in (
        ([tmp_path / "model.pt"], "must end in .onnx"),
        ([kept], "is there already"),
        ([kept, "--overwrite"], "not an output of this project"),
    ):
        done = CliRunner().invoke(app, ["export", "--model", "pocket", "--out", *map(str, words)])
        assert (done.exit_code, kept.read_bytes()) == (1, b"another's")
        assert reason in done.stderr


def _records() -> list[Path]:
    return list((engines.cache_dir() / "engines").glob("*.json"))
