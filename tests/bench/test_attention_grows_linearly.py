"""What the speed and memory of attention are for, at sizes that a test can afford. Figures: ``regard benchmark``."""

from __future__ import annotations

import sys

import pytest

from regard.engine.measure import extra_memory_mb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
]


@pytest.mark.parametrize(("case", "result_mb_at_4096"), [("float32 forward", 8), ("float32 forward and backward", 36)])
def test_memory_is_linear_in_the_number_of_pixels(case: str, result_mb_at_4096: int):
    small, large = (extra_memory_mb("attention", case, pixels, "ours") for pixels in (4096, 8192))
    assert small is not None and large is not None
    assert large < 2.2 * small
    assert small < 2 * result_mb_at_4096 + 30
