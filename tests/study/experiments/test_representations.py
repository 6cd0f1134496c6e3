"""Similarity of features, agreement of tokens and what tells patches apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.backbones import load_backbone
from dinolizer.study.dataset import Dataset
from dinolizer.study.experiments import representations
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.samples import Sample, crop_sample

GROUPS = ["a", "b", "c", "a", "b", "c"]


def large_images(folder: Path) -> Dataset:
    """Noise of 640 x 700 pixels of two photographs, larger than the window of any backbone."""
    rng = np.random.default_rng(0)
    mask = np.zeros((640, 700), np.uint8)
    mask[200:500, 100:400] = 255
    write_image(folder / "mask.png", mask)
    rows = []
    for group in ("a", "b"):
        image = folder / f"{group}.png"
        write_image(image, rng.integers(0, 256, (640, 700, 3), np.uint8))
        rows.append({"image": str(image), "mask": str(folder / "mask.png"), "group": group})
    frame = pd.DataFrame(rows).assign(kind="sp", background="real", family="x", seen=True)
    return Dataset(frame.assign(generator="x", area=0.2), None)


def test_backbones_of_other_patches_and_windows_are_compared_on_the_same_pixels(
    tmp_path: Path,
) -> None:
    """DINOv2's window of 504 and DINOv3's of 512 pixels draw other positions of the crop."""
    pair = ("untrained-dinov2-small", "untrained-dinov3-small")
    window = representations.common_window(pair)
    assert window == 448  # 4 times 112, the least common multiple of 14 and 16
    assert representations.common_window(["pocket-learned", "pocket-rotary"]) == 112
    dataset = large_images(tmp_path)
    backbones = {name: load_backbone(name, window=window) for name in pair}
    images, samples = representations.common_crops(dataset, backbones, seed=3)
    for name, backbone in backbones.items():
        crops, alone = crop_sample(dataset, backbone.spec, seed=3, policy="three-class")
        assert np.array_equal(images, crops)
        assert torch.equal(samples[name].targets, alone.targets)
        tokens = backbone(torch.rand(1, 3, window, window))
        assert tokens.shape[2:] == alone.targets.shape[2:]
    whole = {name: load_backbone(name) for name in pair}
    with pytest.raises(InputError, match="load them for a window of 448"):
        representations.common_crops(dataset, whole)


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


def test_the_table_has_every_pair_once_and_agrees_with_the_definition() -> None:
    layers = {
        ("v2", 1): random_tokens(0),
        ("v2", 2): random_tokens(1) + 5,
        ("v3", 1): random_tokens(2),
    }
    table = representations.cka_table(layers, GROUPS)
    assert len(table) == 6
    for line in table.itertuples():
        pair = layers[line.first, line.first_layer], layers[line.second, line.second_layer]
        expected = linear_cka(*map(flat, pair))
        assert line.cka == pytest.approx(expected, abs=1e-5)
        assert 0 <= line.low <= line.high <= 1 + 1e-6


def test_the_interval_of_cka_is_of_whole_photographs_drawn_anew() -> None:
    """The same draws, and of each the crops of its photographs, repeated, written out."""
    layers = {("v2", 1): random_tokens(0), ("v3", 1): random_tokens(1)}
    table = representations.cka_table(layers, GROUPS, seed=4)
    between = table[table["first"] != table["second"]].iloc[0]
    values = []
    for times in np.random.default_rng(4).multinomial(
        3, [1 / 3] * 3, size=representations.RESAMPLES
    ):
        crops = [n for n, group in enumerate(GROUPS) for _ in range(times["abc".index(group)])]
        values.append(linear_cka(*(flat(part[crops]) for part in layers.values())))
    assert [between["low"], between["high"]] == pytest.approx(
        list(np.quantile(values, [0.025, 0.975])), abs=1e-5
    )


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


def test_what_is_as_different_as_any_other_token_has_moved_by_one() -> None:
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 50, 50))).float()
    other = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3, 50, 50))).float()
    assert representations.change(tokens, tokens, GROUPS) == (0, 0, 0)
    moved, low, high = representations.change(tokens, other, GROUPS)
    assert moved == pytest.approx(1, abs=0.02)
    assert low <= moved <= high


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
    assert set(rows["truth"]) == set(CLASS_NAMES)
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
    line = representations.accuracy_table(rows).iloc[0]
    assert line["generators"] == "seen"
    assert line["n_photos"] == 3
    assert line["accuracy"] == pytest.approx(expected)
    assert 1 / 3 < line["accuracy_low"] <= line["accuracy"] <= line["accuracy_high"]
    two = pd.concat([rows, rows.assign(backbone="v3", correct=rows["correct"] - 0.1)])
    assert representations.accuracy_lead(two, "v2", "v3") == pytest.approx((0.1, 0.1, 0.1))


def test_pictures_show_the_three_directions_in_which_tokens_differ_most() -> None:
    tokens = torch.zeros(2, 4, 2, 2)
    tokens[0, 2], tokens[1, 2] = 9, -9
    tokens[:, 0, 0], tokens[:, 3, :, 0] = 3, 1
    first, second = representations.pca_pictures(tokens, [0, 1])
    assert first.shape == (2, 2, 3)
    assert np.abs(first - second)[..., 0] == pytest.approx(1, abs=1e-4)  # the two crops
    assert np.ptp(first[..., 1], axis=0) == pytest.approx(1, abs=1e-4)  # the two rows
    assert np.ptp(first[..., 2], axis=1) == pytest.approx(1, abs=1e-4)  # the two columns
