"""The walks through the house stay short. See them with: python tests/house/walks.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from walks import WALKS

# The most files that a walk may enter: what must hold at the end, and what holds today (lower it as the walks shorten).
LIMITS = {"danet": (5, 6), "ocrnet": (5, 8), "danet_ocr": (6, 10), "photograph": (13, 20), "scene": (22, 34)}


@pytest.mark.parametrize("name", LIMITS)
def test_a_walk_enters_few_files(name: str, tmp_path: Path, unchecked: None) -> None:
    walk = WALKS[name](tmp_path)
    assert 3 <= len(walk) <= max(LIMITS[name]), "\n".join(walk)
