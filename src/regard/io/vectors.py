"""Vector files read: the polygons of a layer as GDAL fills them, in any CRS, and areas of interest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from jaxtyping import Bool

from regard.errors import ConfigError, UnreadableImage, counted, listed, one_line
from regard.io.even_odd import filled
from regard.io.extent import Grid, reaching
from regard.io.raster import Box, Raster, to_map
from regard.io.vector_opening import as_it_is, check_stored, gdal_name, layers_in

LAYER = "layername="  # after a file and |, as QGIS names a layer
IDS = ("id", "@id", "osm_id")  # columns that tell features apart, in this order; else GDAL's FID
BROKEN = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
UNEXPECTED = (ValueError, LookupError, RuntimeError, shapely.errors.ShapelyError, MemoryError)  # of damaged files

Area = str | Path | Sequence[float]  # bounds, or a vector file


class Polygons(NamedTuple):
    """The polygons of a layer in its own CRS, valid and as GDAL fills them, with their values in some columns.

    ``ids`` are those of the file, from the column ``id_name``; ``faults`` says of each polygon why it was not valid in
    the file, if it was not; ``others`` counts features without a polygon: points, lines, no geometry.
    """

    file: str
    crs: str | None
    ids: np.ndarray
    id_name: str
    shapes: np.ndarray
    values: list[np.ndarray]
    faults: np.ndarray
    others: int

    def named(self, chosen: Bool[np.ndarray, " n"], most: int = 5) -> str:
        """How many polygons are chosen, with the ids of the first."""
        ids = self.ids[chosen].tolist()
        return f"{counted(len(ids), 'polygon')} ({self.id_name} {listed(ids, most)})"


def layer_of(source: str | Path) -> tuple[Path, str | None]:
    """The file and the layer that ``FILE`` or ``FILE|layername=LAYER`` names.

    Raises:
        ConfigError: something else after ``|``.
    """
    name, found, rest = str(source).partition("|")
    if not found or os.path.exists(source):
        return Path(source), None
    if not rest.startswith(LAYER) or "|" in rest:
        raise ConfigError(f"got {source}; after the file only one layer can be named: {name}|{LAYER}NAME.")
    return Path(name), rest.removeprefix(LAYER)


def read_shapes(source: str | Path, columns: Sequence[str] = (), where: str | None = None) -> Polygons:
    """The polygons of a layer, those alone for which ``where`` holds: a condition in OGR SQL, as pyogrio takes it.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no polygon, no such column or layer, several layers and none named, or no condition.
    """
    path, (fields, crs, fids, raw, values) = _features(source, columns, where)
    shapes = filled(raw)
    kept = shapely.area(shapes) > 0
    if not kept.any():
        among = f"{counted(len(raw), 'feature')}{f' where {where}' if where else ''}"
        raise ConfigError(f"{path.name} has no polygon among {among}. Give polygons of the area that is wanted.")
    raw, known = raw[kept], dict(zip(fields, values, strict=True))
    invalid, faults = ~shapely.is_valid(raw), np.full(len(raw), "", object)
    faults[invalid] = [reason.split("[")[0] for reason in shapely.is_valid_reason(raw[invalid])]
    id_name = next((name for name in IDS if name in known and not any(v is None or v != v for v in known[name])), "FID")
    ids, found = known.get(id_name, fids)[kept], [known[name][kept] for name in columns]
    return Polygons(path.name, crs, ids, id_name, shapes[kept], found, faults, int((~kept).sum()))


def read_features(source: str | Path, columns: Sequence[str]) -> Polygons:
    """The points, lines and polygons of a layer, these as GDAL fills them; raises what :func:`read_shapes` does."""
    path, (fields, crs, fids, raw, values) = _features(source, columns, None, any_kind=True)
    if raw.size and not shapely.is_missing(raw).all():
        flat = shapely.get_dimensions(raw) >= 2
        shapes = raw.copy()
        shapes[flat] = filled(raw[flat])
        kept = np.isfinite(shapely.bounds(shapes)).all(axis=1)  # neither empty nor missing
        if kept.any():
            found = [values[fields.index(name)][kept] for name in columns]
            return Polygons(path.name, crs, fids[kept], "FID", shapes[kept], found, np.full(kept.sum(), "", object), 0)
    raise ConfigError(f"{path.name} has no point, line or polygon among {counted(len(raw), 'feature')}. Draw some.")


def _features(
    source: str | Path, columns: Sequence[str], where: str | None, *, any_kind: bool = False
) -> tuple[Path, tuple[list[str], str | None, np.ndarray, np.ndarray, list[np.ndarray]]]:
    """The file, and what :func:`_read` gives of its layer; a ConfigError where it lacks a column."""
    path, named = layer_of(source)
    with refusing(path, "the path of a vector file"):
        layer = _chosen_layer(path, named, any_kind=any_kind)
        found = _read(path, layer, [*columns, *IDS], where)
    missing = [name for name in columns if name not in found[0]]
    if missing:
        has = listed(pyogrio.read_info(gdal_name(path), layer=layer, **as_it_is(path))["fields"].tolist(), 16) or "none"
        raise ConfigError(f"{path.name} has no column {missing[0]!r}; it has {has}. Choose one of them.")
    return path, found


@contextmanager
def refusing(path: Path, wanted: str) -> Iterator[None]:
    """Raise an UnreadableImage for a file that is missing or damaged, a ConfigError if GDAL would run its queries."""
    if not os.path.exists(path):
        raise UnreadableImage(f"{path} does not exist. Give {wanted}.")
    try:
        check_stored(path)
        yield
    except (*BROKEN, *UNEXPECTED) as error:
        raise UnreadableImage(f"{path} cannot be read as vectors ({one_line(error)}).") from None


def _chosen_layer(path: Path, named: str | None, *, any_kind: bool = False) -> str | None:
    """The layer that is named, or the only one that can hold polygons, or features of ``any_kind``."""
    layers = layers_in(path)
    polygonal = [name for name, kind in layers.items() if any_kind or ("Point" not in kind and "Line" not in kind)]
    if named is not None and named not in layers:
        raise ConfigError(f"{path.name} has no layer {named!r}; it has {listed([*layers], 16)}. Choose one of them.")
    if named is None and len(polygonal) > 1:
        several = f"{len(polygonal)} layers ({listed(polygonal, 16)})"
        raise ConfigError(f"{path.name} has {several}. Name one of them: {path.name}|{LAYER}{polygonal[0]}.")
    return named or next(iter([*polygonal, *layers]), None)


def _read(
    path: Path, layer: str | None, columns: list[str], where: str | None
) -> tuple[list[str], str | None, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Column names, CRS, FIDs, geometries and columns of a layer."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Several features with id|.*does not have a.*field|Non closed ring", RuntimeWarning
            )
            about, fids, geometry, values = pyogrio.raw.read(
                gdal_name(path),
                layer=layer,
                columns=columns,
                where=where,
                return_fids=True,
                force_2d=True,
                **as_it_is(path),
            )
    except (ValueError, *BROKEN) as error:
        if where is None or "SQL" not in str(error):
            raise
        fields = listed(pyogrio.read_info(gdal_name(path), layer=layer, **as_it_is(path))["fields"].tolist(), 16)
        example = "building IS NOT NULL AND \"roof:material\" = 'tin'"
        raise ConfigError(
            f"{path.name}: where {where!r} is not a condition; write {example}. Columns: {fields}."
        ) from None
    raw = np.full(len(fids), None, object) if geometry is None else shapely.from_wkb(geometry, on_invalid="fix")
    return list(about["fields"]), about["crs"], fids, raw, values


def read_polygons(
    source: str | Path, raster: Raster, columns: Sequence[str] = (), where: str | None = None
) -> Polygons:
    """The same polygons in pixels of the raster: x to the right, y down, from its top left corner.

    Raises:
        UnreadableImage, ConfigError: see :func:`read_shapes`; no CRS to bring it to the raster's, or the wrong one.
    """
    polygons = read_shapes(source, columns, where)
    if raster.crs is None or polygons.crs is None:
        bare = polygons.file if polygons.crs is None else raster.source.name
        raise ConfigError(
            f"{bare} has no CRS, so the two do not meet. Give it its own: gdal_edit.py or ogr2ogr -a_srs."
        )
    return polygons._replace(shapes=filled(in_pixels(polygons.shapes, polygons.crs, raster, polygons.file)))


def in_pixels(shapes: np.ndarray, crs: str, raster: Raster, name: str = "") -> np.ndarray:
    """Shapes of a CRS in pixels of the raster; those that have no place in the raster's CRS are empty.

    Raises:
        ConfigError: none has a place there.
    """
    placed = Grid.of(raster).placed(shapes, crs)
    if shapely.is_empty(placed).all():
        advice = f"Say the right one: ogr2ogr -a_srs EPSG:... right.gpkg {name}." if name else "Correct it."
        raise ConfigError(
            f"{name or 'the area'} says that its CRS is {crs[:60]}, but its coordinates ({_rounded(shapes)}) are none "
            f"of that. {advice}{_if_swapped(shapes, crs, raster)}"
        )
    return placed


def elsewhere(source: str | Path, raster: Raster) -> str:
    """Where the shapes of a file lie and where the raster, as a message; it says so if x and y are swapped."""
    polygons = read_features(source, [])
    place = f"it covers {_rounded(polygons.shapes)} in {(polygons.crs or '')[:60]}"
    scene = f"{raster.source.name} {_rounded([shapely.box(*raster.bounds)])} in {raster.crs.to_string()[:60]}"
    return f"{place}, {scene}.{_if_swapped(polygons.shapes, polygons.crs, raster)}"


def _if_swapped(shapes: np.ndarray, crs: Any, raster: Raster) -> str:
    """The advice for coordinates that meet the raster when x and y are exchanged; empty if they do not."""
    grid = Grid.of(raster)
    swapped = grid.placed(shapely.transform(shapes, lambda xy: xy[:, ::-1]), crs)
    if not reaching(swapped, Box(0, 0, *grid.size)).any():
        return ""
    return " Latitude and longitude are exchanged in the file: longitude comes first (QGIS: Swap X and Y coordinates)."


def area_of_interest(wanted: Area, raster: Raster) -> Any:
    """A shapely geometry in pixels of the raster: x to the right, y down, from its top left corner.

    ``wanted``: bounds (west, south, east, north) in the raster's CRS, or a vector file with polygons in any CRS.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no bounds, no polygon, no CRS to bring it to the raster's, or nothing of it on the raster.
    """
    if isinstance(wanted, str | Path):
        shapes = read_polygons(wanted, raster).shapes
    else:
        shapes = shapely.transform(np.array([_box(wanted)]), lambda xy: to_map(xy, ~raster.transform))
    area = shapely.union_all(shapes)
    if not area.intersects(shapely.box(0, 0, *raster.size[::-1])):
        if isinstance(wanted, str | Path):
            raise ConfigError(f"the area of interest misses {raster.source.name}: {elsewhere(wanted, raster)}")
        raise ConfigError(
            f"the area of interest, {_rounded([_box(wanted)])} in the raster's CRS, misses {raster.source.name}: "
            f"{_rounded([shapely.box(*raster.bounds)])}. The order is west, south, east, north."
        )
    return area


def _box(bounds: Sequence[float]) -> Any:
    if len(bounds) != 4 or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ConfigError(f"got area {tuple(bounds)}; need west, south, east, north, or a vector file with polygons.")
    return shapely.box(*bounds)


def _rounded(shapes: Any) -> str:
    """West, south, east, north of some shapes."""
    return ", ".join(f"{value:.6g}" for value in shapely.total_bounds(shapes))
