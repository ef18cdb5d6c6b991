"""Memory of the process, also where the system does not tell it."""

from __future__ import annotations

import importlib
import sys

import pytest

from regard import memory


def test_the_peak_grows_with_what_is_held():
    before = memory.peak_memory_mb()
    held = bytearray(b"x" * 64_000_000)
    assert memory.peak_memory_mb() >= max(before, len(held) / 2**20)


def test_a_system_without_the_module_resource_is_served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    try:
        assert importlib.reload(memory).peak_memory_mb() == 0.0
    finally:
        monkeypatch.undo()
        importlib.reload(memory)
