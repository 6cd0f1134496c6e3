"""Calibration: ranks and thresholds by hand, and heads that keep all else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from dinolizer import InputError, Localizer
from dinolizer.cli import app
from dinolizer.model.calibration import BINS, calibrated
from dinolizer.model.head import load_head, read_head, write_head
from dinolizer.model.localization import noise_level
from dinolizer.paths import ASSETS

HEAD = ASSETS / "pocket-head.safetensors"


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer.from_pretrained("pocket")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (230, 240, 3), dtype=np.uint8)
        pixels[:, : 60 * number] = 128  # something that differs from the rest
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_rank_is_the_share_of_untouched_photographs_with_a_lower_score(
    localizer: Localizer,
) -> None:
    card = replace(localizer.card, untouched=(0.1, 0.2, 0.2, 0.9))
    # Below 0.1 lies none of the four, below 0.2 one, below 0.5 three, below 1 all.
    assert [card.rank(score) for score in (0.1, 0.2, 0.5, 1.0)] == [0, 0.25, 0.75, 1]
    assert replace(card, untouched=()).rank(0.5) is None
    for wrong in ((0.2, 0.1), (float("nan"),), (0.5, 1.5)):
        with pytest.raises(InputError, match="ascending"):
            replace(card, untouched=wrong)


@pytest.mark.parametrize(
    ("shape", "noise", "said"),
    [
        ((300, 400), 5, ""),  # 0.12 megapixels
        ((600, 800), 5, ""),  # 0.48, four times as many
        ((602, 800), 5, "it has 0.48 megapixels, and the score is calibrated on 0.1 to 0.12"),
        ((160, 156), 5, "it has 0.025 megapixels, and the score is calibrated on 0.1 to 0.12"),
        ((300, 400), 12, "its noise is 12 grey levels, and the score is calibrated on 2 to 10"),
        ((300, 400), 1, "its noise is 1 grey levels, and the score is calibrated on 2 to 10"),
    ],
)
def test_a_picture_unlike_the_untouched_photographs_has_no_rank(
    shape: tuple[int, int], noise: float, said: str, localizer: Localizer
) -> None:
    """White noise of a known standard deviation on grey, where nothing is clipped."""
    card = replace(localizer.card, untouched=(0.5,), megapixels=(0.1, 0.12), noise=(2.0, 10.0))
    drawn = np.random.default_rng(0).normal(128, noise, (*shape, 3))
    image = drawn.round().astype(np.uint8)
    assert card.unlike(image) == said
    if shape == (300, 400):
        result = Localizer(localizer.backbone, localizer.head, card)(image)
        assert (result.rank is None) == bool(said)
        assert result.meaning.startswith("cannot tell: its noise" if said else "higher than")
    assert replace(card, megapixels=None, noise=None).unlike(image) == ""


def test_an_older_head_knows_no_sizes_and_a_wrong_span_is_refused(
    localizer: Localizer, tmp_path: Path
) -> None:
    with safe_open(HEAD, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("weight", "bias")}
        older = {k: v for k, v in file.metadata().items() if k not in ("megapixels", "noise")}
    save_file(tensors, tmp_path / "older.safetensors", metadata=older)
    card = load_head(tmp_path / "older.safetensors", localizer.backbone)[2]
    assert (card.megapixels, card.noise) == (None, None)
    for wrong in ("[2, 1]", "[1]", "[0, NaN]", '"ab"', "[-1, 2]", "3"):
        save_file(tensors, tmp_path / "wrong.safetensors", metadata=older | {"noise": wrong})
        with pytest.raises(InputError, match=r"noise|damaged"):
            load_head(tmp_path / "wrong.safetensors", localizer.backbone)


def test_scores_and_threshold_are_those_of_the_photographs(
    localizer: Localizer, photographs: Path
) -> None:
    paths, most = sorted(photographs.iterdir()), 0.01
    card = calibrated(localizer.with_settings(threshold=0.0), paths, "noise", most)
    maps = [localizer(path) for path in paths]
    assert card.untouched == tuple(sorted(result.score for result in maps))
    assert card.megapixels == (230 * 240 / 1e6,) * 2
    assert card.noise == (noise_level(maps[2].image), noise_level(maps[0].image))  # least, most
    assert card.about.endswith("calibrated on 3 photographs: noise")
    # The lowest of 10,000 thresholds that marks a hundredth of the pixels at most.
    pixels = np.concatenate([result.probability.ravel() for result in maps])
    assert (pixels > card.threshold).mean() <= most
    assert (pixels > card.threshold - 1 / BINS).mean() > most
    assert calibrated(localizer, paths, "noise").threshold == localizer.card.threshold


def test_only_the_settings_that_were_calibrated_have_a_rank(
    localizer: Localizer, photographs: Path
) -> None:
    card = replace(localizer.card, untouched=(0.0,), megapixels=None, noise=None)
    named = Localizer(localizer.backbone, localizer.head, card)
    photo = photographs / "1.png"
    assert named(photo).rank in (0, 1)
    assert named.with_settings(threshold=0.9, stride=card.stride)(photo).rank is not None
    assert named.with_settings(stride=28)(photo).rank is None


def test_the_command_writes_the_same_head_with_another_card(
    localizer: Localizer, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "head.safetensors"
    run = CliRunner().invoke(app, ["calibrate", str(HEAD), str(photographs), "--out", str(out)])
    assert run.exit_code == 0, run.output
    _, before, _ = load_head(HEAD, localizer.backbone)
    _, after, card = load_head(out, localizer.backbone)
    for first, second in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(first, second)
    assert len(card.untouched) == 3
    again = CliRunner().invoke(app, ["calibrate", str(HEAD), str(photographs), "--out", str(out)])
    assert again.exit_code == 1


def test_a_calibration_needs_a_photograph(localizer: Localizer) -> None:
    with pytest.raises(InputError, match="no photograph"):
        calibrated(localizer, [], "none")


def test_a_card_goes_into_a_copy_and_not_into_the_head(
    localizer: Localizer, tmp_path: Path
) -> None:
    before, out = HEAD.read_bytes(), tmp_path / "copy.safetensors"
    write_head(out, read_head(HEAD)[1], replace(localizer.card, untouched=(0.5,)))
    assert HEAD.read_bytes() == before
    assert load_head(out, localizer.backbone)[2].untouched == (0.5,)
    write_head(tmp_path / "equal.safetensors", *read_head(out)[::-1])
    assert (tmp_path / "equal.safetensors").read_bytes() == out.read_bytes()


def test_the_noise_level_is_the_standard_deviation_of_white_noise_and_of_shading_nothing() -> None:
    """Also in strips: 1,100 rows are three of them."""
    noise = np.random.default_rng(0).normal(128, 7, (1100, 300, 3)).round().astype(np.uint8)
    assert noise_level(noise) == pytest.approx(7, rel=0.01)
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 50, 3))
    assert noise_level(ramp.copy()) == pytest.approx(0, abs=0.05)  # the mirrored edge apart
