"""Windows cover, and their weights sum to one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.ops.windows import blend_weights, ramp, starts

lengths, windows = st.integers(1, 300), st.integers(1, 80)


@given(length=lengths, window=windows, share=st.floats(0.05, 1))
def test_windows_cover_every_cell_and_stay_inside(length: int, window: int, share: float):
    step = max(1, int(window * share))
    begins = starts(length, window, step)
    covered = np.zeros(max(length, window), dtype=int)
    for begin in begins:
        covered[begin : begin + window] += 1
    assert covered.min() >= 1
    assert begins[0] == 0 and begins == sorted(set(begins))
    assert length <= window or begins[-1] + window == length
    assert all(after - before <= step for before, after in pairwise(begins))
    assert len(begins) <= 1 + -(-max(0, length - window) // step)  # no more than needed


@given(length=lengths, window=windows, overlap=st.integers(0, 80))
def test_blend_weights_sum_to_one_everywhere(length: int, window: int, overlap: int):
    overlap = min(overlap, window - 1)
    begins = starts(length, window, window - overlap)
    total = torch.zeros(max(length, window))
    for begin, weights in zip(begins, blend_weights(begins, window, overlap, length), strict=True):
        assert weights.shape == (window,) and float(weights.min()) > 0
        total[begin : begin + window] += weights
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@given(window=windows, overlap=st.integers(0, 80))
def test_the_ramp_is_symmetric_positive_and_flat_inside(window: int, overlap: int):
    weights = ramp(window, overlap)
    assert weights.shape == (window,)
    torch.testing.assert_close(weights, weights.flip(0))
    assert float(weights.min()) > 0 and float(weights.max()) <= 1
    inner = min(overlap, window // 2)
    assert torch.equal(weights[inner : window - inner], torch.ones(window - 2 * inner, dtype=torch.float64))
    assert (weights[: (window + 1) // 2].diff() >= 0).all()


def test_two_ramps_that_overlap_are_a_partition_by_themselves():
    falling, rising = ramp(40, 12)[-12:], ramp(40, 12)[:12]
    torch.testing.assert_close(falling + rising, torch.ones(12, dtype=torch.float64))  # sin² + cos²
