"""What the pixels of a raster measure on the ground: areas and lengths on the ellipsoid, whatever the projection."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyproj
from jaxtyping import Float
from pyproj.crs import GeocentricCRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from regard.errors import BandMismatch, ConfigError
from regard.io.gdal import refusing
from regard.io.raster import Box, Raster, apply

STEP = 100.0  # metres of the difference quotients
SPACING = 25_000.0  # metres between the points at which a projection's scale is computed; linear between them to 1e-5


class Ground:
    """The size of pixels on the ellipsoid, from a CRS and a transform (column, row) -> (x, y).

    A map coordinate is taken to its place in space (geocentric x, y, z in metres); derivatives by column and row are
    the two sides of a pixel, and their cross product is its area. This holds for every projection, at the poles and
    across the antimeridian. A geographic CRS has the exact area between parallels.
    """

    def __init__(self, crs: Any, transform: Affine) -> None:
        self.transform = transform
        self._unit: float = crs.axis_info[0].unit_conversion_factor  # metres or radians
        self._ellipsoid = crs.get_geod()
        self._is_geographic = crs.is_geographic and not crs.is_derived
        self._metres = self._unit * (self._ellipsoid.a if crs.is_geographic else 1)  # nominal, of one map unit
        self._to_space = pyproj.Transformer.from_crs(crs, GeocentricCRS(datum=crs.geodetic_crs.datum), always_xy=True)

    @classmethod
    def of(cls, crs: Any, transform: Affine) -> Ground | None:
        """The ground of a raster; None without a CRS, or with one that has no place on Earth (local, engineering)."""
        if crs is None:
            return None
        system = pyproj.CRS.from_wkt(crs.to_wkt()).to_2d()
        if system.source_crs is not None and system.is_bound:
            system = system.source_crs
        return cls(system, transform) if system.is_projected or system.is_geographic else None

    def pixel_areas(self, box: Box) -> Float[np.ndarray, "h w"]:
        """The area in m² of every pixel of a box, read-only; each number takes 8 bytes."""
        if self._is_geographic:
            return self._between_parallels(box)
        a, b, _, d, e, _ = self.transform[:6]
        rows = _points(box.top, box.height, math.hypot(b, e) * self._metres)
        columns = _points(box.left, box.width, math.hypot(a, d) * self._metres)
        sides = self._pixel_sides(*np.meshgrid(columns, rows))
        areas = np.nan_to_num(np.linalg.norm(np.cross(*sides), axis=-1), posinf=0.0)  # 0 beyond the edge of the Earth
        return _linear(_linear(areas, box.height).T, box.width).T

    def _pixel_sides(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One pixel to the right and one down, in metres of space (last axis: x, y, z), at some places."""
        x, y = apply(self.transform, columns, rows)
        step, still = STEP / self._metres, np.zeros_like(x)
        xs, ys = np.stack([x - step, x + step, x, x]), np.stack([y, y, y - step, y + step])
        west, east, south, north = np.stack(self._to_space.transform(xs, ys, np.stack([still] * 4)), axis=-1)
        a, b, _, d, e, _ = self.transform[:6]
        with np.errstate(invalid="ignore"):  # infinite where the Earth ends
            by_x, by_y = (east - west) / (2 * step), (north - south) / (2 * step)
            return a * by_x + d * by_y, b * by_x + e * by_y

    def _between_parallels(self, box: Box) -> Float[np.ndarray, "h w"]:
        """Areas in degrees: of each pixel's corners on Lambert's cylinder, where areas are those of the ellipsoid.

        North of it is b²/2 · (sin φ / (1 - e² sin² φ) + artanh(e sin φ) / e), in m² over one radian of longitude.

        Source: Snyder, Map Projections (USGS Professional Paper 1395), equations 3-12 and 10-15.
        """
        columns = 1 if self.transform.d == 0 else box.width
        grid = np.meshgrid(np.arange(columns + 1.0) + box.left, np.arange(box.height + 1.0) + box.top)
        longitude, latitude = apply(self.transform, *grid)
        sine, eccentricity = np.sin(latitude * self._unit), math.sqrt(self._ellipsoid.es)
        inner = np.arctanh(eccentricity * sine) / eccentricity if eccentricity else sine
        north = self._ellipsoid.b**2 / 2 * (sine / (1 - self._ellipsoid.es * sine**2) + inner)
        corners = np.stack([longitude * self._unit, north])
        down, across = corners[:, 1:, 1:] - corners[:, :-1, :-1], corners[:, 1:, :-1] - corners[:, :-1, 1:]
        return np.broadcast_to(np.abs(down[0] * across[1] - down[1] * across[0]) / 2, (box.height, box.width))


def _points(begin: int, count: int, metres: float) -> Float[np.ndarray, " n"]:
    """Places at most ``SPACING`` apart from the centre of the first pixel to that of the last."""
    return np.linspace(begin + 0.5, begin + count - 0.5, 2 + int((count - 1) * metres / SPACING))


def _linear(values: Float[np.ndarray, "n w"], count: int) -> Float[np.ndarray, "h w"]:
    """The first axis brought to ``count``, linear between the values."""
    at = np.linspace(0, len(values) - 1, count)[:, None]
    low = np.minimum(at.astype(int), len(values) - 2)
    return values[low[:, 0]] * (1 - (at - low)) + values[low[:, 0] + 1] * (at - low)


def ground_resolution(raster: Raster) -> float | None:
    """Metres per pixel at the raster's centre: the side of a square as large as a pixel; None without a CRS."""
    ground = Ground.of(raster.crs, raster.transform)
    if ground is None:
        return None
    return math.sqrt(float(ground.pixel_areas(Box(raster.size[0] // 2, raster.size[1] // 2, 1, 1))[0, 0]))


@contextmanager
def at_gsd(raster: Raster, gsd: float | None) -> Iterator[Raster]:
    """The raster in as many pixels as make ``gsd`` metres of one at its centre, or just as it is without ``gsd``.

    The grid covers the scene's ground exactly, so a pixel may be off ``gsd`` by half a pixel over the scene's length.
    Values are interpolated (bilinear), and averaged with the triangle of the larger pixels where there are fewer, as
    ``--gsd`` of ``regard predict`` shows a scene to a network; ground of no data has no share in them.

    Raises:
        ConfigError: the raster does not say how large its pixels are.
        BandMismatch: a band marked as alpha was chosen, which the warper takes for the mask.
    """
    if gsd is None:
        yield raster
        return
    own, name = ground_resolution(raster), raster.source.name
    if own is None:
        raise ConfigError(f"{name} does not say how many metres a pixel has. Omit gsd, or give it a CRS.")
    if raster.reads_alpha:
        raise BandMismatch(
            f"{name} has a band marked as alpha among those chosen, which gsd takes for the mask. Mark it again: "
            "gdal_edit.py -colorinterp_4 undefined."
        )
    height, width = (max(1, round(length * own / gsd)) for length in raster.size)
    scale = Affine.scale(raster.size[1] / width, raster.size[0] / height)
    with refusing(raster.source, f"its view of {width} x {height} pixels"):
        warped = WarpedVRT(
            raster._dataset, crs=raster.crs, src_crs=raster.crs, transform=raster.transform @ scale, height=height,
            width=width, resampling=Resampling.bilinear, add_alpha=not {"nodata", "alpha"} & {*raster.missing_data},
        )  # fmt: skip
    with Raster(raster.source, warped, raster.bands) as resampled:
        yield resampled
