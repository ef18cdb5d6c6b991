"""The part of a raster that is wanted: bounds, or the polygons of a vector file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely

from regard.errors import ConfigError
from regard.io.raster import Raster, to_map
from regard.io.vectors import read_polygons

Area = str | Path | Sequence[float]


def area_of_interest(wanted: Area, raster: Raster) -> Any:
    """A shapely geometry in pixels of the raster: x to the right, y down, from its top left corner.

    ``wanted``: bounds (west, south, east, north) in the raster's CRS, or a vector file with polygons in any CRS.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no bounds, no polygon, no CRS to bring it to the raster's, or nothing of it on the raster.
    """
    shapes = read_polygons(Path(wanted), raster)[0] if isinstance(wanted, str | Path) else [_box(wanted)]
    area = shapely.transform(shapely.union_all(shapes), lambda xy: to_map(xy, ~raster.transform))
    if not area.intersects(shapely.box(0, 0, *raster.size[::-1])):
        raise ConfigError(
            f"the area of interest, {_rounded(shapely.union_all(shapes).bounds)} in the raster's CRS, misses "
            f"{raster.source.name}: {_rounded(raster.bounds)}. The order is west, south, east, north."
        )
    return area


def _box(bounds: Sequence[float]) -> Any:
    if len(bounds) != 4 or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ConfigError(f"got area {tuple(bounds)}; need west, south, east, north, or a vector file with polygons.")
    return shapely.box(*bounds)


def _rounded(bounds: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in bounds)
