"""Pages in a headless Chromium: the devices they are looked at with, and what axe-core says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "e2e" / "axe.min.js"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def faults(page: Any) -> list[list[str]]:
    """Serious faults of accessibility that axe-core finds."""
    page.evaluate(AXE.read_text() + "; 0")
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    return [fault for fault in found if fault[0] in ("serious", "critical")]
