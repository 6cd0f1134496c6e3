"""What re-encoded pixels are called in training, and what that does to the map. Heads of all
policies, for several seeds, are fitted on the same tokens and map an image together."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from dinolizer.data.manifest import POLICIES
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES, probabilities
from dinolizer.model.specs import Reduce
from dinolizer.study.evaluation import RATE, Image, Row
from dinolizer.study.heads import image_logits
from dinolizer.study.metrics import Map
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import macro_table
from dinolizer.training.heads import Heads

CLASS_NAMES = ("real", "re-encoded", "inpainted")  # as the three-class head's channels
PRISTINE, FAKE, THREE = POLICIES


def relabelled(sample: Sample, policy: str) -> Sample:
    """The same windows with the labels of a policy in place of three classes."""
    shares = sample.targets
    edited = shares[:, 2] if policy == PRISTINE else shares[:, 1:].sum(1)
    return replace(sample, targets=shares if policy == THREE else edited)


def policy_maps(
    backbone: Backbone, policies: dict[str, Heads], sample: Sample, reduce: Reduce = "mean"
) -> Callable[[Image, Row], list[Map]]:
    """Maps of an image by the heads of all policies, see `fit_drawn`, and seeds: probabilities of
    an edit; ``reduce`` says how the logits of windows are put together. Of their sum in float32 so
    many probabilities are exactly 1 that average precision cannot rank them."""
    logits = image_logits(backbone, [*policies.values()], sample, reduce=reduce)
    channels = [heads.axes["seed"] * CLASSES[policy] for policy, heads in policies.items()]

    def maps(image: Image, row: Row) -> list[Map]:
        of_policies = zip(policies, logits(image, row).split(channels), strict=True)
        of_seeds = [of.unflatten(0, (-1, CLASSES[policy])) for policy, of in of_policies]
        return [one for of in of_seeds for one in probabilities(of)[:, -1].numpy()]

    return maps


def background_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """`macro_table` of the false-positive rate of re-generated backgrounds (``fr``), against
    untouched ones (``sp``), by policy. Photographs that have both count alike; no line without."""
    named = rows.assign(background=rows["kind"].map({"fr": "regenerated", "sp": "untouched"}))
    long = named[["method", "background", "group", RATE]].dropna()
    long = long.sort_values("background", kind="stable").assign(image=long["group"])
    both = long.groupby("group")["background"].transform("nunique") == 2
    if not both.any():
        return pd.DataFrame(columns=["method", "background", RATE])
    return macro_table(long[both], ["method", "background"], RATE, {"background": "untouched"})
