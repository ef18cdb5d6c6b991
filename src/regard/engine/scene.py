"""A scene of any height, window by window: blended scores leave as rows, from north to south.

The windows' places depend on the scene's size alone. Scores are blended on the network's own grid (``stride`` pixels a
cell), where they are ``stride²`` times fewer, and then brought to full size once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from regard.data.augment import prepare
from regard.data.raster import Box, Raster
from regard.engine.infer import class_scores, scaling_of
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.ops.windows import blend_weights, starts

ALIGNMENT = 32  # pixels: windows and overlaps are multiples of it, and so of every network's stride
GRID_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Tiling:
    """Windows of ``tile`` pixels that share ``overlap`` pixels, ``batch`` at a time, at ``scales`` and ``flip``."""

    tile: int = 1024
    overlap: int = 256
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch: int = 2

    def checked(self) -> Tiling:
        """Itself.

        Raises:
            ConfigError: a length that is no multiple of 32, or an overlap above half a tile.
        """
        if self.tile < ALIGNMENT or self.tile % ALIGNMENT or self.overlap % ALIGNMENT or self.overlap < 0:
            raise ConfigError(
                f"tile {self.tile} and overlap {self.overlap} must be multiples of {ALIGNMENT}. Take 1024 and 256."
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


def plan_axis(length: int, tiling: Tiling, stride: int) -> Axis:
    """The windows over ``length`` pixels; a scene smaller than a tile gets one window of its own size."""
    cells = -(-length // stride)
    window = min(tiling.tile, -(-length // ALIGNMENT) * ALIGNMENT) // stride
    step = window - tiling.overlap // stride if window * stride == tiling.tile else window
    begins = starts(cells, window, step)
    return Axis(begins, window, blend_weights(begins, window, tiling.overlap // stride, cells), max(cells, window))


class Rows(NamedTuple):
    """Finished rows of the map from ``top`` on."""

    top: int
    labels: Int[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]


def count_windows(size: tuple[int, int], tiling: Tiling, stride: int) -> int:
    """How many windows a scene of this size has."""
    return len(plan_axis(size[0], tiling, stride).begins) * len(plan_axis(size[1], tiling, stride).begins)


def predict_rows(model: Segmenter, raster: Raster, tiling: Tiling) -> Iterator[Rows | int]:
    """The map's rows from top to bottom, and in between the number of windows just done (for a progress bar)."""
    vertical, horizontal = (plan_axis(length, tiling, model.stride) for length in raster.size)
    held: Float[Tensor, "k _ w"] | None = None
    canvas = torch.zeros(len(model.classes), vertical.window, horizontal.cells)
    done = 0
    for row, begin in enumerate(vertical.begins):
        for window_scores, left, weight in _row_of_windows(model, raster, tiling, begin, horizontal):
            canvas[:, :, left : left + horizontal.window] += window_scores * weight * vertical.weights[row][:, None]
            yield 1
        last = row + 1 == len(vertical.begins)
        finished = vertical.window if last else vertical.begins[row + 1] - begin
        ready = canvas[:, :finished] if held is None else torch.cat([held, canvas[:, :finished]], dim=1)
        origin = begin - (0 if held is None else held.shape[1])
        for rows in _paint(ready, origin, done, raster, model.stride, last):
            done = rows.top + len(rows.labels)
            yield rows
        held = ready[:, -1:]
        canvas = F.pad(canvas[:, finished:], (0, 0, 0, finished))


def _row_of_windows(
    model: Segmenter, raster: Raster, tiling: Tiling, begin: int, horizontal: Axis
) -> Iterator[tuple[Float[Tensor, "k h w"], int, Float[Tensor, "w"]]]:
    """Scores of the windows of one row, left to right, with their place and weights."""
    side = tiling.tile if tiling.tile <= raster.size[0] else -(-raster.size[0] // ALIGNMENT) * ALIGNMENT
    pixels, valid = read_padded(raster, begin * model.stride, side, horizontal.cells * model.stride)
    places = list(zip(horizontal.begins, horizontal.weights, strict=True))
    width = horizontal.window * model.stride
    for first in range(0, len(places), tiling.batch):
        group = places[first : first + tiling.batch]
        cuts = [np.s_[..., left * model.stride : left * model.stride + width] for left, _ in group]
        images = [prepare(pixels[cut], valid[cut], scaling_of(model)) for cut in cuts]
        if any(valid[cut].any() for cut in cuts):
            scores = grid_scores(model, torch.stack(images), tiling.scales, tiling.flip)
        else:
            scores = torch.zeros(len(group), len(model.classes), side // model.stride, horizontal.window)
        for (left, weight), window_scores in zip(group, scores, strict=True):
            yield window_scores, left, weight


def read_padded(
    raster: Raster, top: int, height: int, width: int
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
    """Full-width rows; what lies beyond the raster's edge mirrors what lies before it, as data that is there."""
    inside = Box(top, 0, min(height, raster.size[0] - top), min(width, raster.size[1]))
    pixels, valid = raster.read(inside)
    missing = ((0, height - inside.height), (0, width - inside.width))
    return np.pad(pixels, ((0, 0), *missing), mode="symmetric"), np.pad(valid, missing, mode="symmetric")


@torch.inference_mode()
def grid_scores(
    model: Segmenter, images: Float[Tensor, "b c h w"], scales: Sequence[float], flip: bool
) -> Float[Tensor, "b k _ _"]:
    """Class scores at the centres of cells of ``stride`` pixels; the network's own logits where its grid is that."""
    images = images.to(next(model.parameters()).device)
    if tuple(scales) == (1.0,) and not flip and not model.config.align_corners:
        return model.logits(images)["main"].float().cpu()
    scores = class_scores(model, images, scales=scales, flip=flip)
    cells = [length // model.stride for length in images.shape[-2:]]
    return F.interpolate(scores, cells, mode="bilinear", align_corners=False).cpu()


def _paint(
    scores: Float[Tensor, "k r c"], origin: int, done: int, raster: Raster, stride: int, last: bool
) -> Iterator[Rows]:
    """Labels of the pixel rows that grid rows ``origin`` on settle: all but the lower half of the last one."""
    height, width = raster.size
    count = scores.shape[1]
    bottom = height if last else (origin + count) * stride - stride // 2
    for first in range(0, count, GRID_ROWS_AT_ONCE):
        above, below = max(0, first - 1), min(count, first + GRID_ROWS_AT_ONCE + 1)
        top = max(done, (origin + first) * stride)
        end = min(bottom, (origin + first + GRID_ROWS_AT_ONCE) * stride)
        if top >= end:
            continue
        size = ((below - above) * stride, scores.shape[2] * stride)
        full = F.interpolate(scores[None, :, above:below], size, mode="bilinear", align_corners=False)[0]
        skipped = (origin + above) * stride
        part = full[:, top - skipped : end - skipped, :width]
        best, labels = part.max(dim=0)
        confidence = 1 / (part - best).exp().sum(dim=0)
        _, valid = raster.read(Box(top, 0, end - top, width))
        yield Rows(top, labels.numpy(), confidence.numpy(), valid)
