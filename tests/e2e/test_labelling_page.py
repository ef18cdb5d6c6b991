"""Points labelled in a browser: by keys and by touch, while the server is killed, and what the file holds then."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import regard
from browser_support import LAPTOP, PHONE, faults
from regard.web.labelling import Labelling
from regard.web.raster_layer import Sources
from regard.web.serve import listen
from support import write_tif
from support_assessment import NAMES, columns_of, pattern, write_map
from web_support import picture, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, its map, and 200 points of it."""
    folder = tmp_path_factory.mktemp("drawn")
    write_tif(folder / "scene.tif", picture((60, 90)))
    regard.sample(write_map(folder / "map.tif", pattern()), folder / "points.gpkg", points=200)
    return folder


@contextmanager
def labelling(folder: Path) -> Iterator[str]:
    """The address of a viewer for the points of a folder."""
    viewer = Labelling(Sources(folder / "scene.tif"), folder / "points.gpkg")
    with serving(viewer) as url:
        yield url
    viewer.close()


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "copy"))


@contextmanager
def killed_at_the_end(folder: Path, port: int) -> Iterator[str]:
    """The address of a viewer in a process of its own, which is killed when the block is left."""
    command = [sys.executable, "-m", "regard", "view", "scene.tif", "--label", "points.gpkg", "--no-browser"]
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+/", process.stderr.readline())
            assert found
            yield found[0]
        finally:
            process.kill()


@contextmanager
def opened(browser: Any, url: str, device: dict[str, Any]) -> Iterator[Any]:
    """The page, once its first card is there; in the end it must have had no error."""
    context, complaints = browser.new_context(**device), []
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    yield page
    assert not complaints, complaints
    context.close()


def saved(page: Any) -> None:
    """Wait until nothing is on its way."""
    page.locator("#label-part .saved", has_text=re.compile(r"^saved ")).wait_for()


def test_two_kills_in_200_answers_lose_nothing_and_accuracy_runs(browser: Any, folder: Path) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    context = browser.new_context(**LAPTOP)
    pressed: dict[str, str] = {}  # the answer to each point, by its place in the order
    spent = 0.0
    for last in (70, 140, 200):
        page = context.new_page()
        with killed_at_the_end(folder, port) as url:
            page.goto(url)
            page.locator("html[data-ready]").wait_for()
            began = time.monotonic()
            while len(pressed) < last:
                number = page.locator("#label-title").inner_text().split()[1]
                assert number not in pressed, "the page shows a point again that was answered"
                key = int(number) % 3
                page.keyboard.press(str(key + 1))
                pressed[number] = NAMES[key]
            spent += time.monotonic() - began
            if last == 200:
                saved(page)
        page.close()  # the last answers may wait in the browser
    context.close()
    assert spent < 180
    order = Labelling(Sources(folder / "scene.tif"), folder / "points.gpkg").cards
    references = columns_of(folder / "points.gpkg")["reference"]
    assert [references[card["fid"] - 1] for card in order] == [pressed[str(k)] for k in range(1, 201)]
    assert 0 < regard.accuracy(folder / "map.tif", folder / "points.gpkg").as_dict()["overall_accuracy"] < 1


def test_not_sure_cannot_tell_notes_and_undo(browser: Any, folder: Path) -> None:
    with labelling(folder) as url, opened(browser, url, LAPTOP) as page:
        for key in ("s", "2", "1", "0", "t"):
            page.keyboard.press(key)
        page.keyboard.type("3 clouds")
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        page.keyboard.press("1")
        page.keyboard.press("u")
        assert page.locator("#label-title").inner_text() == "Point 4 of 200"
        assert page.locator("#label-progress").inner_text() == "3 labelled, of these 2 not sure; 197 to go"
        saved(page)
    found = [point for point in columns_of_points(folder) if point["time"]]
    answers = sorted((point["reference"], point["second_choice"], point["sure"], point["note"]) for point in found)
    assert answers == [
        ("", "", "", ""), ("", "", "no", ""), ("roof", "land", "no", ""), ("water", "", "yes", "3 clouds"),
    ]  # fmt: skip


def columns_of_points(folder: Path) -> list[dict[str, Any]]:
    viewer = Labelling(Sources(folder / "scene.tif"), folder / "points.gpkg")
    viewer.close()
    assert viewer.points is not None
    return viewer.points.points()["points"]


def test_two_tabs_keep_each_others_answers(browser: Any, folder: Path) -> None:
    with labelling(folder) as url, opened(browser, url, LAPTOP) as one, opened(browser, url, LAPTOP) as two:
        one.keyboard.press("1")
        saved(one)
        two.keyboard.press("n")
        two.keyboard.press("2")
        saved(two)
        assert [p["reference"] for p in columns_of_points(folder) if p["time"]].count("land") == 1
        two.evaluate("dispatchEvent(new Event('focus'))")
        two.get_by_text("2 labelled; 198 to go").wait_for()


def test_the_same_point_in_two_tabs_is_asked_again(browser: Any, folder: Path) -> None:
    with labelling(folder) as url, opened(browser, url, LAPTOP) as one:
        context = browser.new_context(**LAPTOP)
        two = context.new_page()
        two.goto(url)
        two.locator("html[data-ready]").wait_for()
        one.keyboard.press("1")
        saved(one)
        two.keyboard.press("2")
        two.get_by_text("was changed in another window").wait_for()
        assert two.locator("#label-title").inner_text() == "Point 1 of 200"
        assert two.get_by_role("button", name="land").get_attribute("aria-pressed") == "true"
        context.close()
    assert [p["reference"] for p in columns_of_points(folder) if p["time"]] == ["land"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_nothing_serious_and_fingers_find_the_buttons(
    browser: Any, folder: Path, device: Any, scheme: str
) -> None:
    with labelling(folder) as url, opened(browser, url, {**device, "color_scheme": scheme}) as page:
        page.get_by_role("button", name="roof").click()
        page.get_by_role("button", name="Not sure").click()
        assert not faults(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]
        if device is PHONE:
            small = page.evaluate("""() => [...document.querySelectorAll('#label-part button, .chip')]
                .filter(b => Math.min(b.offsetWidth, b.offsetHeight) < 44).length""")
            assert small == 0, "a finger needs 44 px"


def test_the_keyboard_alone_reaches_every_control(browser: Any, folder: Path) -> None:
    with labelling(folder) as url, opened(browser, url, LAPTOP) as page:
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.innerText.split('\\n').pop()")
            )
        assert {"map", "roof", "unsure", "cannot", "previous", "next", "next-open", "label-note"} <= reached
        page.locator("#map").focus()
        side = page.locator(".chip").first.get_attribute("aria-label")
        page.keyboard.press("z")
        assert page.locator(".chip").first.get_attribute("aria-label") != side, "the zooms change places"


def test_what_could_not_be_sent_waits_in_the_browser(browser: Any, folder: Path) -> None:
    """The server goes; an answer is given; the tab is closed. A later page of the same address sends it."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    context = browser.new_context(**LAPTOP)
    page = context.new_page()
    with killed_at_the_end(folder, port) as url:
        page.goto(url)
        page.locator("html[data-ready]").wait_for()
    page.keyboard.press("2")
    page.get_by_text("Not saved yet, kept in this browser").wait_for()
    page.close()
    assert not [point for point in columns_of_points(folder) if point["time"]]
    with killed_at_the_end(folder, port) as url:
        page = context.new_page()
        page.goto(url)
        saved(page)
    assert [point["reference"] for point in columns_of_points(folder) if point["time"]] == ["roof"]
    context.close()
