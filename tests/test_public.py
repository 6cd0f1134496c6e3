"""The package names its whole public face, lazily."""

import subprocess
import sys

import pytest

import dinolizer


def test_every_public_name_is_there_and_an_unknown_one_is_not() -> None:
    for name in dinolizer.__all__:
        assert getattr(dinolizer, name).__name__ == name
    assert issubclass(dinolizer.InputError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'Lokalizer'"):
        dinolizer.Lokalizer  # noqa: B018


LATE = """
import gc
import sys

from dinolizer import Localizer

Localizer.from_pretrained("pocket")
late = ("torch._dynamo", "sympy", "pandas", "pyarrow", "sklearn", "matplotlib")
assert not [name for name in late if name in sys.modules], sys.modules.keys()
assert gc.isenabled()

import timm
import torch

roi_align = sys.modules["torchvision.ops.roi_align"]
assert roi_align.is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert torch._dynamo.disable.__module__.startswith("torch._dynamo")
assert timm.create_model("vit_tiny_patch16_224").num_features == 192
"""


def test_a_localizer_is_there_without_what_takes_long_to_load_and_that_is_whole_later() -> None:
    run = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
