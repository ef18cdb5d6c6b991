"""A finished class map to polygons, one for each patch of a class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float, Integer
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ConfigError, SizeMismatch
from regard.io.areas import Ground
from regard.io.class_map_file import LabelMap, open_label_map, without_specks
from regard.io.coverage import Region, Strip, regions
from regard.io.raster import Box, Raster, open_raster, to_map
from regard.io.vectors import Columns, VectorWriter, check_vector_target


def write_polygons(
    labels: Path,
    target: Path,
    *,
    classes: ClassMap | Sequence[str] | None = None,
    confidence: Path | None = None,
    sieve: int = 0,
    minimum_area: float = 0.0,
    simplify: float = 0.0,
    when: float | None = None,
) -> int:
    """Write the patches of a class map as polygons and return how many: pixels of a class that hang together by their
    sides, in the map's CRS, as .gpkg, .geojson, .fgb or .parquet.

    Columns: ``class`` (label), ``name``, ``confidence`` (the patch's mean, if the raster that :func:`regard.predict`
    writes is given), ``area_m2`` (on the plane of a projected CRS, on the ellipsoid of a geographic one, none without).
    Neighbours share their corners: no gaps, no overlaps. In this order: patches below ``sieve`` pixels go to their
    largest neighbour; borders are simplified by ``simplify`` pixels, on both sides alike; polygons below
    ``minimum_area`` m² are left out, which leaves holes. Without these, areas equal those of the pixels.

    ``when`` (seconds since 1970) is the date in a GeoPackage, now if it is None.

    The map is read in strips. Memory: one strip and the outlines of the patches that reach its lower edge; with
    ``sieve`` also a scratch file of two to three bytes a pixel beside ``target``.

    Raises:
        UnreadableImage, ClassMismatch: the map cannot be read, or its labels are not those of ``classes``.
        SizeMismatch: ``confidence`` is not of the map's size.
        ConfigError: an impossible setting, or a file ending that is no vector format.
        MissingExtra: GeoParquet without pyarrow.
        OutputError: the file cannot be written.
    """
    check_vector_target(target)
    with ExitStack() as stack:
        source = stack.enter_context(open_label_map(labels, classes))
        ground = Ground.of(source.crs)
        _check(minimum_area, ground, labels)
        sure = None if confidence is None else stack.enter_context(_opened(confidence, source))
        clean = stack.enter_context(without_specks(source, sieve, target.parent))
        table = _Rows(source, ground, sure)
        writer = stack.enter_context(VectorWriter(target, source.crs, table.columns([], np.empty(0)), when=when))
        for found in regions(_strips(clean, sure), simplify, source.nodata):
            shapes = np.array([region.polygon() for region in found], object)
            areas = np.full(len(found), np.inf) if ground is None else ground.area(shapes, source.transform)
            large = areas >= minimum_area
            kept = [region for region, keep in zip(found, large, strict=True) if keep]
            writer.write(_placed(shapes[large], source.transform), table.columns(kept, areas[large]))
    return writer.count


def features(
    labels: Integer[np.ndarray, "h w"],
    confidence: Float[np.ndarray, "h w"],
    classes: ClassMap,
    *,
    crs: Any = None,
    transform: Affine | None = None,
    simplify: float = 0.0,
) -> list[dict[str, Any]]:
    """The patches of a map in memory as GeoJSON-like features, from top to bottom: ``geometry`` in the coordinates of
    ``crs``, or without ``transform`` in pixels (column, row); in ``properties`` the columns of :func:`write_polygons`
    and the number of ``pixels``.

    Raises:
        ConfigError: a negative ``simplify``.
    """
    strip, ground = Strip(0, labels, confidence), Ground.of(crs)
    found = list(chain.from_iterable(regions([strip], simplify, classes.ignore_index)))
    shapes, place = np.array([region.polygon() for region in found], object), transform or Affine.identity()
    areas = [{}] * len(found) if ground is None else [{"area_m2": area} for area in ground.area(shapes, place).tolist()]
    return [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {
                "class": region.label,
                "name": classes.names[region.label],
                "confidence": region.total / region.pixels,
                "pixels": round(region.pixels),
                **area,
            },
        }
        for region, shape, area in zip(found, _placed(shapes, place), areas, strict=True)
    ]


class _Rows:
    """The columns of the polygons' table."""

    def __init__(self, source: LabelMap, ground: Ground | None, sure: Raster | None) -> None:
        self.names = np.array(source.classes.names, object)
        self.has_area = ground is not None
        self.scale: float | None = None if sure is None else sure.scale

    def columns(self, found: Sequence[Region], areas: Float[np.ndarray, "n"]) -> Columns:
        labels = np.array([region.label for region in found], np.int32)
        columns = {"class": labels, "name": self.names[labels]}
        if self.scale is not None:
            columns["confidence"] = np.array([region.total / region.pixels for region in found], float) * self.scale
        return {**columns, "area_m2": areas} if self.has_area else columns


def _check(minimum_area: float, ground: Ground | None, labels: Path) -> None:
    if not 0 <= minimum_area < math.inf:
        raise ConfigError(f"minimum area {minimum_area} must be 0 (off) or a number of m².")
    if minimum_area and ground is None:
        raise ConfigError(f"{labels.name} has no CRS, so its areas in m² are unknown. Use sieve, in pixels, instead.")


def _opened(confidence: Path, source: LabelMap) -> Raster:
    raster = open_raster(confidence, bands=[1])
    if raster.size == source.size:
        return raster
    raster.close()
    sizes = [f"{width} x {height}" for height, width in (raster.size, source.size)]
    raise SizeMismatch(
        f"{confidence.name} has {sizes[0]} pixels, {source.raster.source.name} {sizes[1]}. Give its own."
    )


def _strips(source: LabelMap, sure: Raster | None) -> Iterator[Strip]:
    for top, labels in source.strips():
        if sure is None:
            yield Strip(top, labels)
            continue
        yield Strip(top, labels, sure.read_band(Box(top, 0, *labels.shape)))


def _placed(shapes: np.ndarray, transform: Affine) -> np.ndarray:
    """Polygons in pixels to the map's coordinates, outer rings against the clock."""
    return shapely.orient_polygons(shapely.transform(shapes, lambda xy: to_map(xy, transform)))
