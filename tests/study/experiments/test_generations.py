"""Generations on the same crops: who learns from what, and is tested on what."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import sem
from scipy.stats import t as student
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from small import SPEC, small_backbone

from dinolizer.data.images import write_image
from dinolizer.model.backbones import load_backbone
from dinolizer.study.evaluation import by_generators, compare_variants
from dinolizer.study.experiments import generations
from dinolizer.study.experiments.labels import CLASS_NAMES
from dinolizer.study.samples import Dataset, Sample, crop_sample
from dinolizer.study.statistics import macro_table
from dinolizer.training.tokens import extract


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
    window = generations.common_window(pair)
    assert window == 448  # 4 times 112, the least common multiple of 14 and 16
    assert generations.common_window(["pocket-learned", "pocket-rotary"]) == 112
    dataset = large_images(tmp_path)
    backbones = {name: load_backbone(name, window=window) for name in pair}
    images, samples = generations.common_crops(dataset, backbones, seed=3)
    for name, backbone in backbones.items():
        crops, alone = crop_sample(dataset, backbone.spec, seed=3, policy="three-class")
        assert np.array_equal(images, crops)
        assert torch.equal(samples[name].targets, alone.targets)
        tokens = backbone(torch.rand(1, 3, window, window))
        assert tokens.shape[2:] == alone.targets.shape[2:]


PHOTOS = 5
EACH = 8


def dataset() -> tuple[list[np.ndarray], Sample]:
    """Noise, of which the left half is brighter where it is edited; every fourth is held out."""
    rng = np.random.default_rng(0)
    count = PHOTOS * EACH
    images = [rng.integers(60, 120, (SPEC.window, SPEC.window, 3), np.uint8) for _ in range(count)]
    targets = torch.zeros(count, 4, 4)
    for number in range(0, count, 2):
        images[number][:, :28] += 60
        targets[number, :, :2] = 1
    photo = np.arange(count) % PHOTOS
    seen = np.arange(count) % 4 > 0
    rows = pd.DataFrame(
        {
            "image": [str(number) for number in range(count)],
            "group": [f"photo {number}" for number in photo],
            "family": np.where(seen, "seen", "held out"),
            "kind": "sp",
            "seen": seen,
            "area": 0.5,
            "share": targets.mean((1, 2)).numpy(),
        }
    )
    train = (photo != np.arange(PHOTOS)[:, None]) & seen
    return images, Sample(targets, rows, photo, torch.from_numpy(train))


def test_no_draw_meets_the_photographs_that_it_tests_nor_the_held_out_generator() -> None:
    _, sample = dataset()
    drawn = generations.draws(sample, range(5))
    tested = []
    for draw in drawn:
        learnt, test = sample.rows.iloc[draw.train], sample.rows[draw.test]
        assert not set(learnt["group"]) & set(test["group"])
        assert learnt["seen"].all()
        assert len(draw.train) == 3 * EACH - 6  # of 3 photographs, the held-out quarter apart
        assert draw.test.sum() == 2 * EACH
        tested += list(test["group"].unique())
    assert sorted(tested) == sorted(2 * [f"photo {number}" for number in range(PHOTOS)])
    assert len({tuple(draw.train) for draw in drawn}) == 5


def test_with_a_training_set_all_that_is_tested_is_tested_by_every_draw() -> None:
    _, sample = dataset()
    fold = np.repeat([-1, 0], [30, 10])
    split = Sample(sample.targets, sample.rows, fold, torch.from_numpy(fold < 0)[None])
    for draw in generations.draws(split, range(2)):
        assert np.flatnonzero(draw.test).tolist() == list(range(30, 40))
        assert len(draw.train) == 30
        assert draw.train.max() < 30


def test_training_end_to_end_starts_from_the_frozen_one_and_learns(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path))
    images, sample = dataset()
    backbone = small_backbone()
    tokens = extract(backbone, images)
    drawn = generations.draws(sample, [0])
    monkeypatch.setattr(generations, "LEARNING_RATE", 1e-12)
    still = generations.train_and_test(backbone, images, tokens, sample, drawn, epochs=2, steps=1)
    assert list(still["training"].unique()) == ["frozen", "full"]
    assert set(still["backbone"]) == {"small"}
    by_training = dict(list(still.groupby("training")))
    areas = {name: part["predicted_area"].tolist() for name, part in by_training.items()}
    assert areas["full"] == areas["frozen"]
    monkeypatch.setattr(generations, "LEARNING_RATE", 1e-2)
    moved = generations.train_and_test(backbone, images, tokens, sample, drawn, epochs=1, steps=20)
    iou = moved.groupby("training")["iou"].mean()
    assert iou["full"] > iou["frozen"]
    assert backbone.hash == small_backbone().hash  # the backbone itself stays as it was
    state = small_backbone().model.state_dict()
    assert all(value.equal(state[name]) for name, value in backbone.model.state_dict().items())


def test_the_table_has_seen_and_held_out_generators_apart() -> None:
    """By hand: frozen 0.2 and 0.4 seen, 0.1 held out; trained 0.1 more seen, 0.05 less held out."""
    rows = pd.DataFrame(
        [
            {
                "backbone": "v2",
                "training": training,
                "seed": 0,
                "image": str(number),
                "group": str(number % 2),
                "family": "g" if number < 2 else "h",
                "seen": number != 2,
                "iou": np.nan if number == 3 else iou + gain[number],
                "predicted_area": 0.25,
            }
            for training, gain in (("frozen", (0, 0, 0, 0)), ("full", (0.1, 0.1, -0.05, 0)))
            for number, iou in enumerate((0.2, 0.4, 0.1, 0))
        ]
    )
    doubled = by_generators(rows, rows["iou"].isna())
    by = ["generators", "backbone", "training"]
    table = compare_variants(doubled, by, {"training": "frozen"}).set_index(
        ["generators", "training"]
    )
    assert table["backbone"].tolist() == ["v2"] * 4
    assert table["iou"].tolist() == pytest.approx([0.3, 0.4, 0.1, 0.05])
    assert table["iou_change"].tolist() == pytest.approx([0, 0.1, 0, -0.05])
    assert table["n_images"].tolist() == [2, 2, 1, 1]
    assert table["false_positive_rate"].tolist() == [0.25] * 4


def three_class_sample() -> tuple[torch.Tensor, Sample]:
    """Each crop has a row of patches of every class and one that is mixed; two folds."""
    labels = torch.tensor([0, 1, 2, 0]).repeat_interleave(4).reshape(4, 4).expand(6, 4, 4)
    targets = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    targets[:, :, 3] = 1 / 3
    fold = np.array([0, 1, 0, 1, 0, 1])
    rows = pd.DataFrame(
        {
            "image": list("uvwxyz"),
            "group": list("abcabc"),
            "family": "f",
            "kind": "sp",
            "seen": True,
        }
    )
    train = torch.from_numpy(fold != np.arange(2)[:, None])
    return labels, Sample(targets, rows, fold, train)


def test_patches_are_classified_by_a_probe_that_never_met_them() -> None:
    labels, sample = three_class_sample()
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=(6, 5, 4, 4))).float()
    tokens = noise + 1.2 * torch.nn.functional.pad(labels[:, None], (0,) * 8).float()
    halves = [sample.fold == 0, sample.fold == 1]
    drawn = [
        generations.Draw(seed, np.flatnonzero(~half), half) for seed, half in enumerate(halves)
    ]
    rows = generations.linear_probe(tokens, sample, drawn)
    assert set(rows["family"]) == set(CLASS_NAMES)
    assert len(rows) == 6 * 3  # the mixed row of patches is left out
    pure = labels[:, :3].reshape(6, -1).numpy()
    features = tokens[:, :, :3].flatten(2).transpose(1, 2).numpy()
    accuracies = []
    for draw in drawn:
        classifier = LinearDiscriminantAnalysis("lsqr", shrinkage="auto", priors=[1 / 3] * 3)
        classifier.fit(features[draw.train].reshape(-1, 5), pure[draw.train].ravel())
        called = classifier.predict(features[draw.test].reshape(-1, 5))
        accuracies.append(balanced_accuracy_score(pure[draw.test].ravel(), called))
    rows = rows.assign(backbone="v2", layer=1)
    doubled = by_generators(rows, rows["family"] == "real")
    line = macro_table(doubled, ["backbone", "layer", "generators"], "accuracy").iloc[0]
    assert line["generators"] == "seen"
    assert line["n_photos"] == 3
    assert line["accuracy"] == pytest.approx(np.mean(accuracies))
    assert line["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))  # between the draws
    assert 1 / 3 < line["accuracy_low"] <= line["accuracy"] <= line["accuracy_high"]


def design_rows(offsets: dict[str, list[float]]) -> pd.DataFrame:
    """AP of eight photographs, one image each, that vary by .01 around a level of each backbone."""
    return pd.DataFrame(
        {
            "design": design,
            "backbone": f"{design}-{number}",
            "family": "f",
            "group": str(photo),
            "image": str(photo),
            "ap": 0.5 + offset + 0.01 * (photo % 2) * (design == "v2"),
        }
        for design, levels in offsets.items()
        for number, offset in enumerate(levels)
        for photo in range(8)
    )


def test_a_lead_must_hold_over_pretrainings_as_well_as_over_photographs() -> None:
    levels = {"v2": [0.1, 0.0, 0.05], "v3": [0.0, 0.02, 0.01]}
    lead, low, high = generations.design_lead(design_rows(levels), "v2", "v3", "ap")
    assert lead == pytest.approx(0.05 - 0.01 + 0.005)
    # Over photographs alone every difference is near .045; Welch's formula by hand, over seeds.
    first, second = (np.array(of) for of in levels.values())
    parts = [of.var(ddof=1) / 3 for of in (first, second)]
    freedom = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    half = student.ppf(0.975, freedom) * np.sqrt(sum(parts))
    assert (low, high) == pytest.approx((lead - half, lead + half))
    assert low < 0 < high


def test_one_pretraining_of_each_leaves_the_interval_over_photographs() -> None:
    lead, low, high = generations.design_lead(
        design_rows({"v2": [0.1], "v3": [0.0]}), "v2", "v3", "ap"
    )
    differences = 0.1 + 0.01 * (np.arange(8) % 2)
    expected = student.interval(0.95, 7, differences.mean(), sem(differences))
    assert (low, high) == pytest.approx(expected)
    assert lead == pytest.approx(0.105)


def test_the_gain_is_of_the_same_image_backbone_and_draw() -> None:
    rows = design_rows({"v2": [0.1, 0.0], "v3": [0.0]}).assign(seed=0)
    other = rows.assign(ap=rows["ap"] + 0.1 * (rows["backbone"] == "v2-1"))
    both = pd.concat([rows.assign(training="frozen"), other.assign(training="full")])
    gain = generations.gains(both.sample(frac=1, random_state=0), "ap")
    assert len(gain) == 3 * 8
    means = gain.groupby("backbone")["gain"].mean()
    assert means.to_dict() == pytest.approx({"v2-0": 0, "v2-1": 0.1, "v3-0": 0})


def test_pooled_tokens_and_patches_tell_edited_crops_where_they_can() -> None:
    """One patch of each edited crop has the highest value of a channel, or all are of one kind, and
    the area is that of chance, within its interval."""
    _, sample = dataset()
    edited = sample.targets.amax((1, 2)) > 0
    sample = replace(sample, targets=torch.zeros(len(edited), 4, 4))
    sample.targets[edited, 1, 2] = 1
    values = torch.rand(len(edited), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = values.clone()
    plain[edited, 0, 1, 2] = 3
    rows = generations.pooled_or_patches(plain, sample, range(2), epochs=30).set_index("by")
    areas = {"patches": 1, "pooled": 1, generations.LEAD: 0}
    assert rows["auc"].to_dict() == pytest.approx(areas, abs=0.05)
    rows = generations.pooled_or_patches(values, sample, range(2), epochs=30).set_index("by")
    lead = rows.loc[generations.LEAD]
    assert lead["auc"] == pytest.approx(rows["auc"]["patches"] - rows["auc"]["pooled"])
    assert lead["auc_low"] < 0 < lead["auc_high"]
    rows = rows.drop(generations.LEAD)
    assert (rows["auc_low"] < 0.5).all() and (rows["auc_high"] > 0.5).all()
