"""The page's own modules stay small. `make viewer-check` lints them and checks their types, where there is npm."""

from __future__ import annotations

from pathlib import Path

MODULES = Path(__file__).parents[2] / "src" / "regard" / "web" / "static"
MOST, MOST_EACH = 1500, 250  # lines


def test_the_modules_of_the_page_are_small() -> None:
    lines = {path.name: path.read_text().count("\n") for path in MODULES.glob("*.js") if path.name != "ol.js"}
    assert len(lines) > 10 and max(lines.values()) < MOST_EACH and sum(lines.values()) < MOST, lines
