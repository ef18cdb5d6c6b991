"""The part of a raster that is wanted: bounds, or the polygons of a vector file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import shapely

from regard.data.areas import to_map
from regard.data.raster import Raster
from regard.errors import ConfigError, UnreadableImage

Area = str | Path | Sequence[float]


def area_of_interest(wanted: Area, raster: Raster) -> Any:
    """A shapely geometry in pixels of the raster: x to the right, y down, from its top left corner.

    ``wanted``: bounds (west, south, east, north) in the raster's CRS, or a vector file with polygons in any CRS.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no bounds, no polygon, no CRS to bring it to the raster's, or nothing of it on the raster.
    """
    shapes = _polygons(Path(wanted), raster) if isinstance(wanted, str | Path) else [_box(wanted)]
    area = shapely.transform(shapely.union_all(shapes), lambda xy: to_map(xy, ~raster.transform))
    if not area.intersects(shapely.box(0, 0, *raster.size[::-1])):
        raise ConfigError(
            f"the area of interest, {_rounded(shapely.union_all(shapes).bounds)} in the raster's CRS, misses "
            f"{raster.path.name}: {_rounded(raster.dataset.bounds)}. The order is west, south, east, north."
        )
    return area


def _box(bounds: Sequence[float]) -> Any:
    if len(bounds) != 4 or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ConfigError(f"got area {tuple(bounds)}; need west, south, east, north, or a vector file with polygons.")
    return shapely.box(*bounds)


def _rounded(bounds: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in bounds)


def _polygons(path: Path, raster: Raster) -> list[Any]:
    """The polygons of a vector file, in the raster's CRS."""
    if not path.is_file():
        raise UnreadableImage(f"{path} does not exist. Give bounds (west,south,east,north) or a vector file.")
    try:
        meta, _, geometry, _ = pyogrio.raw.read(path, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise UnreadableImage(f"{path} cannot be read as vectors ({' '.join(str(error).split())[:120]}).") from None
    shapes = [shape for shape in shapely.from_wkb(geometry) if shape is not None and shape.area > 0]
    if not shapes:
        raise ConfigError(f"{path.name} has no polygon. Give polygons of the area that is wanted.")
    if raster.crs is None or meta["crs"] is None:
        raise ConfigError(
            f"{path.name if meta['crs'] is None else raster.path.name} has no CRS, so the two do not meet."
        )
    change = pyproj.Transformer.from_crs(meta["crs"], raster.crs.to_wkt(), always_xy=True)
    return list(shapely.transform(shapes, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1)))
