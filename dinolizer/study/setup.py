"""A notebook's study: its parameters, backbone, images, heads and results, in one object."""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dinolizer.errors import InputError
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.localizer import Localizer
from dinolizer.model.weights import weights_hash
from dinolizer.paths import PROFILES, ROOT, named_file, results_dir
from dinolizer.pocket.forging import FAMILIES
from dinolizer.study.dataset import Dataset, load
from dinolizer.study.evaluation import Method
from dinolizer.study.heads import Fits, fit
from dinolizer.study.methods import methods
from dinolizer.study.parameters import check_values, parameters_for, read_defaults
from dinolizer.study.results import Results

CHOICES: dict[str, Collection[str]] = {
    "backbone": BACKBONES,
    "pair": BACKBONES,
    "others": BACKBONES,
}
"""What the parameters of these names are chosen from."""


@dataclass(frozen=True)
class Study:
    """What a notebook, such as ``"03-benchmark"``, works with, loaded when it is first asked for;
    ``parameters`` are all names and values of its parameters cell."""

    notebook: str
    parameters: Mapping[str, Any]

    @classmethod
    def open(cls, notebook: str, namespace: Mapping[str, Any]) -> "Study":
        """Open the study of a notebook, in its first line after the parameters cell.

        ``namespace`` is its ``globals()``; the parameters in it are recorded with all results.
        Raises InputError for an unknown notebook, and for a parameter that is missing or refused.
        """
        defaults = read_defaults(_path(notebook))
        missing = [name for name in defaults if name not in namespace]
        if missing:
            raise InputError(
                f"{notebook} has no value of {missing[0]!r}: run its parameters cell first."
            )
        return cls._checked(notebook, {name: namespace[name] for name in defaults})

    @classmethod
    def of_profile(cls, notebook: str, profile: Path) -> "Study":
        """Open the study that a notebook opens when it is given the file of a profile."""
        return cls._checked(notebook, _of_profile(notebook, profile))

    @classmethod
    def _checked(cls, notebook: str, values: dict[str, Any]) -> "Study":
        check_values(values, read_defaults(_path(notebook)), notebook)
        choices = dict(CHOICES)
        if not values.get("test"):
            choices |= {"family": FAMILIES, "families": FAMILIES}
        for name in choices.keys() & values.keys():
            for value in np.atleast_1d(np.array(values[name], dtype=object)):
                if value not in choices[name]:
                    raise InputError(
                        f"{name} of {notebook} is {value!r}, but it must be one of "
                        f"{', '.join(choices[name])}."
                    )
        return cls(notebook, values)

    @cached_property
    def results(self) -> Results:
        """Where tables and figures go: to ``data/out``, so that no run by hand overwrites a
        committed result, or, as from the workflow, to ``$DINOLIZER_RESULTS``."""
        profile = self.parameters["profile"]
        folder = results_dir(profile, ROOT / "data" / "out")
        file = PROFILES / f"{profile}.yaml"
        if file.is_file() and dict(self.parameters) == _of_profile(self.notebook, file):
            command = f"snakemake --cores 2 --force --config profile={profile} -- {self.notebook}"
        else:
            values = yaml.safe_dump(dict(self.parameters), default_flow_style=True, width=10**6)
            command = (
                f"papermill notebooks/{self.notebook}.ipynb {self.notebook}.ipynb -k python3 "
                f"-y {shlex.quote(values.strip())}"
            )
        return Results(profile, folder, self.parameters, command)

    @cached_property
    def model(self) -> Backbone:
        return self.load_model(self.parameters["backbone"], self.parameters.get("weights", ""))

    def load_model(self, name: str, weights: str = "", window: int | None = None) -> Backbone:
        """Load another backbone, see `load_backbone`; its weights are recorded with the results."""
        model = load_backbone(name, named_file(weights), window=window)
        self.results.sources[f"backbone {name}"] = model.hash
        return model

    @cached_property
    def dataset(self) -> Dataset:
        names = ("photos", "photo_count", "train", "test", "limit", "seed", "rounds")
        dataset = load(
            BACKBONES[self.parameters["backbone"]].window,
            **{name: self.parameters[name] for name in names},
        )
        self.results.sources.update(dataset.sources)
        return dataset

    @cached_property
    def heads(self) -> Fits:
        epochs, seed = self.parameters["epochs"], self.parameters["seed"]
        fits = fit(self.dataset, self.model, epochs=epochs, seed=seed)
        self.results.sources["heads"] = fits.hash
        return fits

    @cached_property
    def methods(self) -> dict[str, Method]:
        given = self.parameters
        name = f"DinoLizer ({given['profile']})"
        peers = given.get("peers", ())
        return methods(name, self.dataset, self.model, self.heads, peers, given["seed"])

    def record(self, localizer: Localizer) -> None:
        """Record the backbone and the head of a localizer with the results."""
        backbone = localizer.backbone
        self.results.sources[f"backbone {backbone.spec.name}"] = backbone.hash
        self.results.sources["head"] = weights_hash(localizer.head)


def _path(notebook: str) -> Path:
    return PROFILES.parent / f"{notebook}.ipynb"


def _of_profile(notebook: str, profile: Path) -> dict[str, Any]:
    return read_defaults(_path(notebook)) | parameters_for(_path(notebook), profile)
