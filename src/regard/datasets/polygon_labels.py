"""Labels that are polygons, drawn window by window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import rasterio.features
import shapely
from jaxtyping import Bool, Int
from rasterio.transform import Affine

from regard.io.raster import Box


@dataclass(frozen=True, eq=False)
class Drawn:
    """Polygons over one scene in its pixels (x right, y down) with their labels; where two overlap the later holds.

    A pixel gets a label by its centre; with ``touched`` by any part of it.
    """

    shapes: np.ndarray
    labels: Int[np.ndarray, " n"]
    touched: bool = False

    def within(self, box: Box) -> Bool[np.ndarray, " n"]:
        """Which polygons may reach into a box, by their bounds."""
        west, north, east, south = shapely.bounds(self.shapes).T
        right, bottom = box.left + box.width, box.top + box.height
        return (west < right) & (east > box.left) & (north < bottom) & (south > box.top)

    def draw(self, box: Box, ignore_index: int) -> Int[np.ndarray, "h w"]:
        """The label of each pixel; the ignore index where no polygon is."""
        near = self.within(box)
        drawn = np.full((box.height, box.width), ignore_index, dtype=np.int32)
        if near.any():
            burn = zip(self.shapes[near], self.labels[near].tolist(), strict=True)
            place = Affine.translation(box.left, box.top)
            rasterio.features.rasterize(burn, out=drawn, transform=place, all_touched=self.touched)
        return drawn.astype(np.int64)

    def of(self, chosen: Bool[np.ndarray, " n"]) -> Drawn:
        """Some of them."""
        return replace(self, shapes=self.shapes[chosen], labels=self.labels[chosen])
