"""Geometries of a file as the valid polygons that GDAL fills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float

POLYGON, MULTIPOLYGON = 3, 6  # shapely's type_id


def filled(shapes: np.ndarray) -> np.ndarray:
    """Each geometry as the valid polygons of the ground that GDAL fills: the rings of a polygon by the even-odd rule,
    the polygons of a collection united; lines and points fill nothing.
    """
    made = shapes.copy()
    plain = shapely.is_valid(shapes) & np.isin(shapely.get_type_id(shapes), (POLYGON, MULTIPOLYGON))
    for index in np.flatnonzero(~plain):
        parts = [part for part in _polygons_in(shapes[index]) if np.isfinite(shapely.get_coordinates(part)).all()]
        made[index] = shapely.union_all([_even_odd(part) for part in parts])
    return made


def _even_odd(polygon: Any) -> Any:
    """The faces between a polygon's rings from which a ray to the right crosses the rings an odd number of times."""
    lines = _odd_edges(polygon)
    faces = shapely.get_parts(shapely.polygonize([shapely.union_all(shapely.linestrings(lines))]))
    (x1, y1), (x2, y2) = lines[:, 0].T, lines[:, 1].T
    kept = []
    for face, (x, y) in zip(faces, shapely.get_coordinates(shapely.point_on_surface(faces)), strict=True):
        across = (y1 > y) != (y2 > y)
        right = x1[across] + (y - y1[across]) / (y2 - y1)[across] * (x2 - x1)[across] > x
        if right.sum() % 2:
            kept.append(face)
    return shapely.union_all(kept)


def _odd_edges(polygon: Any) -> Float[np.ndarray, "n 2 2"]:
    """The edges of a polygon's rings without those that occur an even number of times: a ray crosses these in vain."""
    rings = map(shapely.get_coordinates, shapely.get_rings(polygon))
    edges = np.concatenate([np.stack([xy[:-1], xy[1:]], axis=1) for xy in rings])
    (x1, y1), (x2, y2) = edges[:, 0].T, edges[:, 1].T
    backwards = (x1 > x2) | ((x1 == x2) & (y1 > y2))
    edges[backwards] = edges[backwards, ::-1]
    found, counts = np.unique(edges.reshape(-1, 4), axis=0, return_counts=True)
    return found[counts % 2 == 1].reshape(-1, 2, 2)


def _polygons_in(shape: Any) -> Iterator[Any]:
    """The polygons of a geometry, of a collection's collections too."""
    if shape is not None and shape.geom_type == "Polygon":
        yield shape
    for part in getattr(shape, "geoms", ()):
        yield from _polygons_in(part)
