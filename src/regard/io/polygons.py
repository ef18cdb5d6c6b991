"""A finished class map to polygons, one for each connected component of a class."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float, Integer
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ConfigError, MissingExtra
from regard.io.class_map_file import STRIP, LabelMap, open_confidence, open_label_map, sieved
from regard.io.coverage import Region, Strip, regions
from regard.io.ground import Ground, ground_resolution
from regard.io.raster import Box, Raster, to_map
from regard.io.right_angles import plane_of, right_angled
from regard.io.vector_writer import Columns, VectorWriter, check_vector_target, description_of
from regard.memory import give_back_freed_memory
from regard.options import PolygonRules

MODIFIED_TAG = "regard_source_modified"  # of a map: when its scene was modified
STRIP_PIXELS = 2**21  # about 60 bytes a pixel while a strip is traced
PIECES = 500  # of regions, joined and written at a time
NO_RULES = PolygonRules()


class PolygonList(list[dict[str, Any]]):
    """GeoJSON-like features with the CRS of their coordinates, which may be None: an object that geopandas, shapely and
    fiona take as a collection of features.
    """

    crs: Any = None

    @property
    def __geo_interface__(self) -> dict[str, Any]:
        return {"type": "FeatureCollection", "features": list(self)}

    def to_geopandas(self) -> Any:
        """The features as a ``geopandas.GeoDataFrame`` in their CRS.

        Raises:
            MissingExtra: geopandas is not installed.
        """
        try:
            from geopandas import GeoDataFrame
        except ImportError:
            raise MissingExtra("geopandas is not installed. Do: pip install geopandas.") from None
        columns = ["geometry", *(self[0]["properties"] if self else ("class", "name"))]
        crs = None if self.crs is None else self.crs.to_wkt()
        return GeoDataFrame.from_features(self, crs=crs, columns=columns)


def write_polygons(
    labels: Path, target: Path, rules: PolygonRules = NO_RULES, *, confidence: Path | None = None
) -> int:
    """Write the 4-connected polygons of a class map and return how many: in the map's CRS, as .gpkg, .fgb or
    .parquet; .geojson is in longitude and latitude.

    Columns: ``class`` (label), ``name``, ``confidence`` (the polygon's mean, if the raster that :func:`regard.predict`
    writes is given), ``area_m2`` (on the ellipsoid, in any projection; none where the CRS is missing or local).
    Neighbours share their corners: no gaps, no overlaps. The rules apply in their order; closed holes and right angles
    do not overlap other polygons that are written. Without rules, areas are the sums of the pixels'.

    The map is read in strips. Memory: one strip and the outlines of the polygons that reach its lower edge; right
    angles take those of all polygons that are written, closed holes a point of each. Sieving also takes a scratch file
    of two to three bytes a pixel next to ``target``.

    Raises:
        UnreadableImage, ClassMismatch: the map cannot be read, or its labels are not those of its classes.
        SizeMismatch: ``confidence`` is not of the map's size.
        ConfigError: a rule in metres without a CRS, or a file ending that is no vector format.
        UnknownName: a rule for a class that the map does not have.
        MissingExtra: GeoParquet without pyarrow.
        OutputError: the file cannot be written.
    """
    check_vector_target(target)
    with ExitStack() as stack:
        source = stack.enter_context(open_label_map(labels))
        check_rules(rules, source.raster, source.classes)
        measure = None if confidence is None else stack.enter_context(open_confidence(confidence, source))
        names, ground = source.classes.names, Ground.of(source.crs, source.transform)
        columns = partial(_columns, names, None if measure is None else measure.scale, ground is not None)
        about: dict[str, Any] = {"when": _date_of(source), "description": description(source, rules)}
        writer = stack.enter_context(VectorWriter(target, source.crs, columns([], np.empty(0)), **about))
        for found, shapes in _ruled(sieved(source, rules.sieve, target.parent), measure, rules, ground):
            areas = _areas(found, shapes)
            large = areas >= rules.minimum_area
            kept = [region for region, keep in zip(found, large, strict=True) if keep]
            writer.write(_placed(shapes[large], source.transform), columns(kept, areas[large]))
            give_back_freed_memory()  # a strip leaves many small holes in it
    return writer.count


def _ruled(
    source: LabelMap, measure: Raster | None, rules: PolygonRules, ground: Ground | None
) -> Iterator[tuple[list[Region], np.ndarray]]:
    """The regions that are written and their polygons in pixels, batch by batch from top to bottom."""
    simplify = rules.simplify and rules.simplify / (ground_resolution(source.raster) or 1.0)
    left_out = {label for label, name in enumerate(source.classes.names) if rules.written and name not in rules.written}
    left_out |= set() if source.nodata is None else {source.nodata}
    batches: Iterable[list[Region]] = regions(_strips(source, measure), simplify, left_out, ground)
    if rules.regularise:
        batches = [[region for batch in batches for region in batch]]
    elif not rules.minimum_hole:  # for which all polygons of a batch count
        batches = chain.from_iterable(map(_of_few_pieces, batches))
    points = np.empty(0, object)  # one in each polygon that a hole may hold
    for found in batches:
        shapes = np.array([region.polygon() for region in found], object)
        if rules.minimum_hole and len(found):
            points = np.concatenate([points, _points(found, shapes, rules)])
            limits = rules.minimum_hole * np.array([region.pixels / region.area for region in found])
            shapes = without_holes(shapes, limits, points)
        if rules.regularise and len(found):
            shapes = right_angled(shapes, plane_of(source.raster))
        yield found, shapes


def _of_few_pieces(found: Sequence[Region]) -> Iterator[list[Region]]:
    """The regions in their order, a few at a time: the last batch holds all that reach the lower edge of the map."""
    pieces = np.cumsum([len(region.pieces) for region in found])
    for few in np.split(np.array(found, object), np.unique(pieces // PIECES, return_index=True)[1][1:]):
        yield list(few)


def _points(found: Sequence[Region], shapes: np.ndarray, rules: PolygonRules) -> np.ndarray:
    """A point in each polygon that is written and may lie in a hole to be closed."""
    whole = shapely.polygons(shapely.get_exterior_ring(shapes))
    small = shapely.area(shapes) < [rules.minimum_hole * region.pixels / region.area for region in found]
    return shapely.point_on_surface(shapes[small & (_areas(found, whole) >= rules.minimum_area)])


def without_holes(shapes: np.ndarray, limits: Float[np.ndarray, " n"], points: np.ndarray) -> np.ndarray:
    """Polygons without those holes that are smaller than their limit and hold none of the points."""
    tree, result = shapely.STRtree(points), shapes.copy()
    for number in np.flatnonzero(shapely.get_num_interior_rings(shapes)):
        holes = shapely.polygons(list(shapes[number].interiors))
        stay = (shapely.area(holes) >= limits[number]) | np.isin(range(len(holes)), tree.query(holes, "contains")[0])
        if not stay.all():
            result[number] = shapely.Polygon(shapes[number].exterior, [hole.exterior for hole in holes[stay]])
    return result


def description(source: LabelMap, rules: PolygonRules) -> str:
    """What a file of polygons says of itself: the job of its map and the rules."""
    return json.dumps({"regard_job": source.raster.tags().get("regard_job"), **asdict(rules)}, sort_keys=True)


def are_of(polygons: Path, labels: Path, rules: PolygonRules) -> bool:
    """Whether a file of polygons says that it was made from this map, by these rules."""
    with open_label_map(labels) as source:
        return description_of(polygons) == description(source, rules)


def _date_of(source: LabelMap) -> float:
    """When the scene of a map was modified, else the map, in seconds since 1970."""
    with suppress(KeyError, ValueError):
        return datetime.fromisoformat(source.raster.tags()[MODIFIED_TAG]).timestamp()
    return Path(str(source.raster.source)).stat().st_mtime


def check_rules(rules: PolygonRules, raster: Raster, classes: ClassMap) -> None:
    """Refuse rules for classes that are not there, and in metres where a raster does not say how many a pixel has.

    Raises:
        UnknownName: a class is not among ``classes``.
        ConfigError: there is a rule in metres, and no CRS or a local one.
    """
    for name in (*rules.only, *rules.regularise):
        classes.label_of(name)
    metric = [name for name in ("simplify", "minimum_hole", "minimum_area") if getattr(rules, name)]
    if metric and Ground.of(raster.crs, raster.transform) is None:
        raise ConfigError(
            f"{raster.source.name} has no CRS on Earth, so {metric[0].replace('_', ' ')} in metres means nothing. Use "
            "sieve, in pixels."
        )


def features(
    labels: Integer[np.ndarray, "h w"],
    confidence: Float[np.ndarray, "h w"],
    classes: ClassMap,
    *,
    crs: Any = None,
    transform: Affine | None = None,
    simplify: float = 0.0,
) -> PolygonList:
    """The polygons of a map in memory as GeoJSON-like features, from top to bottom: ``geometry`` in the coordinates of
    ``crs``, or without ``transform`` in pixels (column, row); in ``properties`` the columns of :func:`write_polygons`
    and the number of ``pixels``.

    Raises:
        ConfigError: a negative ``simplify``.
    """
    place = transform or Affine.identity()
    strip, ground = Strip(0, labels, confidence), Ground.of(crs, place)
    found = list(chain.from_iterable(regions([strip], simplify, {classes.ignore_index}, ground)))
    shapes = np.array([region.polygon() for region in found], object)
    columns = {
        "pixels": np.array([region.pixels for region in found], int),
        **_columns(classes.names, 1.0, ground is not None, found, _areas(found, shapes)),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    result = PolygonList(
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": dict(zip(columns, row, strict=True)),
        }
        for row, shape in zip(rows, _placed(shapes, place), strict=True)
    )
    result.crs = crs
    return result


def _columns(
    names: Sequence[str], scale: float | None, has_area: bool, found: Sequence[Region], areas: Float[np.ndarray, " n"]
) -> Columns:
    """The columns of some polygons; ``scale`` brings the means of their values to 0..1."""
    columns: dict[str, np.ndarray] = {"class": np.array([region.label for region in found], np.int32)}
    columns["name"] = np.array([names[region.label] for region in found], object)
    if scale is not None:
        columns["confidence"] = np.array([region.total / region.pixels for region in found], float) * scale
    return {**columns, "area_m2": areas} if has_area else columns


def _areas(found: Sequence[Region], shapes: np.ndarray) -> Float[np.ndarray, " n"]:
    """The area in m² of each polygon, given in pixels: a simplified one has the mean ground of its region's pixels."""
    return shapely.area(shapes) * np.array([region.area / region.pixels for region in found], float)


def _strips(source: LabelMap, measure: Raster | None) -> Iterator[Strip]:
    height = STRIP
    while height > 128 and height * source.size[1] > STRIP_PIXELS:
        height //= 2  # rows of one block: GDAL's cache keeps it decoded
    for top, labels in source.strips(height):
        yield Strip(top, labels, None if measure is None else measure.read_band(Box(top, 0, *labels.shape)))


def _placed(shapes: np.ndarray, transform: Affine) -> np.ndarray:
    """Polygons in pixels to the map's coordinates, outer rings against the clock."""
    return shapely.orient_polygons(shapely.transform(shapes, lambda xy: to_map(xy, transform)))
