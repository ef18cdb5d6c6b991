"""Boundaries, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from regard.ops.metrics import boundary_counts, boundary_f1


def edge_pixels(labels: Tensor, known: Tensor) -> dict[tuple[int, int], int]:
    height, width = labels.shape
    found = {}
    for y in range(height):
        for x in range(width):
            around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            there = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width and known[v, u]]
            if known[y, x] and any(labels[place] != labels[y, x] for place in there):
                found[y, x] = int(labels[y, x])
    return found


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_counts_equal_the_loop(reach: int):
    truth = torch.randint(3, (3, 4)).repeat_interleave(4, 0).repeat_interleave(5, 1)
    predicted = truth.roll((1, 2), (0, 1))
    truth[torch.rand(truth.shape) < 0.1] = 255
    known = truth != 255
    called, true = edge_pixels(predicted, known), edge_pixels(truth, known)
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for column, (mine, other) in ((0, (called, true)), (2, (true, called))):
        for (y, x), label in mine.items():
            near = any(max(abs(y - v), abs(x - u)) <= reach for (v, u), its in other.items() if its == label)
            expected[label, column] += near
            expected[label, column + 1] += 1
    counts = boundary_counts(truth, predicted, classes=4, reach=reach)
    assert torch.equal(counts, expected)
    assert math.isnan(boundary_f1(counts)[3])


def test_a_shift_within_reach_is_perfect_and_one_beyond_it_is_not():
    truth = torch.zeros(40, 40, dtype=torch.int64)
    truth[10:30, 10:30] = 1
    near = boundary_f1(boundary_counts(truth, truth.roll(2, 0), classes=2, reach=2))
    far = boundary_f1(boundary_counts(truth, truth.roll(6, 0), classes=2, reach=2))
    assert near.tolist() == [1, 1] and (far > 0.4).all() and (far < 0.7).all()
    missed = boundary_f1(boundary_counts(truth, torch.zeros_like(truth), classes=2))
    assert missed.tolist() == [0, 0]


def test_three_pixels_are_near():
    truth = torch.zeros(9, 40, dtype=torch.int64)
    truth[:, 20:] = 1
    counts = {}
    for shift in (3, 4, 5):
        predicted = torch.zeros_like(truth)
        predicted[:, 20 + shift :] = 1
        counts[shift] = boundary_counts(truth, predicted, classes=2).tolist()
    assert counts == {3: [[9, 9, 9, 9], [9, 9, 9, 9]], 4: [[0, 9, 0, 9]] * 2, 5: [[0, 9, 0, 9]] * 2}
