"""The viewer, moved as a reader moves it, without a browser: what its pictures hold is worked out
from its localizer's own results."""

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from small import random_image, small_localizer

from dinolizer.data.degradations import jpeg
from dinolizer.model.localizer import Localizer
from dinolizer.model.specs import BACKBONES
from dinolizer.study import viewer
from dinolizer.study.viewer import Viewer

IMAGE = np.asarray(Image.fromarray(random_image(12, 9)).resize((120, 160)))
"""Smooth, so that JPEG hardly changes it, of 160 x 120 pixels."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Viewer:
    """A viewer that draws the picture in its own size, by a model whose map is not flat."""
    monkeypatch.setattr(viewer, "SIDE", 160)
    return Viewer(small_localizer()[0], IMAGE, tmp_path / "out")


def picture(shown: Viewer, number: int = 0) -> NDArray[np.int16]:
    content = shown.panels[number].children[0].value
    return np.asarray(Image.open(io.BytesIO(content)), np.int16)


def caption(shown: Viewer, number: int = 0) -> str:
    return str(shown.panels[number].children[1].value)


def choose(shown: Viewer, name: str, content: bytes) -> None:
    """As the browser sends it."""
    facts = {"name": name, "type": "", "size": len(content), "last_modified": datetime.now(UTC)}
    shown.upload.value = ({**facts, "content": memoryview(content)},)


def test_what_is_over_the_threshold_is_coloured_and_the_rest_is_the_picture(shown: Viewer) -> None:
    probability = shown.localizer(IMAGE).probability
    shown.opacity.value = 0.4
    for share in (0.2, 0.7):
        shown.threshold.value = threshold = float(np.quantile(probability, share))
        mask = probability > threshold
        colours = 255 * colormaps["cividis"](probability)[..., :3]
        expected = np.where(mask[..., None], 0.6 * IMAGE + 0.4 * colours, IMAGE)
        # Off the outline, which JPEG smears over the 8 pixels of its blocks.
        away = binary_erosion(mask, iterations=11) | ~binary_dilation(mask, iterations=11)
        assert away.mean() > 0.1
        assert np.abs(picture(shown) - expected)[away].mean() < 4
        assert f"{mask.mean():.1%} of it over {threshold:.2f}" in caption(shown)


def test_all_windows_together_are_the_map(shown: Viewer) -> None:
    """Their logits, taken from what each shows alone, are averaged here by plain NumPy."""
    result = shown.result
    plan = result.plan
    assert (plan.reduce, shown.window.max) == ("sum", len(plan.positions))
    total = np.zeros(result.mask.shape)
    for number, (top, left) in enumerate(plan.positions, start=1):
        shown.window.value = number
        *_, alone = shown.shown.values()
        assert f"Window {number} of {plan.passes} alone" in caption(shown, 1)
        values = alone.probability.astype(float)
        total[top : top + plan.window, left : left + plan.window] += np.log(values / (1 - values))
    np.testing.assert_allclose(1 / (1 + np.exp(-total)), result.probability, atol=1e-4)


def test_the_frame_of_a_window_is_where_the_window_is(shown: Viewer) -> None:
    shown.opacity.value, shown.threshold.value = 0, 1
    bare = picture(shown)
    shown.window.value = len(shown.result.plan.positions)  # the last: flush with both edges
    rows, columns = np.nonzero(np.abs(picture(shown) - bare).max(axis=2) > 60)
    window = shown.result.plan.window
    assert abs(rows.min() - (160 - window)) <= 3 and abs(columns.min() - (120 - window)) <= 3


def test_beside_the_photograph_stands_what_jpeg_makes_of_it(shown: Viewer) -> None:
    assert shown.panels[1].layout.display == "none"
    shown.quality.value = 50
    expected = shown.localizer(jpeg(IMAGE, 50))
    assert shown.panels[1].layout.display is None
    assert "JPEG of quality 50" in caption(shown, 1)
    np.testing.assert_array_equal([*shown.shown.values()][1].probability, expected.probability)
    shown.quality.value = 0
    assert shown.panels[1].layout.display == "none"


def test_a_photograph_is_chosen_and_a_wrong_file_is_one_sentence(
    shown: Viewer, tmp_path: Path
) -> None:
    shown.window.value = 1
    before = picture(shown)
    choose(shown, "page <b>.jpg", b"<!DOCTYPE html><p>")
    assert shown.said.value.startswith("<b>page &lt;b&gt;.jpg is an HTML page")
    np.testing.assert_array_equal(picture(shown), before)
    other = 255 - IMAGE
    Image.fromarray(other).save(tmp_path / "other.png")
    choose(shown, "other.png", (tmp_path / "other.png").read_bytes())
    np.testing.assert_array_equal(shown.result.image, other)
    assert (shown.result.source, shown.window.value) == ("other.png", 0)
    assert shown.result.file == shown.localizer(tmp_path / "other.png").file
    assert "HTML" not in shown.said.value


def test_figure_and_report_are_written_once(shown: Viewer) -> None:
    shown.threshold.value = 0.25
    shown.save.click()
    name = "picture-small-0.25-as-it-came"
    files = [shown.directory / f"{name}.png", shown.directory / f"{name}.report.html"]
    assert sorted(shown.directory.iterdir()) == files
    assert "over the threshold of 0.25" in files[1].read_text()
    with Image.open(files[0]) as figure:
        assert figure.width > 500
    assert shown.said.value.startswith("Written to")
    shown.save.click()
    assert "is there already" in shown.said.value
    shown.quality.value = 90
    shown.save.click()
    assert (shown.directory / "picture-small-0.25-jpeg-of-quality-90.png").is_file()


def test_another_model_examines_the_same_photograph(
    shown: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"small", "pocket"} <= {*shown.model.options} <= {"small", *BACKBONES}
    shown.model.value = "pocket"
    pocket = Localizer.from_pretrained("pocket")
    assert shown.result.settings["model"] == "pocket"
    np.testing.assert_allclose(shown.result.probability, pocket(IMAGE).probability, atol=1e-5)
    assert shown.threshold.value == pocket.card.threshold


def test_it_is_a_widget_where_there_is_one_and_a_line_where_not(shown: Viewer) -> None:
    said = shown._repr_mimebundle_()
    assert said["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.box.model_id
    assert len(said["text/plain"]) < 200
