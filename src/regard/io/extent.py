"""What was labelled of a scene: the ground of polygons, or the pixels with data of a raster on any grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
import shapely
from jaxtyping import Bool
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from regard.errors import ConfigError
from regard.io.gdal import rasterise, refusing
from regard.io.raster import Box, Raster, open_raster, to_map


class Grid(NamedTuple):
    """The pixels of a scene: its CRS, the affine transform from pixels (column, row) to it, its height and width."""

    crs: Any
    transform: Affine
    size: tuple[int, int]

    @classmethod
    def of(cls, raster: Raster) -> Grid:
        """The grid of an open raster."""
        return cls(raster.crs, raster.transform, raster.size)

    def placed(self, shapes: np.ndarray, crs: Any) -> np.ndarray:
        """Shapes of a CRS in this grid's pixels (x right, y down); those that have no place in its CRS are empty.

        Raises:
            ConfigError: one of the two CRSs is local, so nothing leads to the other.
        """
        source, target = (pyproj.CRS.from_user_input(system) for system in (crs, self.crs))
        if not source.equals(target, ignore_axis_order=True):
            try:
                change = pyproj.Transformer.from_crs(source, target, always_xy=True)
            except pyproj.exceptions.ProjError:
                names = f"the polygons' CRS, {source.name}, to the scene's, {target.name}"
                raise ConfigError(f"nothing leads from {names}. Give both a CRS on Earth, or the same.") from None
            shapes = shapely.transform(shapes, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1))
            shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1)] = shapely.Polygon()
        return shapely.transform(shapes, lambda xy: to_map(xy, ~self.transform))

    def moved(self, shapes: np.ndarray, target: Grid) -> np.ndarray:
        """Shapes in this grid's pixels in those of another."""
        if self[:2] == target[:2]:
            return shapes
        return target.placed(shapely.transform(shapes, lambda xy: to_map(xy, self.transform)), self.crs)


@dataclass(frozen=True, eq=False)
class PolygonExtent:
    """The pixels of a scene whose centres lie in polygons, given in its pixels (x right, y down)."""

    shapes: np.ndarray

    def within(self, box: Box) -> PolygonExtent:
        """The polygons that may reach into a box, by their bounds."""
        return PolygonExtent(self.shapes[reaching(self.shapes, box)])

    def coarser(self, factor: float) -> PolygonExtent:
        """The same on a grid of pixels ``factor`` times as wide and high."""
        return PolygonExtent(scaled(self.shapes, factor))

    def covers(self, box: Box) -> Bool[np.ndarray, "h w"]:
        """Which pixels of a box were labelled."""
        near = self.within(box).shapes
        return rasterise(near, np.ones(len(near), int), box, fill=0) == 1


@dataclass(frozen=True, eq=False)
class RasterExtent:
    """The pixels of a scene's grid that have data in another raster: in its pixel that is nearest."""

    path: Path
    grid: Grid

    @classmethod
    def of(cls, path: Path, scene: Raster) -> RasterExtent:
        """The extent on the grid of a scene.

        Raises:
            UnreadableImage: the raster cannot be read.
            ConfigError: it says of no pixel that it has no data, or has no CRS.
        """
        with open_raster(path) as raster:
            if not raster.missing_data:
                advice = f"gdal_edit.py -a_nodata 255 {path.name}"
                raise ConfigError(f"{path.name} says of no pixel that it is unlabelled. Say by which value: {advice}.")
            if raster.crs is None or scene.crs is None:
                bare = path.name if raster.crs is None else scene.source.name
                raise ConfigError(f"{bare} has no CRS, so the two do not meet. Give it its own: gdal_edit.py -a_srs.")
        return cls(path, Grid.of(scene))

    def within(self, _: Box) -> RasterExtent:
        """All of it: a box is read when it is needed."""
        return self

    def coarser(self, factor: float) -> RasterExtent:
        """The same on a grid of pixels ``factor`` times as wide and high."""
        return replace(self, grid=self.grid._replace(transform=self.grid.transform @ Affine.scale(factor)))

    def covers(self, box: Box) -> Bool[np.ndarray, "h w"]:
        """Which pixels of a box were labelled."""
        place = self.grid.transform @ Affine.translation(box.left, box.top)
        with open_raster(self.path) as raster, refusing(raster.source, "its data mask"):
            warped = WarpedVRT(
                raster._dataset, crs=self.grid.crs, transform=place, height=box.height, width=box.width,
                resampling=Resampling.nearest, add_alpha=not {"nodata", "alpha"} & {*raster.missing_data},
            )  # fmt: skip
            with Raster(raster.source, warped, (1,)) as view:
                return view.valid(Box(0, 0, box.height, box.width))


Extent = PolygonExtent | RasterExtent


def reaching(shapes: np.ndarray, box: Box) -> Bool[np.ndarray, " n"]:
    """Which shapes in pixels may reach into a box, by their bounds."""
    west, north, east, south = shapely.bounds(shapes).T
    right, bottom = box.left + box.width, box.top + box.height
    return (west < right) & (east > box.left) & (north < bottom) & (south > box.top)


def scaled(shapes: np.ndarray, factor: float) -> np.ndarray:
    """Shapes in pixels, on a grid of pixels ``factor`` times as wide and high."""
    return shapely.transform(shapes, lambda xy: xy / factor)
