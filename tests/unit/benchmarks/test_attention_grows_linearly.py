"""What the memory of attention is for, at sizes that a test can afford. Figures: ``python -m benchmarks``."""

from __future__ import annotations

import sys

import pytest

from benchmarks.measure import extra_memory_mb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
]


@pytest.mark.parametrize(("case", "most_mb_at_4096"), [("float32 forward", 46), ("float32 forward and backward", 102)])
def test_memory_is_linear_in_the_number_of_pixels(case: str, most_mb_at_4096: int):
    """Twice the pixels: a full map would take four times the memory, 256 MB for one alone; ours about doubles."""
    small, large = (extra_memory_mb("attention", case, pixels, "ours") for pixels in (4096, 8192))
    assert small is not None and large is not None
    assert small < most_mb_at_4096
    assert large < 3 * small
    assert large < 4 * 8192**2 / 2**20 / 2
