from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import random_head, small_backbone, small_manifest
from torch import Tensor

from dinolizer.data.images import write_image
from dinolizer.data.manifest import read_manifest, read_pair
from dinolizer.model.head import card_for, make_head
from dinolizer.model.localizer import Localizer
from dinolizer.study import heads as crossfit
from dinolizer.study.dataset import Dataset
from dinolizer.training.heads import Fit

SIDE = 84  # two windows of 56 pixels along each side, with a stride of 28


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = []
    for group in ("a", "b", "c"):
        for generator in ("telea", "heldout"):
            image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[10:60, 20:70] = 255
            paths = [tmp_path / f"{group}-{generator}{end}.png" for end in ("", "-mask")]
            write_image(paths[0], image)
            write_image(paths[1], mask)
            rows.append(
                {
                    "image": str(paths[0]),
                    "mask": str(paths[1]),
                    "kind": "sp",
                    "background": "real",
                    "group": group,
                    "width": SIDE,
                    "height": SIDE,
                    "seen": generator != "heldout",
                }
            )
    return pd.DataFrame(rows)


def test_windows_cut_image_and_mask_alike(manifest: pd.DataFrame) -> None:
    backbone = small_backbone()
    windows = crossfit.read_windows(backbone, manifest)
    count = len(windows.positions)
    assert windows.tokens.shape[0] == count * len(manifest)
    image, mask = read_pair(manifest.iloc[1].to_dict())
    for number, (top, left) in enumerate(windows.positions):
        place = np.s_[top : top + 56, left : left + 56]
        batch = torch.from_numpy(image[place]).permute(2, 0, 1)[None].float() / 255
        expected = backbone(batch)[0].half()
        assert torch.allclose(windows.tokens[count + number], expected, atol=2e-2)
        share = mask[place].reshape(4, 14, 4, 14).mean(axis=(1, 3))
        assert np.allclose(windows.targets[count + number].numpy(), share, atol=1e-6)


def test_a_head_never_meets_its_photograph_nor_the_held_out_generator(
    manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = {}

    def note(tokens: Tensor, _targets: object, train: Tensor, **settings: Tensor) -> list[Fit]:
        met.update(train=train, validation=settings["validation"])
        heads = [make_head(tokens.shape[1]) for _ in train]
        for number, head in enumerate(heads):
            head.bias.data.fill_(number)
        return [Fit(head, pd.DataFrame({"epoch": [1]})) for head in heads]

    monkeypatch.setattr(crossfit.training, "fit_heads", note)
    fits = crossfit.fit(Dataset(manifest, None), small_backbone(), epochs=1)
    biases = {group: one.head.bias.item() for group, one in fits.apart.items()}
    assert biases == {"a": 0, "b": 1, "c": 2}
    assert fits.whole.head.bias.item() == 3
    count = len(fits.windows.positions)
    # Rows 0, 2 and 4 are the seen generator's, one a photograph: the other two train each head, and
    # the last head is fitted on all three.
    expected = {
        "train": [{2, 4}, {0, 4}, {0, 2}, {0, 2, 4}],
        "validation": [{0}, {2}, {4}, set()],
    }
    for name, rows in expected.items():
        for found, own in zip(met[name], rows, strict=True):
            assert set((found.nonzero().squeeze(1) // count).tolist()) == own
            assert found.sum() == count * len(own)


def test_cross_fitted_heads_are_fitted_once(
    manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, dataset = small_backbone(), Dataset(manifest, None)
    windows = crossfit.read_windows(backbone, manifest)
    seen = torch.from_numpy(windows.seen)
    others = torch.from_numpy(windows.group != "b") & seen
    alone = crossfit.training.fit_heads(windows.tokens, windows.targets, others[None], epochs=2)
    first = crossfit.fit(dataset, backbone, epochs=2)
    assert torch.allclose(first.apart["b"].head.weight, alone[0].head.weight, atol=1e-5)

    def fit_heads(*_arguments: object, **_settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(crossfit.training, "fit_heads", fit_heads)
    again = crossfit.fit(dataset, backbone, epochs=2)
    for found, expected in (
        (again.whole, first.whole),
        *((again.apart[group], first.apart[group]) for group in "abc"),
    ):
        for name, value in expected.head.state_dict().items():
            assert torch.equal(found.head.state_dict()[name], value)
        pd.testing.assert_frame_equal(found.history, expected.history)
    for changed, settings in (
        (dataset, {"epochs": 3}),
        (dataset, {"epochs": 2, "seed": 1}),
        (dataset, {"epochs": 2, "policy": "three-class"}),
        (Dataset(manifest.iloc[:4], None), {"epochs": 2}),
    ):
        with pytest.raises(AssertionError):
            crossfit.fit(changed, backbone, **settings)  # type: ignore[arg-type]


def test_map_from_tokens_is_the_localizers(manifest: pd.DataFrame) -> None:
    backbone = small_backbone()
    heads = {group: random_head(backbone.dim) for group in "abc"}
    for number, head in enumerate(heads.values()):
        head.weight.data *= number + 1
    apart = {group: Fit(head, pd.DataFrame()) for group, head in heads.items()}
    fits = crossfit.Fits(apart, apart["a"], crossfit.read_windows(backbone, manifest))
    cached = crossfit.predict_own(Dataset(manifest, None), backbone, fits)
    direct = crossfit.predict_with(backbone, heads)
    for row in manifest.to_dict("records"):
        image, _ = read_pair(row)
        # Tokens are kept in half precision.
        assert np.allclose(cached(image, row), direct(image, row), atol=2e-2)
    row = manifest.iloc[3].to_dict()
    own = Localizer(backbone, heads["b"], card_for(backbone))
    assert np.array_equal(direct(read_pair(row)[0], row), own(row["image"]).probability)


def test_with_a_training_set_there_is_one_head_and_it_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    training_set, test = (
        read_manifest(small_manifest(tmp_path / splits[0], 12, splits))
        for splits in (("train", "valid"), ("test",))
    )
    backbone = small_backbone()
    dataset = Dataset(test, training_set)
    first = crossfit.fit(dataset, backbone, epochs=2)
    assert (first.apart, first.windows) == ({}, None)
    assert first.whole.history["epoch"].tolist() == [1, 2]
    heads = first.heads(dataset.test)
    assert set(heads) == set(dataset.test["group"])
    assert all(head is first.whole.head for head in heads.values())

    def train(*_arguments: object, **_settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(crossfit, "train", train)
    again = crossfit.fit(dataset, backbone, epochs=2)
    assert torch.equal(again.whole.head.weight, first.whole.head.weight)
    pd.testing.assert_frame_equal(again.whole.history, first.whole.history)
    with pytest.raises(AssertionError):  # other settings, another head
        crossfit.fit(dataset, backbone, epochs=3)
