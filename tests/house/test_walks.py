"""The walks through the source stay short. See them with: python tests/house/walks.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from walks import PAGE, WALKS

# The most files that a walk may enter.
LIMITS = {"danet": 5, "ocrnet": 5, "danet_ocr": 6, "photograph": 14, "scene": 32}


@pytest.mark.parametrize("name", LIMITS)
def test_a_walk_enters_few_files(name: str, tmp_path: Path, unchecked: None) -> None:
    walk = WALKS[name](tmp_path)
    assert 3 <= len(walk) <= LIMITS[name], "\n".join(walk)


@pytest.mark.parametrize("name", ["photograph", "scene"])
def test_the_page_about_the_architecture_names_every_file_of_a_walk(name: str, tmp_path: Path, unchecked: None) -> None:
    """Renew its tables with: python tests/house/walks.py --page."""
    table = PAGE.read_text().split(f"<!-- walk {name} -->")[1].split("<!-- end -->")[0]
    assert {file for file in WALKS[name](tmp_path) if f"`{file}`" not in table} == set()
