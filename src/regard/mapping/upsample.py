"""Blended scores on the network's grid to the rows of a map at full size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from regard.ops.resize import most_likely

GRID_ROWS_AT_ONCE = 8
FLOATS_AT_ONCE = 2**21  # scores at full size


def confidence(probabilities: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """The probability of the likeliest class."""
    return probabilities.amax(dim=0)


def entropy(probabilities: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """How undecided the pixel is: -Σ p log p over log k, from 0 (one class is certain) to 1 (all are alike)."""
    return torch.special.entr(probabilities).sum(dim=0) / max(np.log(len(probabilities)), 1e-9)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"confidence": confidence, "entropy": entropy}


class Rows(NamedTuple):
    """Finished rows of the map from ``top`` on, settled by the window row ``row``; measures by name, in 0..1."""

    row: int
    top: int
    labels: Integer[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    measures: Mapping[str, Float[np.ndarray, "h w"]]


class Painter:
    """Gives the pixel rows that settled cells decide.

    A pixel is interpolated between the centres of four cells, so the lower half of the last settled cell waits for the
    next one.
    """

    def __init__(self, size: tuple[int, int], stride: int, measures: Sequence[str]) -> None:
        self.size = size
        self.stride = stride
        self.half = stride // 2
        self.measures = measures

    def rows(
        self, row: int, cells: range, canvas: Float[Tensor, "k _ w"], there: UInt8[np.ndarray, "_ _"]
    ) -> Iterator[Rows]:
        """What the rows ``cells`` decide, a few of them at a time; ``row`` is the window row that settled them.

        ``canvas`` holds scores from the cell above the first on, and ``there`` from half a cell above on, in bits,
        which pixels hold data.
        """
        above = 1 if cells.start else 0
        origin, scores = cells.start - above, canvas[:, 1 - above : 1 + len(cells)]
        begin = cells.start * self.stride - self.half
        bottom = self.size[0] if cells.stop * self.stride >= self.size[0] else cells.stop * self.stride - self.half
        for first in range(0, scores.shape[1], GRID_ROWS_AT_ONCE):
            top = max(0, begin, (origin + first) * self.stride)
            end = min(bottom, (origin + first + GRID_ROWS_AT_ONCE) * self.stride)
            if top < end:
                valid = np.unpackbits(there[top - begin : end - begin], axis=1, count=self.size[1]).view(bool)
                part = scores[:, max(0, first - 1) : first + GRID_ROWS_AT_ONCE + 1]
                skipped = (origin + max(0, first - 1)) * self.stride
                labels, measured = self._paint(part, slice(top - skipped, end - skipped))
                yield Rows(row, top, labels, valid, measured)

    def _paint(
        self, scores: Float[Tensor, "k _ w"], rows: slice
    ) -> tuple[Integer[np.ndarray, "h W"], dict[str, Float[np.ndarray, "h W"]]]:
        """Labels and measures of the pixel ``rows`` of some cells, from west to east in parts of like width."""
        size, width = (rows.stop - rows.start, self.size[1]), scores.shape[2]
        labels = np.empty(size, np.uint8 if len(scores) <= 256 else np.uint16)
        measured = {name: np.empty(size, np.float32) for name in self.measures}
        parts = min(width, -(-scores.numel() * self.stride**2 // FLOATS_AT_ONCE))
        for west, east in pairwise(width * part // parts for part in range(parts + 1)):
            cells = scores[None, :, :, max(0, west - 1) : east + 1]
            full = F.interpolate(cells, scale_factor=self.stride, mode="bilinear", align_corners=False)[0]
            columns = slice(*(min(edge * self.stride, size[1]) for edge in (west, east)))
            full = full[:, rows, self.stride * min(west, 1) :][..., : columns.stop - columns.start]
            labels[:, columns] = most_likely(full[None])[0].numpy()
            shares = full.softmax(dim=0) if measured else full
            for name, values in measured.items():
                values[:, columns] = MEASURES[name](shares).numpy()
        return labels, measured
