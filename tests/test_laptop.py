"""The laptop's profile, end to end, on miniatures: three photographs in a folder, and two designs
of the hub's backbones made small, with random weights, as the hub is not asked.

What the notebooks say is not looked at here, only that they come to an end under a profile that is
neither the pocket's nor one of datasets, and leave what the workflow expects of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm
import yaml
from execution import execute, miniature
from test_workflow import declared, files

from dinolizer.data.images import read_image, write_image
from dinolizer.model.specs import BACKBONES
from dinolizer.paths import PROFILES
from dinolizer.pocket.photos import photo_paths
from dinolizer.study.experiments import cost
from dinolizer.study.parameters import parameters_for
from dinolizer.study.setup import compute_rows, prepare

NOTEBOOKS = [name for name, made in declared().items() if made.get("only", "laptop") == "laptop"]
SMALL = {"img_size": 56, "patch_size": 7, "num_classes": 0}
SMALL |= {"depth": 2, "embed_dim": 32, "num_heads": 2}
DESIGNS = {
    "dinov2-small": "vit_small_patch14_reg4_dinov2",
    "untrained-dinov2-small": "vit_small_patch14_reg4_dinov2",
    "dinov3-small": "vit_small_patch16_dinov3",
}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile's file, beside its photographs, after the jobs that compute rows."""
    folder = tmp_path_factory.mktemp("laptop")
    with miniature(folder) as patch:
        patch.setattr(cost, "LARGE", 168)
        patch.setenv("DINOLIZER_RESULTS", str(folder / "results"))
        for name, design in DESIGNS.items():
            small = {"architecture": partial(timm.create_model, design, **SMALL), "weights": None}
            small |= {"patch": 7, "window": 56, "stride": 28}
            patch.setitem(BACKBONES, name, replace(BACKBONES[name], **small))
        for name in ("astronaut", "coffee", "china"):
            photo = read_image(photo_paths()[name])[:240, :280]
            write_image(folder / "photos" / f"{name}.png", photo)
        given = yaml.safe_load((PROFILES / "laptop.yaml").read_text())
        given |= {"photos": str(folder / "photos"), "crops": 40, "steps": 2, "epochs": 3}
        (folder / "laptop.yaml").write_text(yaml.safe_dump(given))
        prepare(folder / "laptop.yaml")
        compute_rows(folder / "laptop.yaml")
        # The profile says that the quickstart uses the head of 02.
        for name in sorted(NOTEBOOKS, key=lambda name: name != "02-train-head"):
            notebook = PROFILES.parent / f"{name}.ipynb"
            execute(notebook, parameters_for(notebook, folder / "laptop.yaml"))
        yield folder / "laptop.yaml"


def test_every_notebook_makes_what_the_workflow_says(profile: Path) -> None:
    made = {path.name for path in (profile.parent / "results" / "laptop").rglob("*.*")}
    expected = {Path(file).name for name in NOTEBOOKS for file in files(declared()[name])}
    assert expected - made - {"pocket.safetensors"} == set()
    assert "dinov2-small.safetensors" in made
