"""A scene window by window: the scores of windows are blended where they overlap and leave as rows, north to south.

Where windows lie depends on the scene's size alone. Scores are blended on the network's own grid (``stride`` pixels a
cell), where they are ``stride²`` times fewer, and then brought to full size once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from regard.inference.scores import grid_scores
from regard.io.gdal import CACHE_MB
from regard.io.image import Pixels
from regard.io.raster import Raster
from regard.io.window_reader import piece_bytes, read_windows
from regard.mapping.measures import MEASURES, empty
from regard.models import Segmenter
from regard.ops.resize import most_likely
from regard.ops.windows import Axis, plan_axis
from regard.options import ALIGNMENT, TILE, MapOptions, Views, Windows

READ_BYTES = 16e6  # of the raster, read at once; twice as much is held
GRID_ROWS_AT_ONCE = 8
FLOATS_AT_ONCE = 2**21  # scores at full size


class Rows(NamedTuple):
    """Finalised rows of the map from ``top`` on, finalised by the window row ``row``; measures by name, in 0..1, but
    ``probabilities``, of each class, in steps of 1/255.
    """

    row: int
    top: int
    labels: Integer[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    measures: Mapping[str, Shaped[np.ndarray, "*k h w"]]


LookAt = Callable[[int, Sequence[int], Sequence[Pixels]], None]


class Hooks(NamedTuple):
    """Called ``before`` windows are scored, with their row, columns and pixels; and ``after``, with their number."""

    before: LookAt = lambda row, columns, windows: None
    after: Callable[[int], None] = lambda count: None


NO_HOOKS = Hooks()


def axes(size: tuple[int, int], windows: Windows, stride: int) -> tuple[Axis, Axis]:
    """The windows over a scene of ``size`` = (height, width): their rows and columns; ``halo`` hides their borders."""
    plan = partial(plan_axis, tile=windows.tile, overlap=windows.overlap, stride=stride, halo=windows.halo)
    height, width = (plan(length, multiple=ALIGNMENT) for length in size)
    return height, width


def windows_of(windows: Windows, model: Segmenter) -> Windows:
    """The windows with a side: the one given, else that of the windows in which the model was scored, else 1024."""
    scored = model.card.window
    if windows.tile or not scored:
        return replace(windows, tile=windows.tile or TILE)
    tile = ALIGNMENT * max(1, round(scored / ALIGNMENT))
    return replace(windows, tile=tile, overlap=min(windows.overlap, tile // 4 // ALIGNMENT * ALIGNMENT))


def memory_needed(model: Segmenter, raster: Raster, options: MapOptions) -> float:
    """About the bytes that a map takes besides the model; the last two terms fit the peaks in docs/performance.md."""
    (height, width), windows = raster.size, options.windows
    window = min(windows.tile, -(-height // ALIGNMENT) * ALIGNMENT)
    strip = min(raster.bytes_of(window, width), piece_bytes(raster, READ_BYTES))
    cache = min(1e6 * CACHE_MB, raster.bytes_of(height, width))
    canvas = 4 * len(model.classes.names) * (window // model.stride) * -(-width // model.stride)
    image = 4 * len(raster.bands) * window * min(window, width)
    planes = 0 if options.outputs.probabilities is None else len(model.classes)
    rows = 3 * planes * GRID_ROWS_AT_ONCE * model.stride  # as measured, in bytes, and compressed
    return 2.5 * strip + cache + canvas + 1.5 * image + 36e6 + (800 + rows) * width


class RowBlock(NamedTuple):
    """Some pixel rows of a scene from ``top`` on: the cells that they are interpolated from, their rows among the
    pixels of these cells, and the valid mask.
    """

    top: int
    cells: Float[Tensor, "k _ w"]
    rows: slice
    valid: Bool[np.ndarray, "h W"]


class RollingCanvas:
    """The sums of weighted scores over some ``rows`` and ``columns`` of grid cells, and the valid mask of their pixels.

    :meth:`add` windows; :meth:`finalise` the rows of cells that no further window reaches; :meth:`shift` the canvas
    down past them. A pixel is interpolated between the centres of four cells, so the lower half of the last finalised
    row waits for the next one: after a shift, that row of cells is the canvas's first.
    """

    def __init__(self, classes: int, rows: range, columns: range, stride: int) -> None:
        self.rows, self.columns, self.stride = rows, columns, stride
        self.scores = torch.zeros(classes, len(rows), len(columns))
        # one bit a pixel, from the centre of the first row of cells on
        self._valid = np.zeros((stride * len(rows) - (stride + 1) // 2, -(-len(columns) * stride // 8)), np.uint8)

    def add(
        self,
        top: int,
        left: int,
        scores: Float[Tensor, "k h w"],
        weight: Float[Tensor, "h w"],
        valid: Bool[np.ndarray, "_ _"] | None = None,
    ) -> None:
        """Add a window whose first cell is (``top``, ``left``); cells outside the canvas are left out."""
        rows, window_rows = _common(self.rows, top, len(weight))
        columns, window_columns = _common(self.columns, left, weight.shape[1])
        self.scores[:, rows, columns] += (scores * weight)[:, window_rows, window_columns]
        if valid is not None:
            self._mark(rows.start * self.stride - (self.stride + 1) // 2, columns.start * self.stride, valid)

    def _mark(self, row: int, column: int, valid: Bool[np.ndarray, "h w"]) -> None:
        byte, shift = divmod(column, 8)
        bits = np.packbits(np.pad(valid, ((0, 0), (shift, 0))) if shift else valid, axis=1)
        self._valid[row : row + len(bits), byte : byte + bits.shape[1]] |= bits

    def finalise(self, end: int, size: tuple[int, int]) -> Iterator[RowBlock]:
        """The pixels of a scene of ``size`` that the rows of cells before ``end`` decide, a few rows at a time."""
        start, half = self.rows.start, self.stride // 2
        first, origin = (start + 1) * self.stride - half, max(0, start)
        bottom = size[0] if end * self.stride >= size[0] else end * self.stride - half
        scores = self.scores[:, origin - start : end - start]
        for row in range(0, scores.shape[1], GRID_ROWS_AT_ONCE):
            top = max(0, first, (origin + row) * self.stride)
            below = min(bottom, (origin + row + GRID_ROWS_AT_ONCE) * self.stride)
            if top < below:
                valid = np.unpackbits(self._valid[top - first : below - first], axis=1, count=size[1]).view(bool)
                above = max(0, row - 1)
                pixels = slice(top - (origin + above) * self.stride, below - (origin + above) * self.stride)
                yield RowBlock(top, scores[:, above : row + GRID_ROWS_AT_ONCE + 1], pixels, valid)

    def shift(self, count: int) -> None:
        """Move down by ``count`` rows of cells; the rows that enter are zero."""
        for row in range(count, len(self.rows)):  # one by one: they overlap
            self.scores[:, row - count] = self.scores[:, row]
        self.scores[:, len(self.rows) - count :] = 0
        half = self.stride // 2
        self._valid[:half] = self._valid[count * self.stride :][:half]
        self._valid[half:] = 0
        self.rows = range(self.rows.start + count, self.rows.stop + count)


def predict_rows(
    model: Segmenter,
    raster: Raster,
    windows: Windows,
    views: Views = Views(),
    *,
    first: int = 0,
    measures: Sequence[str] = ("confidence",),
    hooks: Hooks = NO_HOOKS,
) -> Iterator[Rows]:
    """The map's rows from top to bottom.

    ``first`` leaves out what the window rows before it finalise, to resume a map: the rows that follow are the same to
    the bit, since every sum is taken over the same windows in the same order.
    """
    vertical, horizontal = axes(raster.size, windows, model.stride)
    start = vertical.first_reaching(vertical.begins[first] - 1) if first else 0
    above = vertical.begins[start] - 1
    rows, columns = range(above, above + 1 + vertical.window), range(horizontal.cells)
    canvas = RollingCanvas(len(model.classes.names), rows, columns, model.stride)
    tops, lefts = ([begin * model.stride for begin in axis] for axis in (vertical.begins[start:], horizontal.begins))
    size = (vertical.window * model.stride, horizontal.window * model.stride)
    cuts = read_windows(raster, tops, lefts, size, at_most=READ_BYTES)
    batch = 1 if model.device.type == "cpu" else windows.batch
    for row in range(start, len(vertical.begins)):
        look_at = partial(hooks.before, row)
        for column, scores, valid in _scored(model, islice(cuts, len(lefts)), views, batch, look_at):
            weight = horizontal.weights[column] * vertical.weights[row][:, None]
            if scores is not None:
                canvas.add(vertical.begins[row], horizontal.begins[column], scores, weight, valid)
            if row >= first:
                hooks.after(1)
        end = vertical.finalised(row + 1)
        if row >= first:
            for block in canvas.finalise(end, raster.size):
                labels, measured = labels_and_measures(block.cells, model.stride, block.rows, raster.size[1], measures)
                yield Rows(row, block.top, labels, block.valid, measured)
        canvas.shift(end - vertical.begins[row])


def _scored(
    model: Segmenter,
    cuts: Iterable[Pixels],
    views: Views,
    batch: int,
    look_at: Callable[[Sequence[int], Sequence[Pixels]], None] = lambda columns, windows: None,
) -> Iterator[tuple[int, Float[Tensor, "k h w"] | None, Bool[np.ndarray, "H W"]]]:
    """Number, scores and valid mask of each window, scored ``batch`` at a time; no scores where it holds no data."""
    waiting: dict[int, Pixels] = {}

    def flushed() -> Iterator[tuple[int, Tensor, np.ndarray]]:
        if waiting:
            look_at([*waiting], [*waiting.values()])
            scores = grid_scores(model, list(waiting.values()), views)
            yield from ((number, scores[n], pixels.valid) for n, (number, pixels) in enumerate(waiting.items()))
            waiting.clear()

    for number, pixels in enumerate(cuts):
        if not pixels.valid.any():
            yield number, None, pixels.valid
            continue
        waiting[number] = pixels
        if len(waiting) == batch:
            yield from flushed()
    yield from flushed()


def _common(cells: range, begin: int, count: int) -> tuple[slice, slice]:
    """Where ``count`` cells from ``begin`` on lie among ``cells``, and where ``cells`` lie among them."""
    first, end = max(cells.start, begin), min(cells.stop, begin + count)
    return slice(first - cells.start, end - cells.start), slice(first - begin, end - begin)


def upsample(cells: Float[Tensor, "k _ _"], stride: int, rows: slice, columns: slice) -> Float[Tensor, "k h w"]:
    """Scores of pixels, given by rows and columns from the corner of the ``cells``: bilinear between their centres."""
    full = F.interpolate(cells[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    return full[:, rows, columns]


def labels_and_measures(
    cells: Float[Tensor, "k _ w"], stride: int, rows: slice, width: int, measures: Sequence[str]
) -> tuple[Integer[np.ndarray, "h W"], dict[str, Shaped[np.ndarray, "*k h W"]]]:
    """Labels and measures of the pixel ``rows`` of some cells, ``width`` pixels each; in parts from west to east."""
    size, count = (rows.stop - rows.start, width), cells.shape[2]
    labels = np.empty(size, np.uint8 if len(cells) <= 256 else np.uint16)
    measured = empty(measures, len(cells), size)
    parts = min(count, -(-cells.numel() * stride**2 // FLOATS_AT_ONCE))
    for west, east in pairwise(count * part // parts for part in range(parts + 1)):
        columns = slice(min(west * stride, width), min(east * stride, width))
        margin = stride * min(west, 1)  # pixels of the cell to the west
        inside = slice(margin, margin + columns.stop - columns.start)
        scores = upsample(cells[:, :, max(0, west - 1) : east + 1], stride, rows, inside)
        labels[:, columns] = most_likely(scores[None])[0].numpy()
        probabilities = scores.softmax(dim=0) if measured else scores
        for name, values in measured.items():
            values[..., columns] = MEASURES[name](probabilities).numpy()
    return labels, measured
