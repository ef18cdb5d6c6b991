"""How large the classes of a map are on the ground."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
import shapely
from jaxtyping import Float, Int
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.files import check_writable, write_text
from regard.io.class_map_file import open_label_map
from regard.io.raster import Raster, to_map

SQUARE_METRES_PER_HECTARE = 10_000.0


class ClassArea(NamedTuple):
    """One row of the table: ``share`` is of the mapped ground, or of the pixels where the ground is unknown."""

    label: int
    name: str
    pixels: int
    area_m2: float | None
    hectares: float | None
    share: float


@dataclass(frozen=True)
class Ground:
    """Map coordinates to square metres: on a plane, by the unit's length; on an ellipsoid, between its parallels."""

    unit: float  # metres, or radians on an ellipsoid
    ellipsoid: pyproj.Geod | None = None

    @classmethod
    def of(cls, crs: Any) -> Ground | None:
        """The ground of a raster's CRS; None where there is none or its unit is no length."""
        if crs is None:
            return None
        system = pyproj.CRS.from_wkt(crs.to_wkt())
        unit = system.axis_info[0].unit_conversion_factor if system.axis_info else 0.0
        if not unit > 0:
            return None
        return cls(unit, system.get_geod() if system.is_geographic else None)

    def level(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Points on a plane where areas are in m²: x and y in metres, or Lambert's cylinder: radians east and the area
        in m² between the equator and the point's parallel, over one radian of longitude.

        b²/2 · (sin φ / (1 - e² sin² φ) + artanh(e sin φ) / e)

        Source: Snyder, Map Projections (USGS Professional Paper 1395), equations 3-12 and 10-15.
        """
        if self.ellipsoid is None:
            return xy * self.unit
        sine, eccentricity = np.sin(xy[:, 1] * self.unit), math.sqrt(self.ellipsoid.es)
        inner = np.arctanh(eccentricity * sine) / eccentricity if eccentricity else sine
        north = self.ellipsoid.b**2 / 2 * (sine / (1 - self.ellipsoid.es * sine**2) + inner)
        return np.stack([xy[:, 0] * self.unit, north], axis=1)

    def area(self, shapes: Any, transform: Affine) -> Float[np.ndarray, "n"]:
        """The area in m² of polygons given in pixels; exact for sides along the rows and columns of the raster."""
        if self.ellipsoid is None:
            return shapely.area(shapes) * (abs(transform.determinant) * self.unit**2)
        return shapely.area(shapely.transform(shapes, lambda xy: self.level(to_map(xy, transform))))

    def cells(self, transform: Affine, top: int, height: int, width: int) -> Float[np.ndarray, "h w"]:
        """The area in m² of every pixel of some rows; one column stands for all where a row has but one area."""
        if self.ellipsoid is None:
            return np.full((height, 1), abs(transform.determinant) * self.unit**2)
        columns = 1 if transform.d == 0 else width
        grid = np.stack(np.meshgrid(np.arange(columns + 1.0), np.arange(top, top + height + 1.0)), axis=-1)
        corners = self.level(to_map(grid.reshape(-1, 2), transform)).reshape(grid.shape)
        down, across = corners[1:, 1:] - corners[:-1, :-1], corners[1:, :-1] - corners[:-1, 1:]
        return np.abs(down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0]) / 2


def ground_resolution(raster: Raster) -> float | None:
    """Metres per pixel at the raster's centre: the side of a square as large as a pixel; None without a CRS."""
    ground = Ground.of(raster.crs)
    if ground is None:
        return None
    cells = ground.cells(raster.transform, raster.size[0] // 2, 1, raster.size[1])
    return math.sqrt(float(cells[0, cells.shape[1] // 2]))


def class_areas(labels: Path, classes: ClassMap | Sequence[str] | None = None) -> list[ClassArea]:
    """Pixels and ground of every class of a finished map, in the order of the labels.

    Plane areas where the CRS is projected (as large as the projection shows them: Web Mercator enlarges), areas on the
    ellipsoid where it is geographic, None where there is no CRS. ``classes`` default to those that the map names.

    Raises:
        UnreadableImage: the map is missing or broken.
        ClassMismatch: its labels are not those of ``classes``, or it names none.
    """
    with open_label_map(labels, classes) as source:
        ground, count = Ground.of(source.crs), len(source.classes)
        pixels, square_metres = np.zeros(count, np.int64), np.zeros(count)
        for top, rows in source.strips():
            counted = _counts(rows, count)
            pixels += counted.sum(axis=0)
            if ground is not None:
                cells = ground.cells(source.transform, top, *rows.shape)
                square_metres += cells[:, 0] @ counted if cells.shape[1] == 1 else _weighed(rows, cells, count)
        return _table(source.classes.names, pixels, square_metres if ground else None)


def _counts(rows: np.ndarray, count: int) -> Int[np.ndarray, "h k"]:
    """How often each class stands in each row."""
    return np.stack([np.bincount(row, minlength=count)[:count] for row in rows])


def _weighed(rows: np.ndarray, cells: Float[np.ndarray, "h w"], count: int) -> Float[np.ndarray, "k"]:
    """The sum of the cells of each class."""
    return np.bincount(rows.ravel(), weights=cells.ravel(), minlength=count)[:count]


def _table(names: Sequence[str], pixels: np.ndarray, square_metres: np.ndarray | None) -> list[ClassArea]:
    size = pixels.astype(float) if square_metres is None else square_metres
    shares = size / max(size.sum(), np.finfo(float).tiny)
    areas = [None] * len(names) if square_metres is None else [float(area) for area in square_metres]
    return [
        ClassArea(label, name, int(pixels[label]), area, _hectares(area), float(shares[label]))
        for label, (name, area) in enumerate(zip(names, areas, strict=True))
    ]


def _hectares(area: float | None) -> float | None:
    return None if area is None else area / SQUARE_METRES_PER_HECTARE


def write_areas(areas: Sequence[ClassArea], target: Path) -> Path:
    """The table as CSV (class, name, pixels, area_m2, hectares, share); unknown areas are empty.

    Raises:
        OutputError: the file cannot be written.
    """
    check_writable(target)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "name", "pixels", "area_m2", "hectares", "share"])
    table.writerows(area._replace(share=round(area.share, 6)) for area in areas)
    return write_text(target, text.getvalue())
