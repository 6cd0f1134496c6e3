"""What tokens hold is what the definitions say, written out or counted by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from small import small_backbone

from dinolizer.study.experiments import representations
from dinolizer.study.experiments.comparisons import by_generators
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.samples import Sample
from dinolizer.study.statistics import macro_table

GROUPS = ["a", "b", "c", "a", "b", "c"]


def random_tokens(seed: int, dim: int = 5, side: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(6, dim, side, side))).float()


def flat(tokens: torch.Tensor) -> np.ndarray:
    return tokens.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By its definition: <HKH, HLH> / (|HKH| |HLH|), with the centred kernels written out."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ features @ features.T @ centre for features in (x, y))
    return float((k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m))


def test_cka_of_a_case_counted_by_hand() -> None:
    """X = (-1, 0, 1), Y = (1, -2, 1): uncorrelated, 0. With Y = (0, 0, 3), centred (-1, -1, 2):
    X'Y = 3, X'X = 2, Y'Y = 6, so 9 / 12."""
    values = {"x": [-1.0, 0.0, 1.0], "y": [1.0, -2.0, 1.0], "z": [0.0, 0.0, 3.0]}
    layers = {(name, 1): torch.tensor(of)[:, None, None, None] for name, of in values.items()}
    table = representations.cka_table(layers, ["a", "b", "c"]).set_index(["first", "second"])
    assert table.loc[("x", "y"), "cka"] == pytest.approx(0, abs=1e-6)
    assert table.loc[("x", "z"), "cka"] == pytest.approx(0.75)


def test_cka_minds_neither_rotation_nor_scale_nor_shift() -> None:
    x = random_tokens(0)
    rotation, _ = torch.linalg.qr(torch.from_numpy(np.random.default_rng(2).normal(size=(5, 5))))
    turned = 3 * torch.einsum("ndhw,de->nehw", x, rotation.float()) + 7
    table = representations.cka_table({("v2", 1): x, ("v3", 1): turned}, GROUPS)
    assert table["cka"].to_numpy() == pytest.approx(1, abs=1e-5)


def test_the_table_has_every_two_layers_and_agrees_with_the_definition() -> None:
    layers = {
        ("v2", 1): random_tokens(0),
        ("v2", 2): random_tokens(1) + 5,
        ("v3", 1): random_tokens(2),
    }
    table = representations.cka_table(layers, GROUPS)
    assert len(table) == 9
    for line in table.itertuples():
        pair = layers[line.first, line.first_layer], layers[line.second, line.second_layer]
        expected = linear_cka(*map(flat, pair))
        assert line.cka == pytest.approx(expected, abs=1e-5)
        assert 0 <= line.low <= line.high <= 1 + 1e-6


def test_the_interval_of_cka_is_of_whole_photographs_left_out() -> None:
    """Of pseudo-values from the crops of the other photographs: their t interval's width."""
    layers = {("v2", 1): random_tokens(0), ("v3", 1): random_tokens(1)}
    table = representations.cka_table(layers, GROUPS)
    between = table[table["first"] != table["second"]].iloc[0]
    left_out = []
    for photo in "abc":
        crops = [n for n, group in enumerate(GROUPS) if group != photo]
        left_out.append(linear_cka(*(flat(part[crops]) for part in layers.values())))
    half = np.ptp(ttest_1samp(-2 * np.array(left_out), 0).confidence_interval()) / 2
    ends = np.clip([between["cka"] - half, between["cka"] + half], 0, 1)
    assert [between["low"], between["high"]] == pytest.approx(list(ends), abs=1e-5)


def test_grids_of_different_patches_are_compared_at_the_same_places() -> None:
    coarse = random_tokens(0, side=2)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    table = representations.cka_table({("v2", 1): fine, ("v3", 1): coarse}, GROUPS)
    assert table["cka"].to_numpy() == pytest.approx(1, abs=1e-6)


def test_autocorrelation_of_stripes() -> None:
    """Columns alternate between 1 and -1: one step across -1, down 1, mean 0; two steps 1."""
    tokens = torch.tensor([1.0, -1.0]).repeat(2).expand(6, 1, 4, 4)
    table = representations.autocorrelation(tokens, 14, GROUPS)
    assert table["distance"].tolist() == [14, 28]
    assert table["correlation"].tolist() == pytest.approx([0, 1])
    assert table["correlation_low"].tolist() == pytest.approx([0, 1])
    assert table["correlation_high"].tolist() == pytest.approx([0, 1])


def test_what_is_as_different_as_any_other_token_has_moved_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens that JPEG leaves as they are, and that noise replaces by other random ones."""
    side = 50
    drawn = {name: random_tokens(n, 3, side) for n, name in enumerate(("before", "noise"))}
    drawn["jpeg"] = drawn["before"]
    monkeypatch.setattr(representations, "degrade", lambda name, *rest: name)
    monkeypatch.setattr(
        representations,
        "extract_layers",
        lambda _, crops, layers: {1: drawn[crops[0]], 2: drawn["before"]},
    )
    table = representations.change_table(small_backbone(), ["before"], GROUPS, [1, 2])
    assert len(table) == 2 * len(representations.DEGRADED)
    unmoved = table[(table["degradation"] == "jpeg") | (table["layer"] == 2)]
    assert (unmoved[["change", "change_low", "change_high"]] == 0).all(axis=None)
    moved = table[(table["degradation"] == "noise") & (table["layer"] == 1)]
    assert moved["change"].tolist() == pytest.approx([1] * 3, abs=0.02)
    assert moved["change"].between(moved["change_low"], moved["change_high"]).all()


def three_class_sample() -> tuple[torch.Tensor, Sample]:
    """Each crop has a row of patches of every class and one that is mixed; two folds."""
    labels = torch.tensor([0, 1, 2, 0]).repeat_interleave(4).reshape(4, 4).expand(6, 4, 4)
    targets = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    targets[:, :, 3] = 1 / 3
    fold = np.array([0, 1, 0, 1, 0, 1])
    rows = pd.DataFrame(
        {"image": list("uvwxyz"), "group": GROUPS, "family": "f", "kind": "sp", "seen": True}
    )
    train = torch.from_numpy(fold != np.arange(2)[:, None])
    return labels, Sample(targets, rows, fold, train)


def test_patches_are_classified_by_a_probe_that_never_met_them() -> None:
    labels, sample = three_class_sample()
    tokens = random_tokens(3) + 1.2 * torch.nn.functional.pad(labels[:, None], (0,) * 8).float()
    rows = representations.linear_probe(tokens, sample)
    assert set(rows["family"]) == set(CLASS_NAMES)
    assert len(rows) == 6 * 3  # the mixed row of patches is left out
    truth, called = [], []
    for fold in range(2):
        own, others = (torch.from_numpy(sample.fold == number) for number in (fold, 1 - fold))
        pure = labels[:, :3].reshape(6, -1).numpy()
        features = tokens[:, :, :3].flatten(2).transpose(1, 2).numpy()
        classifier = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=[1 / 3] * 3
        ).fit(features[others].reshape(-1, 5), pure[others].ravel())
        truth += pure[own].ravel().tolist()
        called += classifier.predict(features[own].reshape(-1, 5)).tolist()
    expected = balanced_accuracy_score(truth, called)
    rows = rows.assign(backbone="v2", layer=1)
    doubled = by_generators(rows, rows["family"] == "real")
    line = macro_table(doubled, ["backbone", "layer", "generators"], "accuracy").iloc[0]
    assert line["generators"] == "seen"
    assert line["n_photos"] == 3
    assert line["accuracy"] == pytest.approx(expected)
    assert 1 / 3 < line["accuracy_low"] <= line["accuracy"] <= line["accuracy_high"]


def test_pictures_show_the_three_directions_in_which_tokens_differ_most() -> None:
    tokens = torch.zeros(2, 4, 2, 2)
    tokens[0, 2], tokens[1, 2] = 9, -9
    tokens[:, 0, 0], tokens[:, 3, :, 0] = 3, 1
    first, second = representations.pca_pictures(tokens, [0, 1])
    assert first.shape == (2, 2, 3)
    assert np.abs(first - second)[..., 0] == pytest.approx(1, abs=1e-4)  # the two crops
    assert np.ptp(first[..., 1], axis=0) == pytest.approx(1, abs=1e-4)  # the two rows
    assert np.ptp(first[..., 2], axis=1) == pytest.approx(1, abs=1e-4)  # the two columns
