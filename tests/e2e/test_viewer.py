"""The viewer as a person uses it: in a real browser, on a laptop and on a phone, with the bundled models."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from browser_support import LAPTOP, PHONE, faults, opened, viewing
from regard.checkpoints.file import bundled
from support import write_tif

pytestmark = pytest.mark.slow
SAMPLE = next(iter(bundled().values())).parent


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


def idle(page: Any) -> None:
    """Wait until all tiles have come."""
    page.locator("#job").wait_for(state="hidden")
    page.wait_for_timeout(400)


def test_a_scene_on_a_laptop(browser: Any, tmp_path: Path) -> None:
    scene, labels = (cropped(SAMPLE / "globe" / f"americas_atlantic{end}.tif", tmp_path) for end in ("", "_mask"))
    with (
        viewing("globe-s", scene, "--labels", labels) as url,
        opened(browser, url, LAPTOP) as page,
    ):
        page.locator("#map").focus()
        page.keyboard.press("+")
        page.wait_for_timeout(500)
        page.mouse.move(500, 400)
        before = page.locator("#where").inner_text()
        page.mouse.down()
        page.mouse.move(540, 330, steps=4)
        page.mouse.up()
        page.wait_for_timeout(600)
        page.mouse.move(500, 400)
        assert page.locator("#where").inner_text() != before, "the map has moved"
        assert re.fullmatch(r"-\d+\.\d+, \d+\.\d+\s+·\s+pixel \d+, \d+", page.locator("#where").inner_text())
        assert page.locator("#crs").inner_text() == "EPSG:4326" and "km" in page.locator("#scale").inner_text()
        page.keyboard.press("f")
        idle(page)
        shoot(page, "viewer.png")
        assert not faults(page)

        page.mouse.click(420, 300)
        page.locator("#bars li").first.wait_for()
        assert re.fullmatch(r"\w+, probability \d\.\d\d", page.locator("#message").inner_text())
        page.get_by_role("button", name="Show attention maps").click()
        page.get_by_label("region: forest").check()
        assert page.locator("#unit").inner_text() == "× uniform attention"
        shoot(page, "viewer-attention.png")
        assert not faults(page)
        page.keyboard.press("Escape")
        page.locator("#answer").wait_for(state="hidden")


def test_a_photograph_on_a_phone(browser: Any) -> None:
    with (
        viewing("dubai-s", SAMPLE / "city" / "images" / "t4_p2.jpg") as url,
        opened(browser, url, PHONE) as page,
    ):
        assert "px" in page.locator("#scale").inner_text()
        page.wait_for_timeout(500)
        page.touchscreen.tap(120, 200)
        page.locator("#bars li").first.wait_for()
        page.get_by_role("button", name="Show attention maps").click()
        page.locator("#choices input").first.wait_for()
        page.wait_for_timeout(400)
        shoot(page, "viewer-phone.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not faults(page)
        page.get_by_role("button", name="Hide").click()
        assert page.locator("#map").bounding_box()["height"] > 650
        page.locator("#map").focus()
        page.keyboard.press("Enter")
        page.locator("#bars li").first.wait_for(state="attached")
        small = page.evaluate("""() => [...document.querySelectorAll('#tools button')]
            .filter(b => b.offsetParent && Math.min(b.offsetWidth, b.offsetHeight) < 44).length""")
        assert small == 0, "a finger needs 44 px"
