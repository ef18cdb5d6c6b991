"""The units of a sample, pixels or square blocks of them, and which pixels lie near the border of a class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from regard.io.raster import Box


class Units(NamedTuple):
    """A map in blocks of ``side`` x ``side`` pixels from its upper left corner on; those at its lower and right edge
    have what is left. With a side of 1 the units are pixels.
    """

    side: int = 1

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """How many units so many pixels make."""
        return -(-height // self.side), -(-width // self.side)

    def sums(self, values: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "m n"]:
        """The sum over the pixels of each unit."""
        if self.side == 1:
            return values
        rows, columns = (np.arange(0, length, self.side) for length in values.shape)
        return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)

    def labels(self, labels: Shaped[np.ndarray, "h w"], count: int) -> Int[np.ndarray, "m n"]:
        """The class of each unit: that of most of its pixels with data, and of several such the one with the lowest
        value; ``count``, the number of classes, where no pixel has data.
        """
        if self.side == 1:
            return np.minimum(labels, count).astype(np.intp)
        found = np.full(self.shape(*labels.shape), count, np.intp)
        most = np.zeros(found.shape, np.int64)
        for label in np.unique(labels[labels < count]).tolist():
            pixels = self.sums((labels == label).astype(np.int64))
            found[pixels > most] = label
            most = np.maximum(most, pixels)
        return found

    def at_centres(self, values: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "m n"]:
        """The value of the pixel at the centre of each unit."""
        height, width = values.shape
        rows, columns = (np.arange(count) * self.side for count in self.shape(height, width))
        return values[np.ix_(_middles(rows, self.side, height), _middles(columns, self.side, width))]

    def centres(self, at: Int[np.ndarray, "n 2"], size: tuple[int, int]) -> Float[np.ndarray, "n 2"]:
        """Row and column of the centre of the units at some pixels; the centre of the pixel at row 0 is at 0.5."""
        first = at // self.side * self.side
        return (first + np.minimum(first + self.side, size)) / 2

    def box(self, row: int, column: int, size: tuple[int, int]) -> Box:
        """The pixels of the unit at a pixel."""
        top, left = row // self.side * self.side, column // self.side * self.side
        return Box(top, left, min(self.side, size[0] - top), min(self.side, size[1] - left))


def _middles(first: Int[np.ndarray, " n"], side: int, length: int) -> Int[np.ndarray, " n"]:
    """The pixels in the middle of units along a row or a column."""
    return (first + np.minimum(first + side, length)) // 2


def near_border(labels: Shaped[np.ndarray, "h w"], count: int, reach: int) -> Bool[np.ndarray, "h w"]:
    """Which pixels have another class at most ``reach`` rows and columns away. Pixels without data have none."""
    highest, lowest = (np.where(labels < count, labels.astype(np.int32), none) for none in (-1, count))
    for axis in (0, 1):
        highest, lowest = _spread(highest, reach, np.maximum, axis), _spread(lowest, reach, np.minimum, axis)
    return (highest > lowest) & (labels < count)


def _spread(values: Int[np.ndarray, "h w"], reach: int, best: np.ufunc, axis: int) -> Int[np.ndarray, "h w"]:
    """The highest or lowest value within ``reach`` along an axis, by windows that double."""
    border = [(0, 0), (0, 0)]
    border[axis] = (reach, reach)
    found, length = np.moveaxis(np.pad(values, border, mode="edge"), axis, 0), 1
    while length < 2 * reach + 1:
        step = min(length, 2 * reach + 1 - length)
        found, length = best(found[:-step], found[step:]), length + step
    return np.moveaxis(found, 0, axis)
