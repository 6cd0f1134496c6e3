from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import random_head, small_backbone
from torch import Tensor

from dinolizer.data.images import write_image
from dinolizer.model.localizer import Localizer
from dinolizer.study import crossfit
from dinolizer.study.evaluation import read_pair

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
    windows = crossfit.read_windows(small_backbone(), manifest)
    met = {}

    def note(_tokens: object, _targets: object, train: Tensor, **settings: Tensor) -> list[None]:
        met.update(train=train, validation=settings["validation"])
        return [None] * len(train)

    monkeypatch.setattr(crossfit.training, "fit_heads", note)
    assert list(crossfit.fit_heads(windows, epochs=1, seed=0)) == ["a", "b", "c"]
    count = len(windows.positions)
    # Rows 0, 2 and 4 are the seen generator's, one a photograph: the other two train each head.
    for name, rows in (("train", [(2, 4), (0, 4), (0, 2)]), ("validation", [(0,), (2,), (4,)])):
        for found, own in zip(met[name], rows, strict=True):
            assert set((found.nonzero().squeeze(1) // count).tolist()) == set(own)
            assert found.sum() == count * len(own)


def test_map_from_tokens_is_the_localizers(manifest: pd.DataFrame) -> None:
    backbone = small_backbone()
    windows = crossfit.read_windows(backbone, manifest)
    heads = {group: random_head(backbone.dim) for group in "abc"}
    for number, head in enumerate(heads.values()):
        head.weight.data *= number + 1
    cached = crossfit.predict_from(windows, heads, manifest)
    direct = crossfit.predict_with(backbone, heads)
    for row in manifest.to_dict("records"):
        image, _ = read_pair(row)
        # Tokens are kept in half precision.
        assert np.allclose(cached(image, row), direct(image, row), atol=2e-2)
    row = manifest.iloc[3].to_dict()
    own = Localizer(backbone, heads["b"], crossfit.card_for(backbone, ""))
    assert np.array_equal(direct(read_pair(row)[0], row), own(row["image"]).probability)
