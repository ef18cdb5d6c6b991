"""The viewer as a process; and its pages in a headless Chromium: devices, and what axe-core says of them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "e2e" / "axe.min.js"
LAPTOP = {"viewport": {"width": 1366, "height": 768}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def faults(page: Any) -> list[list[str]]:
    """Serious faults of accessibility that axe-core finds."""
    page.evaluate(AXE.read_text() + "; 0")
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    return [fault for fault in found if fault[0] in ("serious", "critical")]


@contextmanager
def viewing(*arguments: object) -> Iterator[str]:
    """The address of a running viewer, which then ends by Ctrl-C and without a complaint."""
    command = [sys.executable, "-m", "regard", "view", *map(str, arguments), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", first)
        assert found, first + process.stderr.read()
        yield found[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in errors, errors
    finally:
        process.kill()
        process.communicate()


@contextmanager
def opened(browser: Any, url: str, device: dict[str, object], *, fragment: str = "", fails: str = "-") -> Iterator[Any]:
    """The page, which then must have had no error but those with ``fails``, and asked nothing of another host."""
    context = browser.new_context(**device)
    page, complaints = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith((url, "data:")) else None)
    page.goto(url + fragment)
    page.locator("#classes .share", has_text="%").first.wait_for()  # tiles have come and are counted
    yield page
    assert not [text for text in complaints if fails not in text], complaints
    context.close()
