"""Splits by blocks of ground: which are for validation, and the ground or the polygons of each split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int

from regard.datasets.labelled_data import PolygonLabels
from regard.errors import DatasetError
from regard.io.extent import Grid, PolygonExtent, scaled
from regard.io.gdal import rasterise
from regard.io.raster import Box

BLOCKS = 8  # along the longer side of a scene
MOST = 20_000  # blocks
COARSE = 2048  # pixels of a scene's longer side at which the ground of the classes is counted


def block_side(size: tuple[int, int], block: int | None) -> int:
    """The side of the blocks in pixels of a scene: as given, or an eighth of the longer side."""
    return block or max(1, max(size) // BLOCKS)


def split_by_centres(
    shapes: np.ndarray, labels: Int[np.ndarray, " n"], side: int, share: float
) -> Bool[np.ndarray, " n"]:
    """Which polygons are for val: all whose centres lie in one block are in one split."""
    blocks = shapely.get_coordinates(shapely.centroid(shapes)) // side
    block = np.unique(blocks, axis=0, return_inverse=True)[1].ravel()
    area = np.zeros((block.max() + 1, labels.max() + 1))
    np.add.at(area, (block, labels), shapely.area(shapes))
    return blocks_for_val(area, share)[block]


def split_by_ground(
    scenes: Sequence[tuple[Grid, PolygonLabels]], side: int, share: float, classes: int
) -> list[dict[str, PolygonExtent]]:
    """The ground of train and of val on each scene: each pixel is in the split of its block of the first's grid."""
    first = scenes[0][0]
    boxes = blocks_over([grid for grid, _ in scenes], side)
    placed, area = [first.moved(boxes, grid) for grid, _ in scenes], np.zeros((len(boxes), classes))
    for (grid, polygons), blocks in zip(scenes, placed, strict=True):
        factor, whole = coarse(grid.size)
        labels = polygons.coarser(factor).draw(whole, -1)
        block = rasterise(scaled(blocks, factor), np.arange(len(blocks)), whole, fill=-1)
        known = (labels >= 0) & (labels < classes) & (block >= 0)
        counts = np.bincount(block[known] * classes + labels[known], minlength=area.size).reshape(area.shape)
        area += counts * (factor**2 * side**2 / shapely.area(blocks).mean())
    val, labelled = np.zeros(len(boxes), bool), area.any(axis=1)
    val[labelled] = blocks_for_val(area[labelled], share)
    return [{"train": PolygonExtent(blocks[~val]), "val": PolygonExtent(blocks[val])} for blocks in placed]


def coarse(size: tuple[int, int]) -> tuple[float, Box]:
    """A grid of at most ``COARSE`` pixels over a scene: how many times its pixels are wider, and all of it."""
    factor = max(1.0, max(size) / COARSE)
    return factor, Box(0, 0, *(math.ceil(length / factor) for length in size))


def blocks_over(grids: Sequence[Grid], side: int) -> np.ndarray:
    """Squares of ``side`` pixels of the first grid that cover all of them."""
    reach = []
    for grid in grids:
        outline = shapely.segmentize(shapely.box(0, 0, *grid.size[::-1]), max(grid.size) / 64)
        bounds = np.array(shapely.total_bounds(grid.moved(np.array([outline]), grids[0])))
        if not np.isfinite(bounds).all():
            raise DatasetError("a scene has no place in the CRS of the first. Describe it in a file of its own.")
        reach.append(np.array([*bounds[:2] // side, *-(-bounds[2:] // side)], dtype=int))
    count = sum((east - west) * (south - north) for west, north, east, south in reach)
    if count > MOST:
        least = math.ceil(side * math.sqrt(count / MOST))
        raise DatasetError(f"block {side} makes {count:,} blocks, above {MOST:,}. Use block {least} or more.")
    cells = [np.mgrid[west:east, north:south].reshape(2, -1).T for west, north, east, south in reach]
    x, y = np.unique(np.concatenate(cells), axis=0).T * side
    return shapely.segmentize(shapely.box(x, y, x + side, y + side), side if len(grids) == 1 else side / 8)


def blocks_for_val(area: Float[np.ndarray, "m k"], share: float) -> Bool[np.ndarray, " m"]:
    """Which blocks go to val: ``share`` of each class's area or little more, the classes of fewest blocks first.

    A block is not taken if a class of it would be left with none to train on.
    """
    taken, total = np.zeros(len(area), dtype=bool), area.sum(axis=0)
    for label in np.argsort((area > 0).sum(axis=0), kind="stable"):
        while area[taken, label].sum() < share * total[label]:
            rest = area[~taken].sum(axis=0) - area  # what would be left
            free = np.flatnonzero(~taken & (area[:, label] > 0) & ((rest > 1e-9 * total) | (area == 0)).all(axis=1))
            if not free.size:
                break
            got = area[taken].sum(axis=0) + area[free]
            off = np.abs(got / np.maximum(total, 1e-9) - share).sum(axis=1)
            taken[free[off.argmin()]] = True
    return taken
