"""Vector files read: polygons of any format, and areas of interest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import shapely

from regard.errors import ConfigError, UnreadableImage
from regard.io.raster import Raster, to_map

Area = str | Path | Sequence[float]  # bounds, or a vector file


class Polygons(NamedTuple):
    """The polygons of a vector file in its own CRS, their numbers there, their values in some columns, and how many
    features are no polygons: points, lines, those without a place.
    """

    crs: str | None
    numbers: np.ndarray
    shapes: np.ndarray
    values: list[np.ndarray]
    others: int


def read_shapes(path: Path, columns: Sequence[str] = ()) -> Polygons:
    """The polygons of a vector file as they stand there.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no polygon, or no such column.
    """
    if not path.is_file():
        raise UnreadableImage(f"{path} does not exist. Give the path of a vector file.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Several features with id", RuntimeWarning)
            meta, numbers, geometry, values = pyogrio.raw.read(path, columns=list(columns), return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise UnreadableImage(f"{path} cannot be read as vectors ({' '.join(str(error).split())[:120]}).") from None
    fields = list(meta["fields"])
    missing = [name for name in columns if name not in fields]
    if missing:
        names = ", ".join(pyogrio.read_info(path)["fields"])
        raise ConfigError(f"{path.name} has no column {missing[0]!r}; it has {names or 'none'}. Choose one of them.")
    shapes = shapely.from_wkb(geometry)
    kept = shapely.area(shapes) > 0
    if not kept.any():
        raise ConfigError(f"{path.name} has no polygon. Give polygons of the area that is wanted.")
    found = [values[fields.index(name)][kept] for name in columns]
    return Polygons(meta["crs"], numbers[kept], shapes[kept], found, int((~kept).sum()))


def read_polygons(path: Path, raster: Raster, columns: Sequence[str] = ()) -> tuple[np.ndarray, list[np.ndarray]]:
    """The polygons of a vector file in the raster's CRS, and their values in some columns.

    Raises:
        UnreadableImage, ConfigError: see :func:`read_shapes`; no CRS to bring it to the raster's, or the wrong one.
    """
    crs, _, shapes, values, _ = read_shapes(path, columns)
    if raster.crs is None or crs is None:
        raise ConfigError(f"{path.name if crs is None else raster.source.name} has no CRS, so the two do not meet.")
    change = pyproj.Transformer.from_crs(crs, raster.crs.to_wkt(), always_xy=True)
    moved = shapely.transform(shapes, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1))
    if not np.isfinite(shapely.bounds(moved)).all():
        reach = ", ".join(f"{value:.6g}" for value in shapely.total_bounds(shapes))
        raise ConfigError(
            f"{path.name} says that its CRS is {crs[:60]}, but its coordinates ({reach}) are none of that. Say "
            f"the right one: ogr2ogr -a_srs EPSG:... {path.stem}_right.gpkg {path.name}."
        )
    return moved, values


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
