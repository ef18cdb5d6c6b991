"""A finished class map to polygons, one for each connected component of a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float, Integer
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ConfigError
from regard.io.class_map_file import LabelMap, open_confidence, open_label_map, sieved
from regard.io.coverage import Region, Strip, regions
from regard.io.ground import Ground, ground_resolution
from regard.io.raster import Box, Raster, to_map
from regard.io.vector_writer import Columns, VectorWriter, check_vector_target
from regard.options import PolygonRules

NO_RULES = PolygonRules()


def write_polygons(
    labels: Path,
    target: Path,
    rules: PolygonRules = NO_RULES,
    *,
    confidence: Path | None = None,
    when: float | None = None,
) -> int:
    """Write the 4-connected polygons of a class map and return how many: in the map's CRS, as .gpkg, .fgb or
    .parquet; .geojson is in longitude and latitude.

    Columns: ``class`` (label), ``name``, ``confidence`` (the polygon's mean, if the raster that :func:`regard.predict`
    writes is given), ``area_m2`` (on the ellipsoid, in any projection; none where the CRS is missing or local).
    Neighbours share their corners: no gaps, no overlaps. The rules apply in their order; a minimum area leaves holes.
    Without them, areas are the sums of the pixels'. ``when`` (seconds since 1970) is the date in a GeoPackage, now if
    it is None.

    The map is read in strips. Memory: one strip and the outlines of the polygons that reach its lower edge; sieving
    also takes a scratch file of two to three bytes a pixel next to ``target``.

    Raises:
        UnreadableImage, ClassMismatch: the map cannot be read, or its labels are not those of its classes.
        SizeMismatch: ``confidence`` is not of the map's size.
        ConfigError: a rule in metres without a CRS, or a file ending that is no vector format.
        MissingExtra: GeoParquet without pyarrow.
        OutputError: the file cannot be written.
    """
    check_vector_target(target)
    with ExitStack() as stack:
        source = stack.enter_context(open_label_map(labels))
        check_rules(rules, source.raster)
        ground, simplify = Ground.of(source.crs, source.transform), rules.simplify
        if simplify:
            simplify /= ground_resolution(source.raster) or 1.0
        measure = None if confidence is None else stack.enter_context(open_confidence(confidence, source))
        clean = sieved(source, rules.sieve, target.parent)
        scale = None if measure is None else measure.scale
        columns = partial(_columns, source.classes.names, scale, ground is not None)
        writer = stack.enter_context(VectorWriter(target, source.crs, columns([], np.empty(0)), when=when))
        for found in regions(_strips(clean, measure), simplify, source.nodata, ground):
            shapes = np.array([region.polygon() for region in found], object)
            areas = _areas(found, shapes)
            large = areas >= rules.minimum_area
            kept = [region for region, keep in zip(found, large, strict=True) if keep]
            writer.write(_placed(shapes[large], source.transform), columns(kept, areas[large]))
    return writer.count


def check_rules(rules: PolygonRules, raster: Raster) -> None:
    """Refuse rules in metres where a raster does not say how many metres a pixel has.

    Raises:
        ConfigError: there is such a rule, and no CRS or a local one.
    """
    if (rules.simplify or rules.minimum_area) and Ground.of(raster.crs, raster.transform) is None:
        name = "simplify" if rules.simplify else "minimum area"
        raise ConfigError(
            f"{raster.source.name} has no CRS on Earth, so {name} in metres means nothing. Use sieve, in pixels."
        )


def features(
    labels: Integer[np.ndarray, "h w"],
    confidence: Float[np.ndarray, "h w"],
    classes: ClassMap,
    *,
    crs: Any = None,
    transform: Affine | None = None,
    simplify: float = 0.0,
) -> list[dict[str, Any]]:
    """The polygons of a map in memory as GeoJSON-like features, from top to bottom: ``geometry`` in the coordinates of
    ``crs``, or without ``transform`` in pixels (column, row); in ``properties`` the columns of :func:`write_polygons`
    and the number of ``pixels``.

    Raises:
        ConfigError: a negative ``simplify``.
    """
    place = transform or Affine.identity()
    strip, ground = Strip(0, labels, confidence), Ground.of(crs, place)
    found = list(chain.from_iterable(regions([strip], simplify, classes.ignore_index, ground)))
    shapes = np.array([region.polygon() for region in found], object)
    columns = {
        "pixels": np.array([region.pixels for region in found], int),
        **_columns(classes.names, 1.0, ground is not None, found, _areas(found, shapes)),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": dict(zip(columns, row, strict=True)),
        }
        for row, shape in zip(rows, _placed(shapes, place), strict=True)
    ]


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
    for top, labels in source.strips():
        yield Strip(top, labels, None if measure is None else measure.read_band(Box(top, 0, *labels.shape)))


def _placed(shapes: np.ndarray, transform: Affine) -> np.ndarray:
    """Polygons in pixels to the map's coordinates, outer rings against the clock."""
    return shapely.orient_polygons(shapely.transform(shapes, lambda xy: to_map(xy, transform)))
