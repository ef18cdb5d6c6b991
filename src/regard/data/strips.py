"""A raster from north to south in full-width strips, whose rows are read once and ahead of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from regard.data.raster import Box, Raster

Cut = tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]


class HeldStrip(NamedTuple):
    """Rows of a raster, in memory."""

    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]

    def cut(self, left: int, width: int) -> Cut:
        """Pixels and validity of some columns."""
        return self.pixels[..., left : left + width], self.valid[:, left : left + width]


class DistantStrip:
    """Rows of a raster that stay in the file, for where they would fill the memory: only what is cut is read.

    ``valid`` is complete when every column was cut.
    """

    def __init__(self, raster: Raster, top: int, height: int, width: int) -> None:
        self.raster = raster
        self.top = top
        self.valid = np.zeros((height, width), dtype=bool)

    def cut(self, left: int, width: int) -> Cut:
        """Pixels and validity of some columns."""
        height = len(self.valid)
        pixels, valid = padded(self.raster, Box(self.top, left, height, width))
        self.valid[:, left : left + width] = valid
        return pixels, valid


Strip = HeldStrip | DistantStrip


def read_strips(
    raster: Raster, tops: Sequence[int], height: int, width: int, *, at_most: float = float("inf")
) -> Iterator[Strip]:
    """The strips of ``height`` rows that begin at ``tops``, each valid until the next one is asked for.

    Rows that two strips share are read once; while one is worked on, a thread reads what the next one adds. What lies
    beyond the raster's edge mirrors what lies before it, as data that is there. A strip above ``at_most`` bytes is not
    held: its parts are read when they are cut.

    Raises:
        UnreadableImage: a block of the file is damaged.
    """
    if raster.bytes_of(height, width) > at_most:
        yield from (DistantStrip(raster, top, height, width) for top in tops)
        return
    with ThreadPoolExecutor(1, "reader") as reader:
        fresh = reader.submit(padded, raster, Box(tops[0], 0, height, width))
        strip, end = HeldStrip(*fresh.result()), tops[0] + height
        for top, following in zip(tops, [*tops[1:], None], strict=True):
            if following is not None:
                fresh = reader.submit(padded, raster, Box(end, 0, following - top, width))
            yield strip
            if following is not None:
                _move_up(strip, fresh.result())
                end = following + height


def _move_up(strip: HeldStrip, fresh: Cut) -> None:
    """Drop a strip's first rows and append as many fresh ones, in place."""
    for held, added in zip(strip, fresh, strict=True):
        count = added.shape[-2]
        held[..., :-count, :] = held[..., count:, :]
        held[..., -count:, :] = added


def padded(raster: Raster, box: Box) -> Cut:
    """Pixels and validity of a box that may reach beyond the raster's lower and right edge, which mirror the inside."""
    rows, columns = _mirrored(box.top, box.height, raster.size[0]), _mirrored(box.left, box.width, raster.size[1])
    top, left = min(rows), min(columns)
    pixels, valid = raster.read(Box(top, left, max(rows) + 1 - top, max(columns) + 1 - left))
    if pixels.shape[1:] == (box.height, box.width) and rows[0] == top and columns[0] == left:
        return pixels, valid
    grid = np.ix_([row - top for row in rows], [column - left for column in columns])
    return pixels[:, grid[0], grid[1]], valid[grid]


def _mirrored(begin: int, count: int, length: int) -> Sequence[int]:
    """Places ``begin`` ... on an axis of ``length``; behind its end the places before it, backwards and on and on."""
    if begin + count <= length:
        return range(begin, begin + count)
    places = np.arange(begin, begin + count) % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places).tolist()
