"""Where tiles lie in a scene: web mercator for scenes with a place on Earth, their own pixels for all others."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from regard.io.raster import Box, apply

SIDE = 256  # pixels of a tile
HALF_EARTH = 20037508.342789244  # metres: web mercator goes from minus to plus this
FINEST = 24
Extent = tuple[float, float, float, float]  # left, top, right, bottom on the map


class Address(NamedTuple):
    """A tile: its zoom, its column from the west (left), its row from the north (top)."""

    z: int
    x: int
    y: int


class Places(NamedTuple):
    """Scene pixels, as fractions: (0, 0) is the top left corner of the first one; infinite where there is none."""

    columns: Float[np.ndarray, "h w"]
    rows: Float[np.ndarray, "h w"]

    def within(self, box: Box) -> tuple[Bool[np.ndarray, "h w"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Which of them lie in a box of the scene, and the rows and columns of these, counted from the box's corner."""
        columns, rows = self.columns - box.left, self.rows - box.top
        inside = (columns >= 0) & (columns < box.width) & (rows >= 0) & (rows < box.height)
        return inside, np.floor(rows[inside]).astype(int), np.floor(columns[inside]).astype(int)


class Zooms:
    """The zooms of a grid; each coarser one shows twice as many scene pixels a side."""

    coarsest = 0
    finest: int

    def step(self, z: int) -> float:
        """How many scene pixels a tile's pixel is wide (about, in web mercator)."""
        return 2.0 ** (self.finest - z)


class PixelGrid(Zooms):
    """The scene's own pixels: one for each pixel of a tile at the finest zoom."""

    kind = "pixels"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.finest = max(0, math.ceil(math.log2(max(size) / SIDE)))

    def extent(self, tile: Address) -> Extent:
        side = SIDE * self.step(tile.z)
        return tile.x * side, tile.y * side, (tile.x + 1) * side, (tile.y + 1) * side

    def places(self, extent: Extent, shape: tuple[int, int] = (SIDE, SIDE)) -> Places:
        """The scene pixel under each pixel of a picture that shows ``extent`` of the map."""
        return Places(*np.meshgrid(*_centres(extent, shape)))

    def around(self, box: Box) -> Extent:
        """The extent on the map of a box of the scene."""
        return float(box.left), float(box.top), float(box.left + box.width), float(box.top + box.height)


class MercatorGrid(Zooms):
    """The tiles of web maps (XYZ, EPSG:3857)."""

    kind = "earth"

    def __init__(self, size: tuple[int, int], crs: Any, transform: Any) -> None:
        self.size, self.transform, self.inverse = size, transform, ~transform
        own = CRS.from_wkt(crs.to_wkt())
        self.from_map = Transformer.from_crs("EPSG:3857", own, always_xy=True)
        self.to_map = Transformer.from_crs(own, "EPSG:3857", always_xy=True)
        x, y = self._on_map(np.array([0.0, 1.0, 0.0]) + size[1] / 2, np.array([0.0, 0.0, 1.0]) + size[0] / 2)
        metres = math.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))
        zoom = math.log2(2 * HALF_EARTH / SIDE / metres)  # ValueError where the scene has no place on the map
        self.finest = min(FINEST, max(0, round(zoom)))
        self.coarsest = max(0, self.finest - math.ceil(math.log2(max(1, max(size) / SIDE))) - 1)

    def extent(self, tile: Address) -> Extent:
        """Left, top, right, bottom in metres of web mercator."""
        side = 2 * HALF_EARTH / 2**tile.z
        left, top = tile.x * side - HALF_EARTH, HALF_EARTH - tile.y * side
        return left, top, left + side, top - side

    def places(self, extent: Extent, shape: tuple[int, int] = (SIDE, SIDE)) -> Places:
        x, y = self.from_map.transform(*np.meshgrid(*_centres(extent, shape)))
        return Places(*apply(self.inverse, x, y))

    def around(self, box: Box) -> Extent:
        along, start = np.linspace(0, 1, 33), np.zeros(33)
        edge = np.concatenate([along, along, start, start + 1])
        other = np.concatenate([start, start + 1, along, along])
        x, y = self._on_map(box.left + edge * box.width, box.top + other * box.height)
        x, y = x[np.isfinite(x)], y[np.isfinite(y)].clip(-HALF_EARTH, HALF_EARTH)
        return float(x.min()), float(y.max()), float(x.max()), float(y.min())

    def _on_map(self, columns: Any, rows: Any) -> tuple[Any, Any]:
        return self.to_map.transform(*apply(self.transform, columns, rows))


Grid = PixelGrid | MercatorGrid


def grid_of(size: tuple[int, int], crs: Any, transform: Any) -> Grid:
    """The grid of a scene; its own pixels too where its coordinates lead to no place on Earth."""
    if crs is None or transform.is_identity:
        return PixelGrid(size)
    try:
        return MercatorGrid(size, crs, transform)
    except (ProjError, ValueError, OverflowError):
        return PixelGrid(size)


def _centres(extent: Extent, shape: tuple[int, int]) -> tuple[Float[np.ndarray, " w"], Float[np.ndarray, " h"]]:
    left, top, right, bottom = extent
    across, down = (np.arange(shape[1]) + 0.5) / shape[1], (np.arange(shape[0]) + 0.5) / shape[0]
    return left + across * (right - left), top + down * (bottom - top)
