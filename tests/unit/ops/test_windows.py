"""Windows cover, and their weights sum to one."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.ops.windows import LEAST, Axis, blend_weights, plan_axis, ramp, starts

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


@given(
    length=st.integers(1, 400),
    stride=st.sampled_from([1, 2, 8]),
    multiple=st.sampled_from([1, 2, 4]),
    tile=st.integers(1, 12),
    overlap=st.integers(0, 6),
)
def test_an_axis_in_cells(length: int, stride: int, multiple: int, tile: int, overlap: int):
    multiple, tile = multiple * stride, 4 * tile * stride
    overlap = min(overlap * stride, tile // 2)
    axis = plan_axis(length, tile, overlap, stride=stride, multiple=multiple)
    needed = next(cells for cells in range(1, 401) if cells * stride >= length)
    padded = next(size for size in range(multiple, 500, multiple) if size >= length)
    assert axis.window * stride == min(tile, padded)
    assert axis.cells == max(needed, axis.window)
    assert axis.begins == starts(needed, axis.window, axis.window - (overlap // stride if padded >= tile else 0))
    for found, wanted in zip(
        axis.weights, blend_weights(axis.begins, axis.window, overlap // stride, needed), strict=True
    ):
        assert torch.equal(found, wanted)


@given(length=st.integers(1, 60), window=st.integers(1, 20), overlap=st.integers(0, 12))
def test_which_windows_reach_which_cells(length: int, window: int, overlap: int):
    begins = starts(length, window, window - min(overlap, window - 1))
    axis = Axis(begins, window, [], max(length, window))
    cells = [range(begin, begin + window) for begin in begins]
    for row in range(len(begins) + 1):
        ahead = [cell for reached in cells[row:] for cell in reached]
        assert axis.finalised(row) == min(ahead, default=axis.cells)
    for cell in range(axis.cells):
        reaching = [n for n, reached in enumerate(cells) if cell in reached]
        assert axis.first_reaching(cell) == reaching[0] and axis.reaching(range(cell, cell + 1)) == reaching
    part = range(length // 3, length // 2 + 1)
    assert axis.reaching(part) == [n for n, reached in enumerate(cells) if set(reached) & set(part)]


def test_the_ramp_by_hand():
    sines = [0.5 * (1 - np.cos(np.pi * (place + 0.5) / 4)) for place in range(4)]
    expected = [*sines, 1, 1, *sines[::-1]]
    torch.testing.assert_close(ramp(10, 4), torch.tensor(expected, dtype=torch.float64))


def test_a_halo_weighs_nothing_where_there_is_another_window() -> None:
    weights = ramp(20, 8, 2)
    falling = [math.sin(math.pi * place / 16) ** 2 for place in (1, 3, 5, 7)]
    expected = torch.tensor([LEAST, LEAST, *falling, 1, 1, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(weights, torch.cat([expected, expected.flip(0)]))


def test_at_the_edge_of_a_scene_the_halo_counts() -> None:
    axis = plan_axis(96, 64, 32, stride=1, multiple=32, halo=8)
    assert axis.begins == [0, 32]
    torch.testing.assert_close(axis.weights[0][:32], torch.ones(32))
    assert axis.weights[0][-8:].max() < 1e-5 and axis.weights[1][:8].max() < 1e-5
    torch.testing.assert_close(axis.weights[0][32:] + axis.weights[1][:32], torch.ones(32))


def test_a_window_that_is_smaller_than_its_overlap_has_no_halo() -> None:
    assert torch.equal(ramp(4, 16, 4), ramp(4, 16))
