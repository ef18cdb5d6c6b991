"""Outlines of buildings to polygons with right angles, of the same area and next to the same neighbours.

Each polygon is tried in its dominant directions and with several tolerances: its simplified edges become level or
upright lines of that direction, and consecutive lines are cut with each other. What is not close to the outline, or
would overlap a neighbour, stays as it was. Lengths are in pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float
from rasterio.transform import Affine

from regard.errors import SceneWarning
from regard.io.raster import Raster, apply, to_map

TOLERANCES = (14.0, 10.0, 7.0, 5.0, 3.0, 2.0, 1.5, 1.0)  # of the simplified outline, the coarsest that fits is taken
LEAST_OVERLAP = 0.9  # intersection over union of outline and result
REACH = 0.2  # the result lies that near to the outline: a share of the root of its area, within these limits
LEAST_REACH, LARGEST_REACH = 3.0, 30.0
LARGEST_SCALING = 1.1  # to the area of the outline
NOTHING = 1e-9  # square pixels: rounding errors where polygons touch


def right_angled(shapes: np.ndarray, plane: Affine) -> np.ndarray:
    """Polygons in pixels (column, row), which do not overlap, with right angles in the plane that ``plane`` takes
    pixels to. Each has the area of what is given, and an intersection over union with it of 0.9 or more; none overlap.

    Warns:
        SceneWarning: most of them are not near any such polygon, and stay as they are.
    """
    unit = Affine.scale(1 / math.sqrt(abs(plane.determinant))) @ plane
    given = shapely.transform(shapes, lambda xy: to_map(xy, unit))
    tree, result = shapely.STRtree(given), given.copy()
    reach, made = max((_reach(shape) for shape in given), default=0), 0
    for number, shape in enumerate(given):
        near = tree.query(shape, predicate="dwithin", distance=2 * reach)  # each lies within reach of what is given
        others = result[near[near != number]]
        for squared in _squared(shape):
            if not (shapely.area(shapely.intersection(others, squared)) > NOTHING).any():
                result[number], made = squared, made + 1
                break
    if 2 * made < len(given):
        text = f"right angles for {made} of {len(given)} polygons; the others, such as joined roofs, keep their outline"
        warnings.warn(f"{text}. Use simplify too, which takes away its steps of pixels.", SceneWarning, stacklevel=2)
    return shapely.transform(result, lambda xy: to_map(xy, ~unit))


def plane_of(raster: Raster) -> Affine:
    """From pixels to a plane in which right angles are those of the map; in degrees, of the ground at its centre."""
    column, row = raster.size[1] / 2, raster.size[0] / 2
    is_geographic = raster.crs is not None and raster.crs.is_geographic
    width = math.cos(math.radians(apply(raster.transform, column, row)[1])) if is_geographic else 1.0
    return Affine.scale(max(width, 1e-3), 1.0) @ raster.transform


def _squared(shape: Any) -> Iterator[Any]:
    """Polygons with right angles that are close to a polygon: the simplest first, of these the closest."""
    around = None
    for tolerance in TOLERANCES:
        simple = shapely.simplify(shape, tolerance)
        tried = [_scaled(_along(simple, angle), shape.area) for angle in _directions(simple)]
        close = [(_overlap(polygon, shape), polygon) for polygon in tried if polygon is not None]
        for overlap, polygon in sorted(close, key=lambda pair: -pair[0]):
            if overlap < LEAST_OVERLAP:
                break
            around = around or shape.buffer(_reach(shape))  # takes longer than all the rest
            if around.covers(polygon):
                yield polygon


def _reach(shape: Any) -> float:
    return min(max(LEAST_REACH, REACH * math.sqrt(shape.area)), LARGEST_REACH)


def _directions(shape: Any) -> Iterator[float]:
    """Candidates for the direction of the walls, in radians: the mean of the edges' directions modulo 90 degrees,
    weighted by the squares of their lengths, and that of the smallest rectangle around the polygon.
    """
    for ring in (shape.exterior, shapely.minimum_rotated_rectangle(shape).boundary):
        along = np.diff(shapely.get_coordinates(ring), axis=0) @ np.array([1, 1j])
        turned = along**4  # the directions of a right-angled outline fall together
        yield float(np.angle((turned / np.maximum(np.abs(along), NOTHING) ** 2).sum())) / 4


def _along(shape: Any, angle: float) -> Any:
    """The polygon with edges along and across ``angle``; None where a ring has fewer than four sides or crosses."""
    turn = Affine.rotation(-math.degrees(angle))
    rings = [_cut(to_map(shapely.get_coordinates(ring), turn)) for ring in (shape.exterior, *shape.interiors)]
    if any(ring is None for ring in rings):
        return None
    polygon = shapely.Polygon(rings[0], rings[1:])
    return shapely.transform(polygon, lambda xy: to_map(xy, ~turn)) if polygon.is_valid else None


def _cut(ring: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"] | None:
    """A closed ring as alternating level and upright lines, each through the mean of the edges it stands for."""
    edges, middles = np.diff(ring, axis=0), (ring[1:] + ring[:-1]) / 2
    level = np.abs(edges[:, 0]) >= np.abs(edges[:, 1])
    changes = np.flatnonzero(level != np.roll(level, 1))
    if len(changes) < 4:
        return None
    level, edges, middles = (np.roll(values, -changes[0], axis=0) for values in (level, edges, middles))
    first = changes - changes[0]
    lengths = np.where(level, np.abs(edges[:, 0]), np.abs(edges[:, 1]))
    offsets = np.where(level, middles[:, 1], middles[:, 0]) * lengths
    places = np.add.reduceat(offsets, first) / np.add.reduceat(lengths, first)
    before, is_level = np.roll(places, 1), level[first]
    corners = np.stack([np.where(is_level, before, places), np.where(is_level, places, before)], axis=1)
    return np.concatenate([corners, corners[:1]])


def _scaled(shape: Any, area: float) -> Any:
    """The polygon scaled about its centroid to ``area``; None where it would change much."""
    if shape is None or shape.area <= 0:
        return None
    scale, (x, y) = math.sqrt(area / shape.area), shape.centroid.coords[0]
    around = Affine.translation(x, y) @ Affine.scale(scale) @ Affine.translation(-x, -y)
    is_close = 1 / LARGEST_SCALING <= scale <= LARGEST_SCALING
    return shapely.transform(shape, lambda xy: to_map(xy, around)) if is_close else None


def _overlap(shape: Any, outline: Any) -> float:
    """Intersection over union."""
    both = shape.intersection(outline).area
    return both / (shape.area + outline.area - both)
