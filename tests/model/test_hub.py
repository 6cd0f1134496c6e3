"""A head goes to a hub with a page that says what it is, and comes back from a folder or there."""

import json
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
from huggingface_hub import HfApi, ModelCard
from skimage import data

from dinolizer import InputError, Localizer
from dinolizer.model import hub, weights
from dinolizer.model.specs import BACKBONES
from dinolizer.model.weights import head_file
from dinolizer.paths import file_hash

POCKET = head_file("pocket")


def test_a_folder_is_a_model_whose_page_says_what_its_head_is(tmp_path: Path) -> None:
    hub.save_repository(POCKET, tmp_path / "shared", "user/mine")
    assert (tmp_path / "shared" / "model.safetensors").read_bytes() == POCKET.read_bytes()
    page = ModelCard.load(tmp_path / "shared" / "README.md")
    assert (page.data.license, page.data.library_name) == ("apache-2.0", "dinolizer")
    for words in ("user/mine", BACKBONES["pocket"].caution, file_hash(POCKET), "| stride | 112 |"):
        assert words in page.text
    with pytest.raises(InputError, match="is there already"):
        hub.save_repository(POCKET, tmp_path / "shared")

    photo = data.astronaut()[:300, :300]
    own, shared = (Localizer.from_pretrained(of) for of in ("pocket", str(tmp_path / "shared")))
    assert shared.settings == own.settings
    np.testing.assert_array_equal(shared(photo).probability, own(photo).probability)


def test_what_is_sent_is_what_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = create_autospec(HfApi, instance=True)
    api.create_repo.return_value = "https://huggingface.co/user/mine"

    def upload(*, repo_id: str, folder_path: str) -> None:
        shutil.copytree(folder_path, tmp_path / repo_id)

    api.upload_folder.side_effect = upload
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    monkeypatch.setattr(weights, "hub_file", lambda name, _: tmp_path / name / hub.HUB_FILE)
    assert hub.push(POCKET, "user/mine") == "https://huggingface.co/user/mine"
    assert api.create_repo.call_args.kwargs == {"private": True, "exist_ok": True}
    assert Localizer.from_pretrained("user/mine").backbone.spec.name == "pocket"

    api.upload_folder.side_effect = ConnectionError
    with pytest.raises(InputError, match=r"could not be sent to user/mine \(ConnectionError\)"):
        hub.push(POCKET, "user/mine")


def test_a_file_of_no_head_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_text(json.dumps({}))
    with pytest.raises(InputError, match="cannot be read"):
        hub.push(tmp_path / "head.safetensors", "user/mine")


def test_the_masks_and_maps_of_arrays_are_those_of_the_call() -> None:
    model, photos = Localizer.from_pretrained("pocket"), [data.astronaut()[:250, :300]] * 2
    result = model(photos[0])
    for mask, map_ in zip(model.predict(photos), model.predict_proba(photos), strict=True):
        np.testing.assert_array_equal(mask, result.mask)
        np.testing.assert_array_equal(map_, result.probability)
