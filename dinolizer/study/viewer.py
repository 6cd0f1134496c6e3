"""What was found in a photograph, to play with in a notebook."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from typing import Any

import cv2
import ipywidgets as widgets
import numpy as np
from PIL import Image

from dinolizer.data.degradations import jpeg
from dinolizer.errors import InputError, printable
from dinolizer.model.files import localize_bytes
from dinolizer.model.localization import Localization
from dinolizer.model.localizer import Localizer, Source
from dinolizer.model.report import report_path, save_report
from dinolizer.model.specs import BACKBONES
from dinolizer.model.weights import head_file
from dinolizer.paths import check_outputs, file_name, write_file
from dinolizer.study.overlays import OPACITY, drawn_over

SIDE = 800  # pixels that the longer side of a picture is drawn with
ORANGE = (222, 143, 5)
QUALITIES = [("no", 0), *((f"quality {quality}", quality) for quality in range(95, 25, -5))]


class Viewer:
    """What a localizer finds in a photograph, under sliders for threshold and opacity; beside it
    what one window says alone, or what is found once the photograph is saved as JPEG. Another
    photograph and another model can be chosen, and what was chosen last be written into a directory
    as figure and report. What is wrong with a file is said below the pictures."""

    def __init__(self, localizer: Localizer, photo: Source, directory: str | Path) -> None:
        self.directory, name = Path(directory), localizer.backbone.spec.name
        self.load = cache(lambda one: localizer if one == name else Localizer.from_pretrained(one))
        self.drawn = lru_cache(maxsize=2)(_drawn)  # else every move would do it anew
        models = [name, *(each for each in BACKBONES if head_file(each).is_file() and each != name)]
        look: dict[str, Any] = {"style": {"description_width": "8em"}}
        share = look | {"max": 1, "step": 0.01}
        self.upload = widgets.FileUpload(description="Choose a photograph, up to 10 MB")
        self.model = widgets.Dropdown(options=models, description="Model", **look)
        self.save = widgets.Button(description="Save figure and report", icon="save")
        self.threshold = widgets.FloatSlider(description="Threshold", **share)
        self.opacity = widgets.FloatSlider(OPACITY, description="Opacity", **share)
        self.window = widgets.IntSlider(description="Window (0: all)", **look)
        self.quality = widgets.SelectionSlider(options=QUALITIES, description="As JPEG", **look)
        self.quality.continuous_update = False
        look = {"layout": {"width": "50%"}}
        self.panels = [widgets.VBox([widgets.Image(), widgets.HTML()], **look) for _ in range(2)]
        self.said = widgets.HTML()
        self._show(localizer, localizer(photo))
        self.save.on_click(self._save)
        actions = {self.upload: self._choose_photo, self.model: self._choose_model}
        actions |= dict.fromkeys((self.threshold, self.opacity), self._draw)
        actions |= dict.fromkeys((self.window, self.quality), self._compare)
        for control, action in actions.items():
            control.observe(action, "value")
        for widget in (*actions, self.save):
            widget.layout.width = "auto"
        grid = {"grid_template_columns": "repeat(auto-fill, minmax(21em, 1fr))", "grid_gap": "4px"}
        controls = widgets.GridBox([*actions, self.save], layout=grid)
        self.box = widgets.VBox([controls, widgets.HBox(self.panels), self.said])
        self._repr_mimebundle_ = self.box._repr_mimebundle_

    def _show(self, localizer: Localizer, result: Localization) -> None:
        self.quality.value = self.window.value = 0  # while there is what they are of
        self.localizer, self.result = localizer, result
        self.window.max, self.threshold.value = result.plan.passes, result.threshold
        self._compare()

    def _compare(self, _: object = None) -> None:
        """Find out what stands beside the photograph, and draw both."""
        plan, image, chosen = self.result.plan, self.result.image, []
        with self._saying("What was chosen is examined ..."):
            if quality := self.quality.value:
                image, chosen = jpeg(image, quality), [f"JPEG of quality {quality}"]
            if number := self.window.value:  # given alone it is a photograph of one window
                image = np.asarray(plan.cut(plan.fit(image), plan.positions[number - 1]))
                chosen = [f"Window {number} of {plan.passes} alone", *chosen]
            self.shown = {"As it came": self.result}
            if chosen:
                self.shown[", ".join(chosen)] = self.localizer(image)
            self._draw()

    def _draw(self, _: object = None) -> None:
        threshold, number, plan = self.threshold.value, self.window.value, self.result.plan
        self.panels[1].layout.display = None if len(self.shown) > 1 else "none"
        for panel, (title, result) in zip(self.panels, self.shown.items(), strict=False):
            scene = drawn_over(*self.drawn(result), threshold, self.opacity.value)
            if number and result is self.result:
                scale = np.divide(scene.shape[:2], plan.fitted if plan.resized else plan.size)
                ends = scale * np.add(plan.positions[number - 1], [[0, 0], [plan.window] * 2])
                first, last = ends[:, ::-1].astype(int).tolist()
                cv2.rectangle(scene, first, last, ORANGE, 3)
            encoded = io.BytesIO()
            Image.fromarray(scene).save(encoded, "JPEG", quality=90)
            over = f"{(result.probability > threshold).mean():.1%} of it over {threshold:.2f}"
            panel.children[0].value = encoded.getvalue()
            panel.children[1].value = f"<b>{title}</b>: {over}, score {result.score:.2f}"
        self.said.value = escape(f"Score: {self.result.meaning}. {self.result.settings['caution']}")

    @contextmanager
    def _saying(self, sentence: str) -> Iterator[None]:
        """Say what takes a while, and what is wrong with what was given."""
        self.said.value = escape(printable(sentence))
        try:
            yield
        except (InputError, OSError) as error:
            self.said.value = f"<b>{escape(printable(str(error)))}</b>"

    def _choose_photo(self, change: dict[str, Any]) -> None:
        for file in change["new"]:
            with self._saying(f"{file['name']} is examined ..."):
                content = bytes(file["content"])
                result = localize_bytes(self.localizer, file["name"], content)
                self._show(self.localizer, result)

    def _choose_model(self, change: dict[str, Any]) -> None:
        with self._saying(f"The model {change['new']!r} examines the photograph ..."):
            localizer, old = self.load(change["new"]), self.result
            self._show(localizer, replace(localizer(old.image), source=old.source, file=old.file))

    def _save(self, _: object) -> None:
        """Write figure and report of what was chosen last, under a name that says how."""
        (title, result), threshold = [*self.shown.items()][-1], self.threshold.value
        settings = {**result.settings, "threshold": threshold}
        shown = replace(result, mask=result.probability > threshold, settings=settings)
        name = f"{Path(self.result.source).stem or 'picture'}-{settings['model']}-{threshold:.2f}"
        name += f"-{re.sub('[^a-z0-9]+', '-', title.lower())}"
        figure, report = self.directory / file_name(name, ".png"), report_path(self.directory, name)
        with self._saying("Figure and report are written ..."):
            check_outputs([figure, report])
            save_report(shown, self.directory, name)
            write_file(figure, shown._repr_png_())
            self.said.value = escape(f"Written to {self.directory}: {figure.name}, {report.name}")


def _drawn(result: Localization) -> tuple[Any, Any]:
    """Photograph and map, as in `Localization`, in the size that they are drawn in."""
    scale = SIDE / max(result.mask.shape)
    size = [max(round(scale * side), 1) for side in result.mask.shape[::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    both = (result.image, result.probability)
    image, probability = (cv2.resize(of, size, interpolation=how) for of in both)
    return image, probability
