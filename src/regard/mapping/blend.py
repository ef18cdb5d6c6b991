"""A scene of any height, window by window: blended scores leave as rows, from north to south.

The windows' places depend on the scene's size alone. Scores are blended on the network's own grid (``stride`` pixels a
cell), where they are ``stride²`` times fewer, and then brought to full size once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from regard.errors import ConfigError
from regard.inference.views import class_scores, scaling_of
from regard.io.gdal import CACHE_MB
from regard.io.raster import Raster
from regard.io.window_reader import Cut, piece_bytes, read_windows
from regard.mapping.upsample import Painter, Rows
from regard.models import Segmenter
from regard.ops.normalise import prepare
from regard.ops.windows import blend_weights, starts

ALIGNMENT = 32  # pixels: windows and overlaps are multiples of it, and so of every network's stride


@dataclass(frozen=True)
class Tiling:
    """Windows of ``tile`` pixels that share ``overlap`` pixels, seen at ``scales`` and, with ``flip``, mirrored too, or
    with ``d4`` mirrored and turned in all eight ways.

    ``batch`` windows at a time go to a GPU; a CPU takes them one by one, which is as fast and keeps the result the same
    to the bit. ``strip_bytes``: what is read at once; twice as much is held.
    """

    tile: int = 1024
    overlap: int = 256
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch: int = 2
    strip_bytes: float = 16e6
    d4: bool = False

    @classmethod
    def of(cls, *, scales: Sequence[float] = (1.0,), **view: Any) -> Tiling:
        """The same from any sequence of scales, checked.

        Raises:
            ConfigError: see :meth:`checked`.
        """
        return cls(scales=tuple(scales), **view).checked()

    @property
    def views(self) -> dict[str, Any]:
        """How each window is looked at, as :func:`class_scores` takes it."""
        return {"scales": self.scales, "flip": self.flip, "d4": self.d4}

    def checked(self) -> Tiling:
        """Itself.

        Raises:
            ConfigError: a length that is no multiple of 32, or an overlap above half a tile.
        """
        if self.tile < ALIGNMENT or self.tile % ALIGNMENT or self.overlap % ALIGNMENT or self.overlap < 0:
            raise ConfigError(
                f"tile {self.tile} and overlap {self.overlap} must be multiples of {ALIGNMENT}, not below 0. "
                "Take 1024 and 256."
            )
        if self.overlap > self.tile // 2:
            raise ConfigError(
                f"overlap {self.overlap} is more than half of tile {self.tile}. Take at most {self.tile // 2}."
            )
        if self.batch < 1 or not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"batch {self.batch} and scales {self.scales} must be above 0.")
        return self


class Axis(NamedTuple):
    """Windows along one axis, in cells: where each begins, how long it is, and its blending weights."""

    begins: list[int]
    window: int
    weights: list[Float[Tensor, "w"]]
    cells: int

    def settled(self, row: int) -> int:
        """Cells in front of it are reached by no window from ``row`` on."""
        return self.begins[row] if row < len(self.begins) else self.cells

    def first_that_reaches(self, cell: int) -> int:
        """The first window that covers ``cell``."""
        return next(row for row, begin in enumerate(self.begins) if begin + self.window > cell)


def plan_axis(length: int, tiling: Tiling, stride: int) -> Axis:
    """The windows over ``length`` pixels; a scene smaller than a tile gets one window of its own size."""
    cells = -(-length // stride)
    window = min(tiling.tile, -(-length // ALIGNMENT) * ALIGNMENT) // stride
    step = window - tiling.overlap // stride if window * stride == tiling.tile else window
    begins = starts(cells, window, step)
    return Axis(begins, window, blend_weights(begins, window, tiling.overlap // stride, cells), max(cells, window))


def window_rows(size: tuple[int, int], tiling: Tiling, stride: int) -> int:
    """How many rows of windows a scene of this size has: the steps in which its map can be made."""
    return len(plan_axis(size[0], tiling, stride).begins)


def count_windows(size: tuple[int, int], tiling: Tiling, stride: int) -> int:
    """How many windows a scene of this size has."""
    return window_rows(size, tiling, stride) * len(plan_axis(size[1], tiling, stride).begins)


def memory_beside(model: Segmenter, raster: Raster, tiling: Tiling) -> float:
    """About how many bytes a map takes beside the model; the last two terms fit the peaks in docs/performance.md."""
    height, width = raster.size
    window = min(tiling.tile, -(-height // ALIGNMENT) * ALIGNMENT)
    strip = min(raster.bytes_of(window, width), piece_bytes(raster, tiling.strip_bytes))
    cache = min(1e6 * CACHE_MB, raster.bytes_of(height, width))
    canvas = 4 * len(model.classes) * (window // model.stride) * -(-width // model.stride)
    image = 4 * len(raster.bands) * window * min(window, width)
    return 2.5 * strip + cache + canvas + 1.5 * image + 36e6 + 800 * width


def _nothing(count: int) -> None:
    """Ask for no news."""


def predict_rows(
    model: Segmenter,
    raster: Raster,
    tiling: Tiling,
    *,
    first: int = 0,
    measures: Sequence[str] = ("confidence",),
    advance: Callable[[int], None] = _nothing,
) -> Iterator[Rows]:
    """The map's rows from top to bottom; ``advance`` is told of every window that is done.

    ``first`` leaves out what the window rows before it settle, to go on with a map: the rows that follow are the same
    to the bit, since every sum is taken over the same windows in the same order.
    """
    vertical, horizontal = (plan_axis(length, tiling, model.stride) for length in raster.size)
    start = vertical.first_that_reaches(vertical.begins[first] - 1) if first else 0
    painter = Painter(raster.size, model.stride, measures)
    tops, lefts = (
        [begin * model.stride for begin in begins] for begins in (vertical.begins[start:], horizontal.begins)
    )
    size = vertical.window * model.stride, horizontal.window * model.stride
    windows = read_windows(raster, tops, lefts, size, at_most=tiling.strip_bytes)
    # a row of windows, below the last row of cells before it that is settled and the pixels that wait; a bit a pixel
    canvas = torch.zeros(len(model.classes), 1 + vertical.window, horizontal.cells)
    there = np.zeros((painter.half + size[0], -(-horizontal.cells * model.stride // 8)), dtype=np.uint8)
    for row in range(start, len(vertical.begins)):
        for scores, left, weight in _windows(model, windows, tiling, horizontal, there[painter.half :]):
            canvas[:, 1:, left : left + horizontal.window] += scores * (weight * vertical.weights[row][:, None])
            if row >= first:
                advance(1)
        begin, end = vertical.begins[row], vertical.settled(row + 1)
        if row >= first:
            yield from painter.rows(row, range(begin, end), canvas, there)
        for place, cell in enumerate(range(end - begin, len(canvas[0]))):
            canvas[:, place] = canvas[:, cell]
        canvas[:, len(canvas[0]) - (end - begin) :] = 0
        there[: painter.half] = there[(end - begin) * model.stride :][: painter.half]
        there[painter.half :] = 0


def _windows(
    model: Segmenter, windows: Iterator[Cut], tiling: Tiling, horizontal: Axis, there: UInt8[np.ndarray, "_ _"]
) -> Iterator[tuple[Float[Tensor, "k h w"], int, Float[Tensor, "w"]]]:
    """Scores of the next row of windows, left to right, with their place and weights; none where there is no data.

    Which pixels hold data is noted in the bits of ``there``.
    """
    at_once = 1 if next(model.parameters()).device.type == "cpu" else tiling.batch
    images: list[Tensor] = []
    shares: list[tuple[int, Float[Tensor, "w"]]] = []
    places = zip(horizontal.begins, horizontal.weights, windows)  # noqa: B905  (windows go on with the next row)
    for number, (left, weight, (pixels, valid)) in enumerate(places, 1):
        byte, shift = divmod(left * model.stride, 8)
        bits = np.packbits(np.pad(valid, ((0, 0), (shift, 0))) if shift else valid, axis=1)
        there[:, byte : byte + bits.shape[1]] |= bits
        if valid.any():
            images.append(prepare(pixels, valid, scaling_of(model)))
            shares.append((left, weight))
        else:
            yield torch.zeros(len(model.classes), 1, 1), left, weight
        if images and (len(images) == at_once or number == len(horizontal.begins)):
            seen = grid_scores(model, images.pop()[None] if len(images) == 1 else torch.stack(images), tiling)
            yield from ((scores, *share) for share, scores in zip(shares, seen, strict=True))
            images, shares = [], []


@torch.inference_mode()
def grid_scores(model: Segmenter, images: Float[Tensor, "b c h w"], tiling: Tiling) -> Float[Tensor, "b k _ _"]:
    """Class scores at the centres of cells of ``stride`` pixels; the network's own logits where its grid is that."""
    images = images.to(next(model.parameters()).device)
    if tiling.views == Tiling().views and not model.config.align_corners:
        return model.logits(images)["main"].float().cpu()
    scores = class_scores(model, images, **tiling.views)
    cells = [length // model.stride for length in images.shape[-2:]]
    return F.interpolate(scores, cells, mode="bilinear", align_corners=False).cpu()
