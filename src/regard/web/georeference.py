"""Where a scene's pixels lie: in its coordinates, in degrees, and how far they are apart on the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

from regard.io.raster import Raster, apply

Points = Float[np.ndarray, "n 2"]


class Placement:
    """The coordinates of a scene; without a CRS, or with one that has no place on Earth, its pixels alone."""

    def __init__(self, raster: Raster) -> None:
        self.transform, self.size = raster.transform, raster.size
        self.crs: CRS | None = None
        if raster.crs is None or raster.transform.is_identity:
            return
        try:
            crs = CRS.from_wkt(raster.crs.to_wkt()).to_2d()
            self._degrees = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
            self._geod = crs.get_geod() or Geod(ellps="WGS84")
            self.crs = (
                crs if np.isfinite(self.degrees(np.array([[raster.size[1] / 2, raster.size[0] / 2]]))).all() else None
            )
        except (CRSError, ProjError):
            self.crs = None

    def degrees(self, points: Points) -> Points:
        """Longitude and latitude of columns and rows; infinite where there is no such place."""
        longitude, latitude = self._degrees.transform(*apply(self.transform, *points.T))
        return np.column_stack([(np.asarray(longitude) + 180) % 360 - 180, latitude])

    def pixels(self, longitude: float, latitude: float) -> tuple[float, float] | None:
        """Column and row of a place; None where the scene has none, or does not reach."""
        x, y = self._degrees.transform(longitude, latitude, direction="INVERSE")
        turns = (0.0, 360.0, -360.0) if self.crs is not None and self.crs.is_geographic else (0.0,)
        for turn in turns:  # of grids from 0 to 360, or beyond 180
            column, row = apply(~self.transform, x + turn, y)
            if 0 <= column <= self.size[1] and 0 <= row <= self.size[0]:
                return float(column), float(row)
        return None

    def measure(self, points: Points) -> dict[str, float]:
        """Length in metres of the line through ``points``, and the area in m² that it encloses, on the ellipsoid."""
        longitude, latitude = self.degrees(points).T
        area = self._geod.polygon_area_perimeter(longitude, latitude)[0] if len(points) > 2 else 0.0
        return {"metres": float(self._geod.line_length(longitude, latitude)), "square_metres": abs(float(area))}

    def about(self) -> dict[str, Any] | None:
        """The CRS and the transform for the page; None without a place on Earth."""
        if self.crs is None:
            return None
        height, width = self.size
        middle = np.array([[width / 2 - 0.5, height / 2], [width / 2 + 0.5, height / 2]])
        authority = self.crs.to_authority(min_confidence=90)
        return {
            "name": self.crs.name,
            "code": ":".join(authority) if authority else None,
            "unit": self.crs.axis_info[0].unit_name,
            "geographic": self.crs.is_geographic,
            "transform": list(self.transform[:6]),
            "metres": self.measure(middle)["metres"],  # that a pixel is wide, in the middle
        }
