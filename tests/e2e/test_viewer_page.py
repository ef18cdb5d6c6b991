"""The viewer's page in a browser, with a model of milliseconds: what it asks for, shows and remembers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
from PIL import Image
from pyproj import Transformer

from browser_support import LAPTOP, PHONE, faults, opened
from regard.io.raster import Box
from regard.web.raster_layer import Sources
from regard.web.viewer import Viewer
from support import tiny, write_tif
from web_support import TILING, picture, serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A scene of 900 x 700 pixels with its labels."""
    folder = tmp_path_factory.mktemp("page")
    scene = write_tif(folder / "scene.tif", picture((700, 900)))
    labels = write_tif(folder / "labels.tif", picture((700, 900), seed=3)[:1] % 3)
    found = Viewer(tiny(), Sources(scene, labels=labels), TILING)
    yield found
    found.close()


@pytest.fixture(scope="module")
def url(viewer: Viewer) -> Iterator[str]:
    with serving(viewer) as address:
        yield address


@contextmanager
def asked(page: Any) -> Iterator[list[str]]:
    """The addresses that are asked for meanwhile."""
    found: list[str] = []

    def note(request: Any) -> None:
        if not request.url.endswith("icon.svg"):  # Chromium asks again when the address changes
            found.append(request.url)

    page.on("request", note)
    yield found
    page.remove_listener("request", note)


def colours(page: Any) -> set[tuple[int, ...]]:
    """The colours of the map as it is shown."""
    page.wait_for_timeout(300)
    values = np.asarray(Image.open(io.BytesIO(page.locator("#map").screenshot())).convert("RGB")).reshape(-1, 3)
    return {tuple(colour) for colour in np.unique(values, axis=0).tolist()}


def idle(page: Any) -> None:
    """Wait until all tiles have come."""
    page.locator("#job").wait_for(state="hidden")


def test_colours_classes_and_opacity_cost_no_request(browser: Any, url: str) -> None:
    magenta = (255, 0, 255)
    with opened(browser, url, LAPTOP) as page:
        idle(page)
        page.get_by_label("Opacity of Prediction").fill("100")
        with asked(page) as requests:
            page.get_by_label("Colour of green thing").fill("#ff00ff")
            assert magenta in colours(page)
            page.get_by_label("green thing", exact=True).uncheck()
            assert magenta not in colours(page)
            page.get_by_label("Show only green thing").click()
            assert magenta in colours(page)
            page.get_by_label("Opacity of Prediction").fill("40")
            page.get_by_label("Confidence", exact=True).check()
            assert magenta not in colours(page)
        assert not requests, requests
        page.reload()
        idle(page)
        assert page.get_by_label("Show only green thing").get_attribute("aria-pressed") == "true"
        assert page.get_by_label("Colour of green thing").input_value() == "#ff00ff"
        assert page.get_by_label("Opacity of Prediction").input_value() == "40"


def test_errors_are_where_prediction_and_reference_differ(browser: Any, url: str, viewer: Viewer) -> None:
    with opened(browser, url, LAPTOP, fragment="#layers=-scene:100,-prediction:60,errors:100") as page:
        page.get_by_label("Prediction", exact=True).check()
        idle(page)
        page.get_by_label("Prediction", exact=True).uncheck()
        assert (214, 40, 57) in colours(page)
        page.get_by_role("checkbox", name="Errors (misclassified)").uncheck()
        assert (214, 40, 57) not in colours(page)


def test_the_share_of_the_view_is_that_of_the_map(browser: Any, url: str, viewer: Viewer) -> None:
    with opened(browser, url, LAPTOP) as page:
        idle(page)
        page.wait_for_timeout(400)
        shown = [text.removesuffix(" %") for text in page.locator("#classes .share").all_inner_texts()]
    labels = viewer.live.regions.region(Box(0, 0, 700, 900)).labels
    expected = 100 * np.bincount(labels.ravel(), minlength=3) / labels.size
    assert [float(text.replace("–", "0")) for text in shown] == pytest.approx(expected, abs=1.0)


def test_a_pixel_is_inspected_and_its_place_stands_in_the_address(browser: Any, url: str) -> None:
    with opened(browser, url, LAPTOP) as page:
        page.locator("#map").focus()
        page.keyboard.press("Enter")
        page.locator("#bars li").first.wait_for()
        facts = page.locator("#facts").inner_text()
        assert "450, 350" in facts and "504505.0, 4996495.0" in facts
        page.get_by_role("button", name="Show attention maps").click()
        page.get_by_label("region: green thing").check()
        assert page.locator("#unit").inner_text() == "× uniform attention"
        assert not faults(page)
        page.wait_for_timeout(400)
        assert "at=450,350" in page.url
        page.keyboard.press("Escape")
        page.locator("#answer").wait_for(state="hidden")
        page.wait_for_timeout(400)
        assert "at=" not in page.url


def test_a_place_in_degrees_is_found(browser: Any, url: str) -> None:
    with opened(browser, url, LAPTOP) as page:
        page.locator("#map").focus()
        page.keyboard.press("g")
        page.keyboard.type("45.10 N 15.05 E")
        page.keyboard.press("Enter")
        page.locator("#bars li").first.wait_for()
        expected = Transformer.from_crs(4326, 32633, always_xy=True).transform(15.05, 45.10)
        column, row = (expected[0] - 500_000) / 10, (5_000_000 - expected[1]) / 10
        assert f"{int(column)}, {int(row)}" in page.locator("#facts").inner_text()
        page.locator("#place").fill("0, 0")
        page.keyboard.press("Enter")
        page.get_by_text("is no place of this scene").wait_for()


def test_a_length_is_measured_on_the_ground(browser: Any, url: str) -> None:
    """600 pixels of 10 m, at a zone's central meridian, where UTM is 0.9996 of the ground."""
    with opened(browser, url, LAPTOP, fragment="#view=450,350,1") as page:
        box = page.locator("#map").bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.get_by_role("button", name="Measure a length").click()
        page.mouse.click(middle[0] - 300, middle[1])
        page.mouse.dblclick(middle[0] + 300, middle[1])
        page.locator("#measured", has_text="km").wait_for()
        assert float(page.locator("#measured").inner_text().split()[1]) == pytest.approx(6 / 0.9996, abs=0.02)


def test_a_swipe_hides_a_layer_to_its_left(browser: Any, url: str) -> None:
    with opened(browser, url, LAPTOP, fragment="#layers=-scene:100,prediction:100") as page:
        idle(page)
        page.locator("#swipe-layer").select_option("prediction")
        page.locator("#swipe").fill("500")
        page.wait_for_timeout(300)
        shown = np.asarray(Image.open(io.BytesIO(page.locator("#map").screenshot())).convert("RGB")).astype(int)
        middle, wide = shown.shape[0] // 2, shown.shape[1]
        left, right = shown[middle, wide // 4 : wide // 2 - 40], shown[middle, wide // 2 + 40 : 3 * wide // 4]
        assert np.ptp(left, axis=0).max() == 0 and np.ptp(right, axis=0).max() > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_nothing_serious_and_nothing_overflows(browser: Any, url: str, device: Any, scheme: str) -> None:
    with opened(browser, url, {**device, "color_scheme": scheme}, fragment="#at=450,350") as page:
        for summary in page.locator("summary").all():
            summary.click()
        assert not faults(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]


def test_a_note_is_added_undone_and_made_again(browser: Any, tmp_path: Path) -> None:
    scene, file = write_tif(tmp_path / "s.tif", picture((300, 400))), tmp_path / "notes.gpkg"
    with (
        closing(Viewer(tiny(), Sources(scene), TILING, notes=file)) as viewer,
        serving(viewer) as url,
        opened(browser, url, LAPTOP) as page,
    ):
        page.get_by_role("button", name="Add a note").click()
        box = page.locator("#map").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.locator("#note-text").fill("a flooded field")
        page.get_by_role("button", name="Save").click()
        page.locator("#notes-part .saved", has_text="saved").wait_for()
        assert pyogrio.raw.read(file, columns=["text"])[3][0].tolist() == ["a flooded field"]
        assert not faults(page)
        for button, state in (("Undo", "detached"), ("Redo", "attached")):
            page.get_by_role("button", name=button).click()
            page.locator("#notes li").first.wait_for(state=state)
            assert len(pyogrio.raw.read(file)[2]) == (state == "attached")
