"""The package names its whole public face, lazily, and localizes without what training needs."""

import json
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


LOCALIZE = """
import json, sys
import dinolizer
before = sorted(sys.modules)
import numpy as np
localizer = dinolizer.Localizer.from_pretrained("pocket", device="cpu")
localizer(np.zeros((20, 30, 3), np.uint8))
print(json.dumps([before, sorted(sys.modules)]))
"""


def test_importing_the_package_is_light_and_localizing_needs_no_extra() -> None:
    run = subprocess.run([sys.executable, "-c", LOCALIZE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    before, after = ({name.partition(".")[0] for name in names} for names in json.loads(run.stdout))
    assert not before & {"torch", "numpy", "timm"}
    extras = {"accelerate", "jupyterlab", "matplotlib", "monai", "pandas", "peft", "seaborn"}
    assert not after & (extras | {"papermill", "sklearn", "snakemake"})
