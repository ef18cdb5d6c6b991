"""Freed memory is kept for predictions; where there are huge pages, the largest blocks are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regard import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
SETTINGS = """
import ctypes, os, sys
from pathlib import Path
from regard import memory
memory.HUGE_PAGES, calls = Path(sys.argv[1]), []
memory._glibc = lambda name: lambda option, value: calls.append((option, value)) or 1
memory.ask_for_huge_pages()
memory.reuse_memory()
print(os.environ.get(memory.ASKED), calls)
"""


def settings(huge_pages: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != memory.ASKED}
    run = [sys.executable, "-c", SETTINGS, str(huge_pages)]
    return subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@pytest.mark.parametrize("said", ["always [madvise] never", "[always] madvise never"])
def test_large_blocks_are_fresh_where_there_are_huge_pages(said: str, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text(said)
    found = settings(tmp_path / "enabled")
    assert found.startswith("1 ") and str((memory.M_MMAP_THRESHOLD, memory.LARGE)) in found
    assert str((memory.M_MMAP_MAX, 0)) not in found


@pytest.mark.parametrize("said", ["always madvise [never]", None])
def test_all_blocks_are_kept_where_there_are_none(said: str | None, tmp_path: Path) -> None:
    if said is not None:
        (tmp_path / "enabled").write_text(said)
    found = settings(tmp_path / "enabled")
    assert found.startswith("None ") and str((memory.M_MMAP_MAX, 0)) in found
