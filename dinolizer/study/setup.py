"""A notebook's study in one object, and what notebooks of a profile share, computed before them."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from dinolizer.errors import InputError, say
from dinolizer.model.backbones import BACKBONES, Backbone, load_backbone
from dinolizer.model.head import card_for, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.model.weights import weights_hash
from dinolizer.paths import PROFILES, ROOT, named_file, results_dir
from dinolizer.pocket.forging import FAMILIES
from dinolizer.study import show
from dinolizer.study.evaluation import Method, rows_of
from dinolizer.study.experiments.cost import median_seconds
from dinolizer.study.experiments.robustness import CASES
from dinolizer.study.heads import Fits, fit
from dinolizer.study.methods import BASELINES, baseline_method, localizer_method
from dinolizer.study.parameters import assigned, check_values, parameters_for, read_defaults
from dinolizer.study.peers import read_peers
from dinolizer.study.results import Results
from dinolizer.study.samples import Dataset, images_to_degrade, load
from dinolizer.study.verdicts import DEMONSTRATION

NOTEBOOKS = PROFILES.parent


@dataclass(frozen=True)
class Study:
    """What a notebook, such as ``03-benchmark``, works with, loaded when it is first asked for."""

    notebook: str
    parameters: Mapping[str, Any]

    @classmethod
    def open(cls, notebook: str, namespace: Mapping[str, Any]) -> "Study":
        """Open the study of a notebook, of whose ``globals()`` it checks and takes parameters."""
        show.sentences()
        defaults = read_defaults(NOTEBOOKS / f"{notebook}.ipynb")
        for name in defaults.keys() - namespace.keys():
            raise InputError(f"{notebook} has no value of {name!r}: run its parameters cell first.")
        # The cell that papermill put in: of names that no cell knows it only warns.
        injected = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
        if unknown := sorted(assigned("\n".join(injected)).keys() - defaults.keys()):
            names = f"{', '.join(unknown)}: use only {', '.join(defaults)}"
            raise InputError(f"{notebook} has no parameter {names}.")
        values = {name: namespace[name] for name in defaults}
        models = ("backbone", "pair", "compared")
        choices: dict[str, Iterable[str]] = dict.fromkeys(models, BACKBONES)
        if not values.get("test"):
            choices |= dict.fromkeys(("family", "families"), FAMILIES)
        check_values(values, defaults, notebook, choices)
        return cls(notebook, values)

    @classmethod
    def of_profile(cls, notebook: str, profile: Path) -> "Study":
        """Open the study that a notebook opens when it is given the file of a profile."""
        return cls.open(notebook, _of_profile(notebook, profile))

    @cached_property
    def results(self) -> Results:
        """``$DINOLIZER_RESULTS`` or, so that committed results stay as they are, ``data/out``."""
        profile = self.parameters["profile"]
        folder = results_dir(profile, ROOT / "data" / "out")
        file = PROFILES / f"{profile}.yaml"
        if file.is_file() and self.parameters == _of_profile(self.notebook, file):
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
        given = {name: self.parameters[name] for name in names}
        dataset = load(BACKBONES[self.parameters["backbone"]].window, **given)
        self.results.sources.update(dataset.sources)
        return dataset

    @property
    def scale(self) -> str:
        """On what claims are tested here, for `Results.save_verdict`."""
        name = DEMONSTRATION if self.results.small else self.parameters["backbone"]
        datasets, photos = (self.dataset.test[of].nunique() for of in ("dataset", "group"))
        of = f"of {datasets} dataset{'s' * (datasets > 1)}"
        of = "forged here" if self.dataset.train is None else of
        return f"{name}, {photos} photograph{'s' * (photos > 1)} {of}"

    @cached_property
    def degraded(self) -> pd.DataFrame:
        """The images of ``04-robustness``."""
        families, images, seed = (self.parameters[name] for name in ("families", "images", "seed"))
        return images_to_degrade(self.dataset.test, families, images, seed)

    @cached_property
    def heads(self) -> Fits:
        epochs, seed = self.parameters["epochs"], self.parameters["seed"]
        fits = fit(self.dataset, self.model, epochs=epochs, seed=seed)
        self.results.sources["heads"] = fits.hash
        return fits

    @cached_property
    def methods(self) -> dict[str, Method]:
        """By name: the localizer, the baselines and the peers."""
        name, seed = f"DinoLizer ({self.parameters['profile']})", self.parameters["seed"]
        test = self.dataset.test
        localizer = localizer_method(name, self.model, self.heads, test)
        baselines = [baseline_method(each, self.dataset, seed) for each in BASELINES]
        peers = read_peers(self.parameters.get("peers", ()), test, taken=(name, *BASELINES))
        return {method.name: method for method in (localizer, *baselines, *peers)}

    def record(self, localizer: Localizer) -> None:
        """Record the backbone and the head of a localizer with the results."""
        backbone = localizer.backbone
        self.results.sources[f"backbone {backbone.spec.name}"] = backbone.hash
        self.results.sources["head"] = weights_hash(localizer.head)


def _of_profile(notebook: str, profile: Path) -> dict[str, Any]:
    path = NOTEBOOKS / f"{notebook}.ipynb"
    return read_defaults(path) | parameters_for(path, profile)


def prepare(profile: Path) -> None:
    """Fill the cache with the images, heads and thresholds of a profile, given by its file."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        Study.of_profile(path.stem, profile)  # whatever is wrong is told before images are forged
    study = Study.of_profile("04-robustness", profile)
    say(hours_text(study))
    _ = study.methods


def hours_text(study: Study) -> str:
    """How many windows a profile's head, benchmark and robustness study, whose parameters are the
    study's, show to the backbone, and how long that takes at its speed on this machine."""
    model, training = study.model, study.dataset.train
    localizer = Localizer(model, make_head(model.dim), card_for(model))
    windows = 0 if training is None else study.parameters["epochs"] * len(training)
    for images, times in ((study.dataset.test, 1), (study.degraded, len(CASES))):
        sizes = Counter(zip(images["height"], images["width"], strict=True))
        windows += times * sum(localizer.plan(*size).passes * n for size, n in sizes.items())
    side, batch = localizer.window, localizer.batch
    pixels = torch.zeros(batch, 3, side, side, device=model.device)
    with torch.inference_mode():
        speed = batch / median_seconds(lambda: model(pixels), 0.5)
    hours = windows / speed / 3600
    time = f"{hours:,.0f} h" if hours >= 2 else f"{60 * hours:.0f} min"
    share = "of the head (every epoch), the benchmark and the robustness study"
    said = f"about {windows:,} windows {share}, less what is in the cache"
    return f"{study.parameters['profile']}: {said}; at {speed:.3g} per second here: about {time}"


def compute_rows(profile: Path, number: int = 1, count: int = 1) -> None:
    """Cache every ``count``-th part, from the ``number``-th on, of the rows of 03 and 04."""
    study = Study.of_profile("04-robustness", profile)
    methods, seed = list(study.methods.values()), study.parameters["seed"]
    rows_of(methods, study.dataset.test, number=number, count=count)
    rows_of(methods, study.degraded, CASES, seed, number, count)
