"""Windows and crops keep to their images, and no head is asked about what it met."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from small import SPEC, random_head, small_backbone, small_manifest
from trees import make_bfree, make_cocoglide

from dinolizer.data.datasets import make_manifest
from dinolizer.data.degradations import resize
from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_manifest, read_pair, write_manifest
from dinolizer.errors import InputError
from dinolizer.model.head import card_for
from dinolizer.model.localizer import Localizer
from dinolizer.study import evaluation, samples
from dinolizer.study.evaluation import pictures, score_maps
from dinolizer.study.heads import (
    StudyLocalizer,
    image_logits,
    left_out_logits,
    patch_scores,
    window_rows,
)
from dinolizer.study.samples import (
    Dataset,
    Sample,
    crop_sample,
    draw_rows,
    images_to_degrade,
    joined,
    load,
    read_sample,
    window_sample,
)
from dinolizer.training.heads import Heads


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def crossfit(tmp_path: Path) -> Dataset:
    """Nine images of three photographs; the generator of every third one is held out."""
    frame = read_manifest(small_manifest(tmp_path / "a", 9, ("cross-fit",)))
    frame["group"] = [("x", "y", "z")[number // 3] for number in range(9)]
    frame["seen"] = frame["kind"] != "fr"
    return Dataset(frame.assign(family=frame["generator"]), None)


@pytest.fixture
def split(tmp_path: Path) -> Dataset:
    """Twelve training images, six of them for validation, and six of a test."""
    training = read_manifest(small_manifest(tmp_path / "train", 12))
    tested = read_manifest(small_manifest(tmp_path / "test", 6, ("test",)))
    return Dataset(tested.assign(family="other", seen=False), training)


def numbered(folds: int, heads: int, dim: int) -> Heads:
    """Heads that say their own number, whatever they see."""
    made = Heads({"case": heads, "fold": folds}, dim)
    made.bias.data = torch.arange(float(folds * heads))[:, None]
    return made


def test_no_photograph_is_tested_by_a_head_that_met_it(crossfit: Dataset) -> None:
    images, sample = crop_sample(crossfit, SPEC)
    assert (len(images), sample.train.shape, set(sample.fold)) == (9, (3, 9), {0, 1, 2})
    seen = crossfit.test["seen"].to_numpy()
    for fold, met in enumerate(sample.train.numpy()):
        assert not met[sample.fold == fold].any()
        assert np.array_equal(met, (sample.fold != fold) & seen)
    alone = Dataset(crossfit.test.assign(group="x"), None)
    with pytest.raises(InputError, match="takes two, but all images are of 'x'; add"):
        crop_sample(alone, SPEC)


def test_with_a_training_set_its_crops_are_fitted_and_the_tests_are_tested(split: Dataset) -> None:
    images, sample = crop_sample(split, SPEC)
    assert len(images) == 6 + 6  # six of the split ``train``, all of the test
    assert np.array_equal(sample.fold, np.repeat([-1, 0], 6))
    assert np.array_equal(sample.train.numpy(), (sample.fold < 0)[None])
    assert sample.rows["family"].tolist() == ["none"] * 6 + ["other"] * 6
    images, sample = crop_sample(split, SPEC, count=2, tested=False)
    assert (len(images), sample.train.all().item()) == (2, True)
    unfit = split.train.assign(split="test") if split.train is not None else None
    with pytest.raises(InputError, match="no row of the split 'train'"):
        crop_sample(Dataset(split.test, unfit), SPEC)


def test_shares_are_those_of_the_crop_and_repeat_with_the_seed(crossfit: Dataset) -> None:
    images, sample = crop_sample(crossfit, SPEC, seed=3)
    again, _ = crop_sample(crossfit, SPEC, seed=3)
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))
    assert np.allclose(sample.rows["share"], sample.targets.mean((1, 2)))
    assert (sample.rows["share"] == 0).tolist()[::3] == [True] * 3  # the real ones
    assert (sample.rows["area"] > 0).sum() == 6


def test_enlarged_crops_show_less_of_the_image_and_labels_follow(crossfit: Dataset) -> None:
    """The edit is darker: where the labels say so, the enlarged crop is dark as well."""
    images, sample = crop_sample(crossfit, SPEC, scales=(2.0,))
    bright = np.concatenate([image.reshape(4, 14, 4, 14, 3).mean((1, 3, 4)) for image in images])
    edited = sample.targets.numpy().reshape(-1, 4)
    assert bright[edited == 1].mean() < 0.7 * bright[edited == 0].mean()
    assert resize(np.zeros((10, 20, 3), np.uint8), 1.5).shape == (15, 30, 3)
    steps = np.array([[0, 1], [1, 0]], np.uint8)
    larger = resize(steps, 2, cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(larger, np.kron(steps, np.ones((2, 2), np.uint8)))


def test_drawn_images_come_with_all_their_windows_and_as_many_as_there_are() -> None:
    rows = pd.DataFrame({"image": np.repeat(list("abcde"), 2)})
    own = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    sample = Sample(torch.zeros(10, 1, 1), rows, np.zeros(10, int), own)
    drawn = sample.drawn(range(40))
    assert drawn.shape == (40, 1, 10)
    assert torch.equal(drawn[..., ::2], drawn[..., 1::2])
    assert (drawn.sum(-1) == 8).all() and not drawn[..., 8:].any()
    assert torch.equal(sample.drawn([7])[0], drawn[7])
    # With replacement, a window is left out with probability (1 - 1/4)^4.
    assert (drawn[..., :8] == 0).float().mean().item() == pytest.approx(0.75**4, abs=0.08)


def test_every_window_is_asked_of_its_own_heads() -> None:
    fold = np.array([1, 0, -1, 1])
    sample = Sample(torch.zeros(4, 2, 2), pd.DataFrame(), fold, torch.zeros(2, 4))
    logits = left_out_logits(numbered(2, 3, 5), torch.zeros(4, 5, 2, 2).half(), sample)
    assert logits.shape == (4, 3, 2, 2)
    assert logits[:2, :, 0, 0].tolist() == [[1, 3, 5], [0, 2, 4]]
    assert logits[2].isnan().all()


def test_what_is_joined_is_fitted_on_and_not_tested(crossfit: Dataset) -> None:
    _, sample = crop_sample(crossfit, SPEC)
    both = joined(sample, sample)
    assert np.array_equal(both.fold, [*sample.fold, *[-1] * 9])
    assert torch.equal(both.train, torch.cat([sample.train, sample.train], dim=1))
    assert (len(both.rows), len(both.targets)) == (18, 18)


def test_images_are_mapped_as_by_the_localizer_alone(crossfit: Dataset) -> None:
    """With heads that differ from fold to fold."""
    backbone = small_backbone()
    _, sample = window_sample(crossfit, backbone)
    heads = Heads({"case": 2, "fold": 3}, backbone.dim)
    generator = torch.Generator().manual_seed(0)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    direct = image_logits(backbone, [heads], sample)
    card = replace(card_for(backbone), reduce="mean")
    for fold, group in enumerate("xyz"):
        row = crossfit.test[crossfit.test["group"] == group].iloc[1].to_dict()
        image, _ = read_pair(row)
        found = direct(image, row)
        assert found.shape == (2, 70, 90)
        for case in range(2):
            alone = Localizer(backbone, heads.linear(case=case, fold=fold), card)
            torch.testing.assert_close(found[case], alone.logits(image)[0], atol=1e-4, rtol=0)


def test_the_maps_of_a_study_read_the_tokens_of_its_windows(crossfit: Dataset) -> None:
    """The same numbers as by the localizer alone; other pixels go through the backbone."""
    backbone = small_backbone()
    window_sample(crossfit, backbone)
    head, (image, _) = random_head(backbone.dim), read_pair(crossfit.test.iloc[1].to_dict())
    asked: list[int] = []
    backbone.model.patch_embed.register_forward_hook(lambda *of: asked.append(len(of[1][0])))
    localizer = StudyLocalizer(backbone, head, card_for(backbone))
    expected = Localizer(backbone, head, card_for(backbone))(image).probability
    passed = len(asked)
    np.testing.assert_allclose(localizer(image).probability, expected, atol=1e-6)
    assert len(asked) == passed
    localizer(255 - image)
    assert len(asked) > passed


def test_window_scores_are_hand_counted() -> None:
    # Four patches: one half edited and one edited in full; the head marks the latter and a clean
    # one. In patches: found 1, edited 1.5, marked 2, union 2.5.
    targets = torch.tensor([[[0.5, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    about = pd.DataFrame({"image": ["0", "1"], "group": "a"})
    sample = Sample(targets, about, np.zeros(2, int), torch.ones(1, 2, dtype=torch.bool))
    logits = torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]], [[[1.0, -1.0], [-1.0, -1.0]]]])
    rows = window_rows(logits, sample, [{"strategy": "a"}])
    assert rows.loc[0, ["iou", "recall", "predicted_area"]].tolist() == pytest.approx(
        [1 / 2.5, 1 / 1.5, 0.5]
    )
    assert rows["iou"].isna().tolist() == [False, True]
    assert rows.loc[1, "predicted_area"] == 0.25


def test_average_precision_of_patches_is_that_of_scikit_learn_or_hand_counted() -> None:
    """A patch that is half edited counts as one of each class: ranked first of two edited in all,
    its precision of 1/2 counts half, and that of the second, 1.5 / 2, in full."""
    logits = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    truth = (logits[:, :1] + torch.randn(5, 1, 6, 6) > 0).float()
    truth[4] = 0
    found = patch_scores(logits, truth)["ap"]
    expected = [
        [average_precision_score(of.flatten(), one.flatten()) for one in maps]
        for of, maps in zip(truth[:4], logits, strict=False)
    ]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-6)
    assert np.isnan(found[4]).all()
    halved = patch_scores(torch.tensor([[[[3.0, 2.0, 1.0]]]]), torch.tensor([[[[0.5, 1.0, 0.0]]]]))
    assert halved["ap"] == pytest.approx((0.5 * 0.5 + 1.5 / 2) / 1.5)


def test_a_study_reads_windows_or_crops(crossfit: Dataset, split: Dataset) -> None:
    backbone = small_backbone()
    tokens, sample = read_sample(crossfit, backbone)
    assert len(tokens) == len(sample.rows) == 9 * 2 * 3  # windows of 56 pixels, 28 apart
    tokens, sample = read_sample(split, backbone, count=4)
    assert len(tokens) == len(sample.rows) == 8


def test_windows_cut_image_and_mask_alike(crossfit: Dataset) -> None:
    backbone = small_backbone()
    tokens, sample = window_sample(crossfit, backbone)
    image, mask = read_pair(crossfit.test.iloc[1].to_dict())
    corners = [(top, left) for top in (0, 14) for left in (0, 28, 34)]
    for number, (top, left) in enumerate(corners):
        window = np.s_[top : top + 56, left : left + 56]
        batch = torch.from_numpy(image[window]).permute(2, 0, 1)[None].float() / 255
        assert torch.allclose(tokens[6 + number], backbone(batch)[0].half(), atol=2e-2)
        share = mask[window].reshape(4, 14, 4, 14).mean(axis=(1, 3))
        assert np.allclose(sample.targets[6 + number].numpy(), share, atol=1e-6)
    assert sample.rows["image"].tolist()[6:12] == [crossfit.test["image"].iloc[1]] * 6


def test_three_classes_come_with_the_share_of_the_edit_alone(crossfit: Dataset) -> None:
    _, plain = crop_sample(crossfit, SPEC)
    _, sorted_ = crop_sample(crossfit, SPEC, policy="three-class")
    assert sorted_.targets.shape == (len(plain.targets), 3, *plain.targets.shape[1:])
    assert sorted_.targets.sum(1).allclose(torch.ones(()))
    assert sorted_.targets[:, 2].equal(plain.targets)
    assert sorted_.rows.equals(plain.rows)


def write(folder: Path, name: str, *splits: str, **columns: str) -> str:
    """A manifest of 12 images, three of each split in turn: a photo and two edits by ``gan``."""
    frame = read_manifest(small_manifest(folder / name, 12, splits))
    frame["generator"] = ["none" if authentic else "gan" for authentic in frame["authentic"]]
    path = folder / f"{name}.csv"
    write_manifest(frame.assign(**columns), path)
    return str(path)


def test_manifests_are_read_and_only_test_rows_tested(tmp_path: Path) -> None:
    train = write(tmp_path, "train", "train", "valid")
    test = [write(tmp_path, name, "test", "train", dataset=name) for name in ("one", "two")]
    gathered = load(56, train=[train], test=test)
    assert gathered.train is not None
    assert set(gathered.train["split"]) == {"train", "valid"}
    assert set(gathered.test["split"]) == {"test"}
    assert gathered.test["family"].value_counts().to_dict() == {"one": 6, "two": 6}
    assert gathered.test["seen"].all()
    unseen = write(tmp_path, "unseen", "train", "valid", generator="vae")
    assert not load(56, train=[unseen], test=test).test["seen"].any()
    assert list(gathered.sources) == [Path(path).name for path in (train, *test)]
    # With one dataset the generator is name enough.
    alone = load(56, train=[train], test=test[:1]).test
    assert alone["family"].tolist() == alone["generator"].tolist()


def test_a_generator_is_seen_if_its_family_is_trained_on(tmp_path: Path) -> None:
    # B-Free calls Stable Diffusion 2 by its folders' names, TGIF by "sd2".
    train = write(tmp_path, "bfree", "train", generator="SD2.1_inpainted_samecat")
    test = [write(tmp_path, name, "test", dataset=name, generator=name) for name in ("sd2", "sdxl")]
    seen = load(56, train=[train], test=test).test.groupby("generator")["seen"].unique()
    assert {name: list(values) for name, values in seen.items()} == {"sd2": [True], "sdxl": [False]}


def test_a_photograph_that_is_trained_on_is_not_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Across datasets: B-Free's photographs 9 to 12 are trained or validated on, and CocoGlide, of
    which one picture is renamed, has 9, 6999 and 6998."""
    glide = make_cocoglide(tmp_path / "glide")
    for path in [*glide.rglob("*7000*")]:
        path.rename(path.with_name(path.name.replace("7000", "9")))
    make_manifest("bfree", make_bfree(tmp_path / "bfree"), tmp_path / "bfree.csv")
    make_manifest("cocoglide", glide, tmp_path / "glide.csv")
    paths = {"train": [str(tmp_path / "bfree.csv")], "test": [str(tmp_path / "glide.csv")]}
    groups = load(56, **paths).test["group"]
    assert groups.value_counts().to_dict() == {f"coco-{id_:012}": 2 for id_ in (6998, 6999)}
    said = "2 test images left out: their photograph is in training"
    assert said in capsys.readouterr().err
    for id_ in (6998, 6999):
        for path in [*glide.rglob(f"*{id_}*")]:
            path.unlink()
    make_manifest("cocoglide", glide, tmp_path / "glide.csv")
    with pytest.raises(InputError, match="of all test images are in training"):
        load(56, **paths)


def test_a_list_of_images_hangs_on_their_names_alone() -> None:
    """Not on their order, the folder that they lie in, or what else is there; of two lists of 20 of
    60, drawn by other seeds, 6 or 7 are expected in both."""
    frame = pd.DataFrame({"image": [f"/data/{number}.png" for number in range(60)], "kind": "sp"})
    frame = frame.assign(dataset="d", group="g", generator=["a", "b"] * 30)

    def drawn(frame: pd.DataFrame, seed: int = 0, **settings: list[str]) -> set[str]:
        return {Path(path).name for path in draw_rows(frame, 20, seed, **settings)["image"]}

    elsewhere = frame.assign(image=frame["image"].str.replace("/data", "/home/me"))
    assert len(drawn(frame)) == 20
    assert drawn(frame) == drawn(elsewhere.sample(frac=1, random_state=1))
    assert 0 < len(drawn(frame) & drawn(frame, 1)) < 14
    # Less to choose from: those that are there stay, and others come in.
    assert drawn(frame) & set(frame["image"][10:].str[6:]) <= drawn(frame[10:])
    assert drawn(frame, by=["generator"]) >= drawn(frame[::2]) | drawn(frame[1::2])
    # By hand: the smallest SHA-256 of dataset, group, generator, kind, file and seed, in lines.
    texts = {f"d\ng\n{'ab'[number % 2]}\nsp\n{number}.png\n0": number for number in range(60)}
    first = min(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    assert draw_rows(frame, 1, 0).index.tolist() == [texts[first]]


def test_a_limit_holds_for_each_family_and_kind_and_is_drawn_by_the_seed(tmp_path: Path) -> None:
    train, test = (write(tmp_path, split, split) for split in ("train", "test"))
    drawn = [load(56, train=[train], test=[test], limit=2, seed=seed).test for seed in range(4)]
    for frame in drawn:
        assert frame.groupby(["family", "kind"]).size().max() == 2
    assert drawn[0].equals(load(56, train=[train], test=[test], limit=2, seed=0).test)
    assert len({tuple(frame["image"]) for frame in drawn}) > 1


def test_only_one_side_named_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "one", "test")
    with pytest.raises(InputError, match=r"\[\] to train and \['.*one.csv'\] to test: name both"):
        load(56, test=[path])
    with pytest.raises(InputError, match="no row of the split 'test'"):
        load(56, train=[path], test=[write(tmp_path, "other", "train")])


def test_without_manifests_photographs_are_forged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    asked = {}

    def build(photos: dict[str, Path], window: int, seed: int, rounds: int) -> pd.DataFrame:
        asked.update(photos=list(photos), window=window, seed=seed, rounds=rounds)
        return read_manifest(small_manifest(tmp_path / "made", 3, ("cross-fit",)))

    monkeypatch.setattr(samples, "build", build)
    gathered = load(504, photos=str(tmp_path), photo_count=2, seed=3, rounds=4)
    assert asked == {"photos": ["a", "b"], "window": 504, "seed": 3, "rounds": 4}
    assert gathered.train is None
    (before,) = gathered.sources.values()
    # One pixel of one image that is read back is another source.
    image = np.zeros((60, 60, 3), np.uint8)
    write_image(Path(gathered.test["image"].iloc[0]), image)
    image[0, 0] = 1
    first = samples.images_hash(gathered.test)
    write_image(Path(gathered.test["image"].iloc[0]), image)
    assert len({before, first, samples.images_hash(gathered.test)}) == 3


def test_degraded_are_clean_spliced_edits_of_the_families() -> None:
    frame = pd.DataFrame(
        [
            ("kept", False, "x", "sp", "clean"),
            ("other family", False, "y", "sp", "clean"),
            ("not spliced", False, "x", "fr", "clean"),
            ("compressed", False, "x", "sp", "jpeg"),
            ("authentic", True, "none", "real", "clean"),
        ],
        columns=["image", "authentic", "family", "kind", "condition"],
    ).assign(dataset="d", group="g", generator="g")
    assert images_to_degrade(frame, ["x"])["image"].tolist() == ["kept"]
    assert images_to_degrade(frame)["image"].tolist() == ["kept", "other family"]
    assert len(images_to_degrade(frame, images=1)) == 1
    only_regenerated = frame[frame["kind"] != "sp"]
    assert images_to_degrade(only_regenerated)["image"].tolist() == ["not spliced"]
    with pytest.raises(InputError, match=r"edited image of \['z'\]"):
        images_to_degrade(frame, ["z"])


def test_maps_of_heads_are_scored_as_counted_by_hand(
    crossfit: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The left 40 of 90 columns are edited. One head marks the left 60, another nothing."""
    monkeypatch.setattr(evaluation, "RING", 0)

    def maps(image: object, row: object) -> NDArray[np.float32]:
        logits = -np.ones((2, 70, 90), np.float32)
        logits[0, :, :60] = 1
        return logits

    names = [{"head": "left"}, {"head": "none"}]
    rows = score_maps(maps, names, pictures(crossfit.test))
    left, none = (rows[rows["head"] == head] for head in ("left", "none"))
    assert left["iou"].dropna().tolist() == [pytest.approx(40 / 60)] * 6
    assert left["recall"].dropna().tolist() == [1.0] * 6
    assert left["predicted_area"].tolist() == [pytest.approx(60 / 90)] * 9
    assert none["recall"].dropna().tolist() == [0.0] * 6
    assert none["iou"].isna().tolist() == [True, False, False] * 3
