"""Any region of a scene's map, as :func:`~regard.mapping.blend.predict_rows` makes the whole: for the viewer."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from torch import Tensor

from regard.inference.scores import grid_scores
from regard.io.raster import Box, Raster
from regard.io.window_reader import padded
from regard.mapping.blend import RollingCanvas, axes, upsample
from regard.mapping.measures import confidence
from regard.models import Segmenter
from regard.ops.windows import Axis
from regard.options import Views, Windows

CACHE_BYTES = 256_000_000
Window = tuple[int, int]  # its row and its column among the windows


class Region(NamedTuple):
    """A box of a class map: labels, the probability of each, and the valid mask."""

    labels: Integer[ndarray, "h w"]
    confidence: Float[ndarray, "h w"]
    valid: Bool[ndarray, "h w"]


class Regions:
    """The map of a scene, box by box. A window is scored when it is first needed; the latest ones are cached."""

    def __init__(self, model: Segmenter, raster: Raster, windows: Windows, views: Views = Views()) -> None:
        self.model, self.raster, self.tile, self.views = model, raster, windows.tile, views
        self.vertical, self.horizontal = axes(raster.size, windows, model.stride)
        self.shape = (len(model.classes), self.vertical.window, self.horizontal.window)
        self.window = lru_cache(max(16, CACHE_BYTES // (4 * math.prod(self.shape))))(self._window)

    def windows(self, box: Box) -> list[Window]:
        """The windows that the map of ``box`` is made of, row by row."""
        rows, columns = self._cells(box)
        return list(product(self.vertical.reaching(rows), self.horizontal.reaching(columns)))

    def _window(self, window: Window) -> Float[Tensor, "k _ _"]:
        """The scores of one window on the network's grid; zero where it holds no data.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        stride = self.model.stride
        top, left = self.vertical.begins[window[0]] * stride, self.horizontal.begins[window[1]] * stride
        pixels = padded(self.raster, Box(top, left, self.shape[1] * stride, self.shape[2] * stride))
        return grid_scores(self.model, [pixels], self.views)[0] if pixels.valid.any() else torch.zeros(self.shape)

    def scores(self, box: Box) -> Float[Tensor, "k h w"]:
        """Class scores of the pixels of ``box``, blended as in the whole map; their softmax is the probability."""
        stride, (rows, columns) = self.model.stride, self._cells(box)
        canvas = RollingCanvas(self.shape[0], rows, columns, stride)
        for row, column in self.windows(box):
            weight = self.horizontal.weights[column] * self.vertical.weights[row][:, None]
            scores = self.window((row, column))
            canvas.add(self.vertical.begins[row], self.horizontal.begins[column], scores, weight)
        top, left = box.top - rows.start * stride, box.left - columns.start * stride
        return upsample(canvas.scores, stride, slice(top, top + box.height), slice(left, left + box.width))

    def region(self, box: Box) -> Region:
        """The map of ``box``, which lies inside the scene."""
        scores = self.scores(box)
        probability = confidence(scores.softmax(dim=0))
        return Region(scores.max(dim=0).indices.numpy(), probability.numpy(), self.raster.read(box)[1])

    def probabilities(self, x: int, y: int) -> Float[ndarray, " k"]:
        """The probability of each class at one pixel of the map."""
        return self.scores(Box(y, x, 1, 1))[:, 0, 0].softmax(dim=0).numpy()

    def _cells(self, box: Box) -> tuple[range, range]:
        """The rows and columns of cells that the pixels of a box are interpolated from."""
        return self._along(self.vertical, box.top, box.height), self._along(self.horizontal, box.left, box.width)

    def _along(self, axis: Axis, begin: int, length: int) -> range:
        stride = self.model.stride
        first, last = (begin - stride // 2) // stride, (begin + length - 1 + stride // 2) // stride
        return range(max(0, first), min(axis.cells, last + 1))
