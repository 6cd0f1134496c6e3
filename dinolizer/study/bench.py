"""Speed, measured in one run on one machine: what is compared is compared side by side."""

import os
import platform
import resource

import numpy as np
import pandas as pd
import torch

from dinolizer.data.manifest import read_pair
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import card_for, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.paths import results_dir
from dinolizer.pocket.photos import load_photo
from dinolizer.study.dataset import load
from dinolizer.study.heads import read_windows
from dinolizer.study.loops import MONAI_INSTALLED
from dinolizer.study.refit import training
from dinolizer.study.results import Results
from dinolizer.study.timing import WITHOUT_MONAI, measured_peaks, side_by_side

BIG = "untrained-bfree"
"""The paper's architecture, with random weights: they are as fast as trained ones."""


def bench() -> pd.DataFrame:
    """Measure the pocket model and the paper's architecture, and the training of the former.

    Returns
    -------
    DataFrame
        As `measure`; ``dice`` is nan but where `training` gives it.
    """
    pocket = Localizer.from_pretrained("pocket")
    peaks = measured_peaks(pocket.backbone.device)
    tables = [side_by_side(pocket, load_photo("astronaut"), peaks)]
    edited = load(pocket.window).test
    edited = edited[
        edited["kind"].eq("sp")
        & edited["generator"].eq("autoencoder")
        & edited["condition"].eq("clean")
        & ~edited["grain"]
    ]
    images = [read_pair(row)[0] for row in edited.to_dict("records")]
    windows = read_windows(pocket.backbone, edited)
    tables.append(training(pocket, images, windows, peaks, repeats=2))
    large = load_backbone(BIG)
    card = card_for(large)
    big = Localizer(large, make_head(large.dim), card)
    side = card.window + card.stride  # four windows: one batch on a CPU
    photo = np.tile(load_photo("astronaut"), (2, 2, 1))[:side, :side]
    tables.append(side_by_side(big, photo, peaks, repeats=3))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    table = bench()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        machine = f"{torch.cuda.get_device_name()}; {machine}"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    caption = (
        f"Speed in one run ({machine}; peak memory {memory:.1f} GB): medians; ratio: to the line "
        "'of' of the same model, round by round, with the lowest and the highest"
    )
    Results("bench", results_dir("bench"), {"machine": machine}).save_table(table, "speed", caption)
    if not MONAI_INSTALLED:
        print(WITHOUT_MONAI)
    print(f"{caption}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
