"""No head meets what it is tested on, and what it was fitted on decides where it is cached."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import small_backbone, small_manifest
from torch import Tensor

from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone, load_backbone
from dinolizer.model.head import make_head
from dinolizer.model.localizer import Localizer
from dinolizer.study import cache
from dinolizer.study import heads as crossfit
from dinolizer.study.samples import Dataset, window_sample
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
                    "generator": generator,
                    "family": generator,
                    "area": mask.mean() / 255,
                    "group": group,
                    "width": SIDE,
                    "height": SIDE,
                    "seen": generator != "heldout",
                }
            )
    return pd.DataFrame(rows)


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

    tempered = []
    monkeypatch.setattr(crossfit.training, "fit_heads", note)
    monkeypatch.setattr(crossfit.training, "temper", lambda _head, *of: tempered.append(len(of[0])))
    monkeypatch.setattr(crossfit, "_fit_hash", lambda: "")
    fits = crossfit.fit(Dataset(manifest, None), small_backbone(), epochs=1)
    biases = {group: one.head.bias.item() for group, one in fits.left_out.items()}
    assert biases == {"a": 0, "b": 1, "c": 2}
    assert fits.whole.head.bias.item() == 3
    count = 4
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
    assert tempered == [count * len(own) for own in expected["train"]]


def test_one_photograph_gets_the_head_that_comes_with_the_backbone(manifest: pd.DataFrame) -> None:
    pocket = load_backbone("pocket")
    alone = crossfit.fit(Dataset(manifest[manifest["group"] == "a"], None), pocket)
    shipped = Localizer.from_pretrained("pocket").head
    assert torch.equal(alone.heads(manifest)["a"].weight, shipped.weight)
    with pytest.raises(InputError, match="head"):  # an untrained backbone has none
        crossfit.fit(Dataset(manifest[:1], None), load_backbone("untrained-pocket-learned"))


def test_left_out_heads_are_fitted_once(
    manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, dataset = small_backbone(), Dataset(manifest, None)
    tokens, sample = window_sample(dataset, backbone)
    members = sample.rows["group"].ne("b") & sample.rows["seen"]
    members = torch.tensor(members.to_numpy(bool))[None]
    alone = crossfit.training.fit_heads(tokens, sample.targets, members, epochs=2)
    first = crossfit.fit(dataset, backbone, epochs=2)
    crossfit.training.temper(alone[0].head, tokens[members[0]], sample.targets[members[0]])
    assert torch.allclose(first.left_out["b"].head.weight, alone[0].head.weight, atol=1e-5)

    def fit_heads(*_arguments: object, **_settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(crossfit.training, "fit_heads", fit_heads)
    again = crossfit.fit(dataset, backbone, epochs=2)
    for found, expected in (
        (again.whole, first.whole),
        *((again.left_out[group], first.left_out[group]) for group in "abc"),
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
    path = Path(manifest["image"].iloc[0])
    write_image(path, 255 - read_image(path))  # other pixels under the same name
    with pytest.raises(AssertionError):
        crossfit.fit(dataset, backbone, epochs=2)


@pytest.mark.parametrize("change", ["fit", "tokens", "crops", "torch"])
def test_changed_code_and_another_torch_are_another_key(
    change: str, manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def note(_kind: str, key: str, _compute: object) -> pd.DataFrame:
        keys.append(key)
        return fitted

    dataset = Dataset(manifest, None)
    fitted = pd.DataFrame([{"weight": [0.0] * 32, "bias": [0.0], "epoch": [1]}] * 4)
    monkeypatch.setattr(crossfit, "cached", note)
    crossfit.fit(dataset, small_backbone(), epochs=1)
    crossfit.fit(dataset, small_backbone(), epochs=1)
    assert keys[0] == keys[1]
    crossfit._fit_hash.cache_clear()
    if change == "fit":
        fit_heads = crossfit.training.fit_heads
        monkeypatch.setattr(
            crossfit.training, "fit_heads", lambda *given, **has: fit_heads(*given, lr=0.1, **has)
        )
    if change == "tokens":
        monkeypatch.setattr(Backbone, "forward", lambda self, batch: self.tokens(batch) * 1.1)
    if change == "crops":
        monkeypatch.setattr(crossfit, "Crops", shifted(crossfit.Crops))
    if change == "torch":
        monkeypatch.setattr(cache, "version", lambda name: "9.9" if name == "torch" else "1")
    crossfit.fit(dataset, small_backbone(), epochs=1)
    crossfit._fit_hash.cache_clear()
    assert keys[2] != keys[0]


def shifted(crops: type) -> type:
    class Shifted(crops):  # type: ignore[misc, valid-type]
        def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
            image, shares = super().__getitem__(item)
            return image.roll(1, dims=2), shares

    return Shifted


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
    assert first.left_out == {}
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
