"""The viewer as a person uses it: in a real browser, on a laptop and on a phone, with the bundled models."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from browser_support import PHONE, faults, viewing
from regard.checkpoints.file import bundled
from support import write_tif

pytestmark = pytest.mark.slow
SAMPLE = next(iter(bundled().values())).parent
LAPTOP = {"viewport": {"width": 1366, "height": 768}}


@contextmanager
def opened(browser: Any, url: str, device: dict[str, object]) -> Iterator[Any]:
    """The page, which then must have had no error, and asked nothing of another host."""
    context = browser.new_context(**device)
    page, complaints = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith((url, "data:")) else None)
    page.goto(url)
    page.locator("#classes .number", has_text="%").first.wait_for()  # tiles have come and are counted
    yield page
    assert not complaints, complaints
    context.close()


def shoot(page: Any, name: str) -> None:
    """Keep a picture for the documentation, where one is asked for."""
    if folder := os.environ.get("REGARD_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name, scale="css")


def cropped(path: Path, to: Path) -> Path:
    """The part of the globe's sample around the Caribbean: 800 x 640 pixels, which take four windows."""
    window = Window(200, 100, 800, 640)
    with rasterio.open(path) as whole:
        values, west, north = whole.read(window=window), whole.bounds.left, whole.bounds.top
        step = whole.transform.a
    place = Affine(step, 0, west + window.col_off * step, 0, -step, north - window.row_off * step)
    return write_tif(to / path.name, values, crs="EPSG:4326", transform=place)


def test_a_scene_on_a_laptop(browser: Any, tmp_path: Path) -> None:
    scene, labels = (cropped(SAMPLE / "globe" / f"americas_atlantic{end}.tif", tmp_path) for end in ("", "_mask"))
    with (
        viewing("globe-s", scene, "--labels", labels) as url,
        opened(browser, url, LAPTOP) as page,
    ):
        page.locator("#map").focus()
        page.keyboard.press("-")
        page.locator("img[src*='scene/3/']").first.wait_for(state="attached")
        page.wait_for_timeout(1000)
        page.keyboard.press("+")
        page.locator("img[src*='scene/4/']").first.wait_for()
        page.wait_for_timeout(1000)
        page.mouse.move(500, 400)
        before = page.locator("#where").inner_text()
        page.mouse.down()
        page.mouse.move(540, 330, steps=4)
        page.mouse.up()
        page.wait_for_timeout(600)
        page.mouse.move(500, 400)
        assert page.locator("#where").inner_text() != before, "the map has moved"
        assert re.fullmatch(r"\d+\.\d+° [NS], \d+\.\d+° [WE]", page.locator("#where").inner_text())
        assert re.search(r"km", page.locator(".leaflet-control-scale-line").inner_text())

        page.locator("#note").wait_for(state="hidden")
        page.wait_for_timeout(600)
        shoot(page, "viewer.png")
        page.get_by_label("forest").uncheck()
        page.locator("img[src*='prediction/'][src*='show=10111111']").first.wait_for()
        page.get_by_label("forest").check()
        page.get_by_label("Errors").check()
        page.locator("img[src*='errors/']").first.wait_for()
        assert not faults(page)

        page.mouse.click(420, 300)
        page.locator("#choices input").first.wait_for()
        assert re.search(r"Pixel \d+, \d+: \w+, probability \d\.\d\d", page.locator("#message").inner_text())
        overlay = page.locator(".leaflet-why-pane img")
        attention = overlay.get_attribute("src")
        assert attention.startswith("data:image/png") and overlay.bounding_box()["width"] > 100
        page.get_by_label("region: forest").check()
        assert overlay.get_attribute("src") != attention
        assert not faults(page)
        page.get_by_role("button", name="Close").click()
        assert overlay.count() == 0


def test_a_photograph_on_a_phone(browser: Any) -> None:
    with (
        viewing("dubai-s", SAMPLE / "city" / "images" / "t4_p2.jpg") as url,
        opened(browser, url, PHONE) as page,
    ):
        assert "px" in page.locator(".leaflet-control-scale-line").inner_text()
        page.wait_for_timeout(500)
        page.touchscreen.tap(120, 200)
        page.locator("#choices input").first.wait_for()
        page.wait_for_timeout(400)
        shoot(page, "viewer-phone.png")
        assert page.locator(".leaflet-why-pane img").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not faults(page)
        page.get_by_role("button", name="Hide").click()
        assert page.locator("#map").bounding_box()["height"] > 700
        page.get_by_role("button", name="Inspect centre pixel", include_hidden=True).wait_for(state="hidden")
        page.locator("#map").focus()
        page.keyboard.press("Enter")
        page.locator("#choices input").first.wait_for()
