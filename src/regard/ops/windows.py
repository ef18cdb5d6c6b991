"""Where windows lie along an axis, and the weights that blend them without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-6  # the weight of a cell that another window shows better


class Axis(NamedTuple):
    """Windows along one axis, in cells of the network's grid: their begins, their length and blending weights."""

    begins: list[int]
    window: int
    weights: list[Float[Tensor, " w"]]
    cells: int

    def finalised(self, row: int) -> int:
        """The number of leading cells that no window from ``row`` on reaches."""
        return self.begins[row] if row < len(self.begins) else self.cells

    def first_reaching(self, cell: int) -> int:
        """The first window that covers ``cell``."""
        return next(row for row, begin in enumerate(self.begins) if begin + self.window > cell)

    def reaching(self, cells: range) -> list[int]:
        """The windows that cover any of ``cells``."""
        return [n for n, begin in enumerate(self.begins) if begin < cells.stop and begin + self.window > cells.start]


def plan_axis(length: int, tile: int, overlap: int, *, stride: int, multiple: int, halo: int = 0) -> Axis:
    """The windows over ``length`` pixels; below one ``tile`` there is one window, the next ``multiple`` of pixels long.

    All are in pixels and multiples of ``stride``, the pixels of a cell, but ``length`` and ``halo``, see :func:`ramp`.
    """
    cells = -(-length // stride)
    window = min(tile, -(-length // multiple) * multiple) // stride
    step = window - overlap // stride if window * stride == tile else window
    begins = starts(cells, window, step)
    weights = blend_weights(begins, window, overlap // stride, cells, halo // stride)
    return Axis(begins, window, weights, max(cells, window))


def starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin so that they cover ``length``: ``step`` apart, the last one moved inwards to end with it.

    >>> starts(100, 40, 30)
    [0, 30, 60]
    >>> starts(110, 40, 30)
    [0, 30, 60, 70]
    """
    if length <= window:
        return [0]
    regular = range(0, length - window, step)
    return [*regular, length - window]


def ramp(window: int, overlap: int, halo: int = 0) -> Float[Tensor, " w"]:
    """Weight of each cell of a window: 1 inside, falling as sin² over ``overlap`` cells at both ends, never 0.

    The outermost ``halo`` cells of these weigh next to nothing: they count where there is no other window.
    """
    overlap = min(overlap, window // 2)
    halo = min(halo, overlap // 4)
    if not overlap:
        return torch.ones(window, dtype=torch.float64)
    place = torch.arange(window, dtype=torch.float64) + 0.5
    edge, blended = torch.minimum(place, window - place) - halo, overlap - 2 * halo
    return torch.sin(edge.clamp(max=blended) / blended * math.pi / 2).square().where(edge > 0, LEAST)


def blend_weights(
    begins: Sequence[int], window: int, overlap: int, length: int, halo: int = 0
) -> list[Float[Tensor, " w"]]:
    """One weight vector per window, so that at every cell of the axis the weights of all windows sum to 1."""
    shape = ramp(window, overlap, halo)
    total = torch.zeros(max(length, window), dtype=torch.float64)
    for begin in begins:
        total[begin : begin + window] += shape
    return [(shape / total[begin : begin + window]).float() for begin in begins]
