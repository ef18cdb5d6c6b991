"""The reports as a person reads them: in a real browser, light and dark, on a phone, on paper, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser_support import PHONE, faults
from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.evaluation.evaluate import Scores, evaluate
from regard.inference.pictures import colourise, panel
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.reports.page import report
from support import write_tif

DEVICES = {
    "light": {"viewport": {"width": 1000, "height": 800}},
    "dark": {"viewport": {"width": 1000, "height": 800}, "color_scheme": "dark"},
    "phone": PHONE,
    "paper": {"viewport": {"width": 794, "height": 1123}},
}


@contextmanager
def opened(browser: Any, path: Path, device: str) -> Iterator[Any]:
    """The page, which then must have had no error, and asked nothing of anyone."""
    context = browser.new_context(**DEVICES[device], offline=True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(path.as_uri()) else None)
    page.emulate_media(media="print" if device == "paper" else "screen")
    page.goto(path.as_uri())
    yield page
    assert not [said for said in complaints if not said.startswith("data:")], complaints
    context.close()


@pytest.fixture
def pages(tmp_path: Path, tiny_model: Segmenter, set_folder: Path) -> dict[str, Path]:
    """A report of labelled images with everything that it can show, and one of a map."""
    data: LabelledData = folder(set_folder)
    scene = write_tif(tmp_path / "scene.tif", np.random.default_rng(1).integers(1, 255, size=(3, 128, 160)))
    predict(tiny_model, scene, tmp_path / "map.tif", confidence=tmp_path / "sure.tif")
    pictures = [
        (
            "A panel",
            panel(
                [("labels", colourise(np.eye(40, 30, dtype=np.int64), data.classes))],
                data.classes,
                tmp_path / "panel.png",
            ),
        )
    ]
    scores = report(
        evaluate(tiny_model, data), tmp_path / "scores.html", model=tiny_model, data=data, pictures=pictures
    )
    return {
        "scores": scores,
        "map": report(tmp_path / "map.tif", tmp_path / "map.html", confidence=tmp_path / "sure.tif"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores", "map"])
def test_a_report_reads_well_everywhere(browser: Any, pages: dict[str, Path], name: str) -> None:
    for device in DEVICES:
        with opened(browser, pages[name], device) as page:
            assert not faults(page), device
            wide = page.evaluate(
                "[...document.querySelectorAll('html, .scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
            )
            assert not wide, f"something is cut off: {device}"
    with opened(browser, pages[name], "light") as page:
        page.keyboard.press("Tab")
        link = page.evaluate(
            "[document.activeElement.getAttribute('href'), getComputedStyle(document.activeElement).outlineStyle]"
        )
        page.keyboard.press("Enter")
        assert link[1] == "solid" and page.url.endswith(link[0])
        page.locator(".scroll").first.focus()
        assert page.locator(".scroll").first.get_attribute("aria-label")


def test_axe_would_find_a_fault(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<html><body><img src="data:,"><p style="color:#ddd;background:#fff">pale</p></body></html>')
    with opened(browser, bad, "light") as page:
        assert {"image-alt", "color-contrast", "html-has-lang"} <= {fault[1] for fault in faults(page)}


@pytest.mark.slow
def test_class_names_of_300_characters_wrap(browser: Any, tmp_path: Path) -> None:
    scores = Scores(ClassMap.of(["a" * 300, "word " * 60]), np.array([[5, 3], [2, 9]]))
    page_file = report(scores, tmp_path / "page.html")
    for device in DEVICES:
        with opened(browser, page_file, device) as page:
            width = page.viewport_size["width"]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("Math.max(...[...document.querySelectorAll('th')].map(e => e.offsetWidth))") <= 320
