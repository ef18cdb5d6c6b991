"""A raster window by window from north to south, read ahead of time in pieces of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Shaped

from regard.io.raster import Box, Raster

CACHE_MB = 32
os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))  # else GDAL keeps a twentieth of the machine's memory
Cut = tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]
ROWS_AT_ONCE = 512e6  # bytes that a piece may take where a file has full-width blocks, which its parts would all decode


def read_windows(
    raster: Raster, tops: Sequence[int], lefts: Sequence[int], size: tuple[int, int], *, at_most: float
) -> Iterator[Cut]:
    """Pixels and validity of the windows of ``size`` at ``tops`` x ``lefts``, row by row, each from left to right.

    Neighbours are read together, as pieces of ``at_most`` bytes or of one window; while one piece is worked on, a
    thread reads the next. What lies beyond the raster's edge mirrors what lies before it, as data that is there.

    Raises:
        UnreadableImage: a block of the file is damaged.
    """
    height, width = size
    groups = list(_neighbours(lefts, width, piece_bytes(raster, at_most) / raster.bytes_of(height, 1)))
    pieces = [(group, Box(top, group[0], height, group[-1] - group[0] + width)) for top in tops for group in groups]
    with ThreadPoolExecutor(1, "reader") as reader:
        coming = reader.submit(padded, raster, pieces[0][1])
        for (group, box), following in zip(pieces, [*pieces[1:], None], strict=True):
            pixels, valid = coming.result()
            if following is not None:
                coming = reader.submit(padded, raster, following[1])
            for left in group:
                columns = slice(left - box.left, left - box.left + width)
                yield pixels[..., columns], valid[:, columns]


def piece_bytes(raster: Raster, at_most: float) -> float:
    """How large a piece may be: larger where the file's blocks are as wide as it is, which each piece decodes whole."""
    return max(at_most, ROWS_AT_ONCE) if raster.dataset.block_shapes[0][1] >= raster.size[1] else at_most


def _neighbours(lefts: Sequence[int], width: int, at_most: float) -> Iterator[list[int]]:
    """Windows that begin at ``lefts`` in groups that cover up to ``at_most`` columns."""
    group = [lefts[0]]
    for left in lefts[1:]:
        if left + width - group[0] > at_most:
            yield group
            group = []
        group.append(left)
    yield group


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
