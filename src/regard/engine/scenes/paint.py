"""Blended scores on the network's grid to the rows of a map at full size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from regard.ops.resize import most_likely

GRID_ROWS_AT_ONCE = 8
FLOATS_AT_ONCE = 2**23  # scores at full size, where so many rows do not come to more


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
    """Takes settled grid rows from the top down and gives the pixel rows that they decide.

    A pixel is interpolated between the centres of four cells, so the lower half of the last settled cell waits for the
    next one.
    """

    def __init__(self, size: tuple[int, int], stride: int, measures: Sequence[str]) -> None:
        self.size = size
        self.stride = stride
        self.measures = measures
        self._scores: Float[Tensor, "k _ w"] | None = None
        self._origin = 0  # cell row of the first of ``_scores``
        self._valid = np.zeros((stride, -(-size[1] // 8)), dtype=np.uint8)  # a bit a pixel
        self._top = 0  # pixel row of the first of ``_valid``: the first that is not painted

    def take(self, begin: int, scores: Float[Tensor, "k _ w"], valid: UInt8[np.ndarray, "_ _"]) -> None:
        """The cells from row ``begin`` on that are settled now, and which pixels from there on hold data, in bits."""
        before = scores[:, :0] if self._scores is None else self._scores[:, -1:]
        self._origin = begin - before.shape[1]
        waiting = self.stride // 2 if begin else 0
        self._top = begin * self.stride - waiting
        fresh = valid[: scores.shape[1] * self.stride, : self._valid.shape[1]]
        self._valid = np.concatenate([self._valid[len(self._valid) - waiting :], fresh])
        self._scores = torch.cat([before, scores], dim=1)

    def rows(self, row: int, *, last: bool) -> Iterator[Rows]:
        """The pixel rows that are decided now, a few cells' rows at a time, from where the row before left off."""
        assert self._scores is not None
        count = self._scores.shape[1]
        bottom = self.size[0] if last else (self._origin + count) * self.stride - self.stride // 2
        floats = self.stride**2 * self._scores[:, 0].numel()  # of one cell row
        step = max(1, min(GRID_ROWS_AT_ONCE, FLOATS_AT_ONCE // floats))
        for first in range(0, count, step):
            top = max(self._top, (self._origin + first) * self.stride)
            end = min(bottom, (self._origin + first + step) * self.stride)
            if top < end:
                yield self._paint(row, slice(max(0, first - 1), min(count, first + step + 1)), top, end)

    def _paint(self, row: int, cells: slice, top: int, end: int) -> Rows:
        assert self._scores is not None
        part = self._scores[None, :, cells]
        size = (part.shape[2] * self.stride, part.shape[3] * self.stride)
        skipped = (self._origin + cells.start) * self.stride
        full = F.interpolate(part, size, mode="bilinear", align_corners=False)[0]
        full = full[:, top - skipped : end - skipped, : self.size[1]]
        labels = most_likely(full[None])[0].to(torch.int32)
        shares = full.softmax(dim=0) if self.measures else full
        measured = {name: MEASURES[name](shares).numpy() for name in self.measures}
        bits = self._valid[top - self._top : end - self._top]
        valid = np.unpackbits(bits, axis=1, count=self.size[1]).view(bool)
        return Rows(row, top, labels.numpy(), valid, measured)
