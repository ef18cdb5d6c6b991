"""Any part of a scene's map, as :func:`..scene.predict_rows` makes the whole: for looking around in it."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from torch import Tensor

from regard.inference.views import scaling_of
from regard.io.raster import Box, Raster
from regard.io.window_reader import padded
from regard.mapping.blend import Axis, Tiling, grid_scores, plan_axis
from regard.mapping.upsample import confidence
from regard.models import Segmenter
from regard.ops.normalise import prepare

HELD_BYTES = 256_000_000
Window = tuple[int, int]  # its row and its column among the windows


class Part(NamedTuple):
    """A box of a class map: labels, the probability of each, and where there is data."""

    labels: Integer[ndarray, "h w"]
    confidence: Float[ndarray, "h w"]
    valid: Bool[ndarray, "h w"]


class Parts:
    """The map of a scene, box by box. Each window is computed when it is first needed; the latest ones are kept."""

    def __init__(self, model: Segmenter, raster: Raster, tiling: Tiling) -> None:
        self.model, self.raster, self.tiling = model, raster, tiling
        self.vertical, self.horizontal = (plan_axis(length, tiling, model.stride) for length in raster.size)
        self.shape = (len(model.classes), self.vertical.window, self.horizontal.window)
        self.most_held = max(16, HELD_BYTES // (4 * self.shape[0] * self.shape[1] * self.shape[2]))
        self._held: OrderedDict[Window, Float[Tensor, "k _ _"]] = OrderedDict()

    def windows(self, box: Box) -> list[Window]:
        """The windows that the map of ``box`` is made of, row by row."""
        rows = _reaching(self.vertical, self._cells(box.top, box.height, self.vertical))
        return list(product(rows, _reaching(self.horizontal, self._cells(box.left, box.width, self.horizontal))))

    def window(self, place: Window) -> Float[Tensor, "k _ _"]:
        """The scores of one window on the network's grid; zero where it holds no data.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        if place not in self._held:
            self._held[place] = self._look(place)
        self._held.move_to_end(place)
        while len(self._held) > self.most_held:
            self._held.popitem(last=False)
        return self._held[place]

    def _look(self, place: Window) -> Float[Tensor, "k _ _"]:
        stride = self.model.stride
        top, left = self.vertical.begins[place[0]] * stride, self.horizontal.begins[place[1]] * stride
        pixels, valid = padded(self.raster, Box(top, left, self.shape[1] * stride, self.shape[2] * stride))
        if not valid.any():
            return torch.zeros(self.shape)
        image = prepare(pixels, valid, scaling_of(self.model))[None]
        return grid_scores(self.model, image, self.tiling)[0]

    def scores(self, box: Box) -> Float[Tensor, "k h w"]:
        """Class scores of the pixels of ``box``, blended as in the whole map; their softmax is the probability."""
        stride = self.model.stride
        rows, columns = (
            self._cells(begin, length, axis)
            for begin, length, axis in ((*box[::2], self.vertical), (*box[1::2], self.horizontal))
        )
        canvas = torch.zeros(self.shape[0], len(rows), len(columns))
        for row, column in self.windows(box):
            weight = self.horizontal.weights[column] * self.vertical.weights[row][:, None]
            down, seen_down = _overlap(rows, self.vertical.begins[row], self.shape[1])
            across, seen_across = _overlap(columns, self.horizontal.begins[column], self.shape[2])
            canvas[:, down, across] += (self.window((row, column)) * weight)[:, seen_down, seen_across]
        size = (len(rows) * stride, len(columns) * stride)
        full = F.interpolate(canvas[None], size, mode="bilinear", align_corners=False)[0]
        top, left = box.top - rows.start * stride, box.left - columns.start * stride
        return full[:, top : top + box.height, left : left + box.width]

    def part(self, box: Box) -> Part:
        """The map of ``box``, which lies inside the scene."""
        scores = self.scores(box)
        sure = confidence(scores.softmax(dim=0))
        return Part(scores.max(dim=0).indices.numpy(), sure.numpy(), self.raster.read(box)[1])

    def probabilities(self, x: int, y: int) -> Float[ndarray, "k"]:
        """Of each class, at one pixel of the map."""
        return self.scores(Box(y, x, 1, 1))[:, 0, 0].softmax(dim=0).numpy()

    def _cells(self, begin: int, length: int, axis: Axis) -> range:
        """The cells that ``length`` pixels from ``begin`` on are interpolated from."""
        stride = self.model.stride
        first, last = (begin - stride // 2) // stride, (begin + length - 1 + stride // 2) // stride
        return range(max(0, first), min(axis.cells, last + 1))


def _reaching(axis: Axis, cells: range) -> list[int]:
    return [n for n, begin in enumerate(axis.begins) if begin < cells.stop and begin + axis.window > cells.start]


def _overlap(cells: range, begin: int, count: int) -> tuple[slice, slice]:
    """Where ``count`` cells from ``begin`` on lie among ``cells``, and where ``cells`` lie among them."""
    first, end = max(cells.start, begin), min(cells.stop, begin + count)
    return slice(first - cells.start, end - cells.start), slice(first - begin, end - begin)
