"""The pages work in a real browser: the report, the page that is served, and the quickstart in Lab.

Run by ``make browser``; pytest does not collect this file by itself. The browser is Chromium,
as the system has it. What is on the screen is kept in ``data/screenshots``, to be looked at.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from skimage import data
from typer.testing import CliRunner

from dinolizer.cli import app
from dinolizer.paths import ROOT

SHOTS = ROOT / "data" / "screenshots"
SCHEMES = ("light", "dark")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, f"none of {', '.join(NAMES)} is installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An astronaut, with a corner of one colour."""
    pixels = data.astronaut()
    pixels[:100, :150] = 255
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(pixels).save(path)
    return path


@contextmanager
def opened(browser: Browser, url: str, scheme: str = "light") -> Iterator[Page]:
    """A page in a colour scheme; nothing may be said in its console, and nothing go elsewhere."""
    page = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    yield page
    page.close()
    assert said == []


def pixels(page: Page, selector: str) -> NDArray[np.int16]:
    shot = Image.open(io.BytesIO(page.locator(selector).first.screenshot()))
    return np.asarray(shot.convert("RGB"), np.int16)


def keep(page: Page, name: str) -> NDArray[np.uint8]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    return np.asarray(Image.open(SHOTS / f"{name}.png").convert("L"))


@pytest.fixture(scope="module")
def report(photo: Path) -> Path:
    words = ["report", str(photo), "--model", "pocket", "--out", str(photo.parent / "pages")]
    assert CliRunner().invoke(app, words).exit_code == 0
    return photo.parent / "pages" / "astronaut.report.html"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sliders_of_a_report_move_the_map(browser: Browser, report: Path, scheme: str) -> None:
    with opened(browser, report.as_uri(), scheme) as page:
        shown = keep(page, f"report-{scheme}")
        # The margin is white by day and all but black by night.
        assert (shown[:, :5] > 250).all() if scheme == "light" else (shown[:, :5] < 40).all()
        before = pixels(page, ".viewer svg")
        swipe, opacity, outline = page.locator(".controls input").all()
        swipe.fill("50")
        half = np.abs(pixels(page, ".viewer svg") - before).max(axis=(0, 2)) > 8
        middle = before.shape[1] // 2
        assert (
            half[middle + 20 :].any() and not half[: middle - 20].any()
        )  # the line between has a width
        swipe.fill("100")
        opacity.fill("0")
        outline.uncheck()
        bare = pixels(page, ".viewer svg")
        wide = Image.fromarray(data.astronaut()).resize(bare.shape[1::-1])
        told = (slice(150, 400), slice(250, None))  # where nothing is flat
        assert np.abs(bare[told] - np.asarray(wide, np.int16)[told]).mean() < 6  # JPEG, scaling


def test_a_report_is_printed_without_its_controls(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri()) as page:
        expect(page.locator(".controls")).to_be_visible()
        page.emulate_media(media="print")
        expect(page.locator(".controls")).to_be_hidden()
        expect(page.get_by_text("What this says, and what it does not")).to_be_visible()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_site_shows_summary_notebooks_and_api(browser: Browser, scheme: str) -> None:
    index = ROOT / "data" / "site" / "index.html"
    with opened(browser, index.as_uri(), scheme) as page:
        expect(page.locator("h1")).to_contain_text("How the paper's claims fare")
        keep(page, f"site-{scheme}")
        page.locator(".sidebar-tree a", has_text="DinoLizer by hand").click()
        expect(page.locator(".cell_output img").first).to_be_visible()
        page.locator(".sidebar-tree a", has_text="In Python").click()
        expect(page.get_by_text("from_pretrained").first).to_be_visible()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(words: list[str], url: str, folder: Path) -> Iterator[None]:
    """A server, from when it answers."""
    settings = {"DINOLIZER_RESULTS": str(folder), "JUPYTER_CONFIG_DIR": str(folder / "jupyter")}
    settings["JUPYTER_PATH"] = str(folder / "share" / "jupyter")
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(words, env=os.environ | settings, stdout=log, stderr=log)
        try:
            for _ in range(600):
                assert child.poll() is None, (folder / "log").read_text()
                try:
                    urllib.request.urlopen(url, timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield
        finally:
            child.terminate()
            child.wait()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_picture_given_to_the_served_page_comes_back_as_its_report(
    browser: Browser, photo: Path, scheme: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}/"
    words = [sys.executable, "-m", "dinolizer", "serve", "--model", "pocket", "--port", str(port)]
    with running(words, url, tmp_path), opened(browser, url, scheme) as page:
        keep(page, f"serve-{scheme}")
        page.locator("input[type=file]").set_input_files(photo)
        expect(page.locator("h1")).to_have_text("astronaut.png", timeout=60_000)
        expect(page.locator(".controls")).to_be_visible()
        page.get_by_text("Examine another picture").click()
        expect(page.locator("h1")).to_have_text("Drop a picture here")


def play(page: Page, photo: Path, wrong: Path) -> None:
    """With the viewer, as a reader does: whatever is moved or chosen changes its pictures."""
    captions = page.locator(".widget-image + .widget-html")

    def drag(name: str, share: float, says: str, beside: bool = False) -> NDArray[np.int16]:
        """Move a slider to a share of its way; what is on the left once the caption says so."""
        slider = page.locator(".widget-hslider", has_text=name)
        slider.locator(".noUi-handle").hover()
        page.mouse.down()
        box = slider.locator(".noUi-base").bounding_box()
        assert box
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        caption = captions.last if beside else captions.first
        expect(caption).to_contain_text(re.compile(says), timeout=30_000)
        page.wait_for_timeout(500)  # the picture comes with its caption, and is then decoded
        return pixels(page, ".widget-image")

    def differ(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
        return one.shape != other.shape or bool(
            (np.abs(one - other) > 16).any(axis=2).mean() > 0.02
        )

    def choose(file: Path) -> None:
        with page.expect_file_chooser() as chooser:
            page.locator(".widget-upload").click()
        chooser.value.set_files(file)

    first = drag("Threshold", 0.7, r"over 0\.(69|70|71)")
    low = drag("Threshold", 0.3, r"over 0\.(29|30|31)")
    assert differ(low, first)
    assert differ(drag("Opacity", 0, "As it came"), low)
    drag("Opacity", 0.6, "As it came")
    keep(page, "lab-viewer")
    drag("Window", 0.5, "Window 5 of 9 alone", beside=True)
    drag("As JPEG", 0.5, r"alone, JPEG of quality \d+", beside=True)
    drag("Threshold", 0.7, r"over 0\.(69|70|71)")
    keep(page, "lab-viewer-window")
    choose(wrong)
    expect(page.get_by_text("page.jpg is an HTML page; download the image itself")).to_be_visible()
    before = pixels(page, ".widget-image")
    choose(photo)
    expect(captions.last).to_be_hidden(timeout=30_000)
    page.wait_for_timeout(500)
    assert differ(pixels(page, ".widget-image"), before)
    keep(page, "lab-viewer-photo")


def test_the_quickstart_and_its_viewer_run_in_jupyterlab(
    browser: Browser, photo: Path, tmp_path: Path
) -> None:
    notebook = tmp_path / "notebooks" / "00-quickstart.ipynb"
    notebook.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / notebook.name, notebook)
    wrong = tmp_path / "page.jpg"
    wrong.write_text("<!DOCTYPE html><p>")
    url = f"http://127.0.0.1:{(port := free_port())}"
    kernel = [sys.executable, "-m", "ipykernel", "install", "--name", "python3"]
    kernel += ["--prefix", str(tmp_path), "--display-name", "DinoLizer"]  # as 'make lab' has it
    subprocess.run(kernel, check=True, capture_output=True)
    words = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    words += [f"--port={port}", "--IdentityProvider.token=", f"--notebook-dir={notebook.parent}"]
    asks = tmp_path / "jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    asks.mkdir(parents=True)  # whether it may look for news elsewhere
    (asks / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    words.append("--LabApp.expose_app_in_browser=True")  # to change the theme
    with running(words, f"{url}/api", tmp_path):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        errors: list[str] = []
        page.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/lab/tree/{notebook.name}?reset")
        expect(page.get_by_text("DinoLizer | Idle")).to_be_visible(timeout=120_000)
        page.locator(".lm-MenuBar-item", has_text="Run").first.click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        prompts = page.locator(".jp-InputPrompt")
        last = len(re.findall(r'"cell_type": "code"', notebook.read_text()))
        page.locator(".jp-Notebook").click(position={"x": 5, "y": 5})
        page.keyboard.press("Control+End")
        expect(prompts.filter(has_text=f"[{last}]")).to_be_attached(timeout=240_000)
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        # The imports are folded, and figures have two pixels for one of the screen.
        assert page.locator(".jp-InputPlaceholder").count() == 1
        figure = page.locator(".jp-RenderedImage img").first
        figure.scroll_into_view_if_needed()
        assert figure.evaluate("image => image.naturalWidth / image.clientWidth") >= 2
        for theme in SCHEMES:
            named = f"JupyterLab {theme.title()}"
            page.evaluate(
                "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", named
            )
            page.wait_for_timeout(2000)
            keep(page, f"lab-{theme}")
        page.locator(".widget-upload").scroll_into_view_if_needed()
        play(page, photo, wrong)
        page.close()
        assert errors == []
