"""Where a raster lies on the Earth: its outline in longitude and latitude, on either side of the 180th meridian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import shapely
from jaxtyping import Float

from regard.io.raster import Raster, to_map

POINTS_A_SIDE = 16  # at first: straight sides of one CRS are curves in another
CLOSE = 0.25  # pixels between a side and its outline: lines that are further are halved
ROUNDS = 24  # of halving
BESIDE_THE_POLE = 1e-3  # pixels
DECIMALS = 9  # of degrees: a tenth of a millimetre
WHOLE_TURN = 360.0

Points = Float[np.ndarray, "n 2"]
More = Float[np.ndarray, "m 2"]


def footprint(raster: Raster) -> dict[str, Any]:
    """``geometry``, a valid polygon or multipolygon (GeoJSON, RFC 7946) that holds the centre of every pixel, and
    ``bbox``: west, south, east, north, with west above east across the 180th meridian.

    ``geometry`` is None, without ``bbox``, where the raster has no CRS, one of another body or of no place on the
    Earth, or corners that lie beyond what its CRS can place.
    """
    place = _Place.of(raster)
    outline = None if place is None else place.outline(raster.size)
    if place is None or outline is None:
        return {"geometry": None}
    unrolled = shapely.Polygon(_over_the_pole(outline, place.inside_pole(raster.size)))
    if not unrolled.is_valid:
        unrolled = shapely.make_valid(unrolled)
    west, _, east, _ = unrolled.bounds
    turns = range(math.floor((west + 180) / WHOLE_TURN), math.ceil((east + 180) / WHOLE_TURN))
    parts = [
        shapely.transform(
            shapely.intersection(unrolled, shapely.box(turn * WHOLE_TURN - 180, -90, turn * WHOLE_TURN + 180, 90)),
            lambda xy, turn=turn: np.round(xy - [turn * WHOLE_TURN, 0], DECIMALS),
        )
        for turn in turns
    ]
    shape = shapely.union_all([part for piece in parts for part in shapely.get_parts(piece) if part.area > 0])
    shape = shapely.orient_polygons(shape)
    south, north = shape.bounds[1], shape.bounds[3]
    whole = WHOLE_TURN - (east - west) < (east - west) / max(raster.size)  # but for a pixel
    west, east = (-180.0, 180.0) if whole else (_wrapped(west, -180.0), _wrapped(east, 180.0))
    return {"geometry": shapely.geometry.mapping(shape), "bbox": [west, south, east, north]}


class _Place:
    """The ways between a raster's pixels (column, row) and longitude and latitude."""

    def __init__(self, raster: Raster, change: Any) -> None:
        self.transform, self.change = raster.transform, change

    @classmethod
    def of(cls, raster: Raster) -> _Place | None:
        """None where there is no way."""
        if raster.crs is None:
            return None
        try:
            system = pyproj.CRS.from_wkt(raster.crs.to_wkt()).to_2d()
            if not (system.is_geographic or system.is_projected):
                return None
            return cls(raster, pyproj.Transformer.from_crs(system, "OGC:CRS84", always_xy=True))
        except pyproj.exceptions.ProjError:  # another body
            return None

    def degrees(self, pixels: Points) -> Points:
        x, y = to_map(pixels, self.transform).T
        return np.stack(self.change.transform(x, y), axis=1)

    def pixels(self, degrees: Points) -> Points:
        x, y = self.change.transform(*degrees.T, direction="INVERSE")
        with np.errstate(invalid="ignore"):  # infinite where the CRS has no such place
            return to_map(np.stack([x, y], axis=1), ~self.transform)

    def outline(self, size: tuple[int, int]) -> Points | None:
        """The closed outline, its longitudes without jumps; None where it is not on the Earth."""
        box = shapely.box(0, 0, size[1], size[0])
        poles = [pole for pole in self.poles() if box.boundary.dwithin(pole, BESIDE_THE_POLE)]
        if poles:  # a pole has no longitude: pass by
            box = box.buffer(-2 * BESIDE_THE_POLE, join_style="mitre")
        along = shapely.get_coordinates(shapely.segmentize(box, max(size) / POINTS_A_SIDE))
        for pole in poles:
            along = _with_nearest(along, pole)
        for _ in range(ROUNDS):
            halved = np.insert(along, range(1, len(along)), (along[1:] + along[:-1]) / 2, axis=0)
            outline = self.degrees(halved)
            if not np.isfinite(outline).all():
                return None
            outline[:, 0] = np.unwrap(outline[:, 0], period=WHOLE_TURN)
            far = np.flatnonzero(_deviations(halved, outline) > CLOSE)
            if not len(far):
                break
            along = np.insert(along, far + 1, halved[1::2][far], axis=0)
        return outline[::2]

    def poles(self) -> list[Any]:
        """The north pole and the south pole in pixels, where the CRS has them in one place."""
        found = []
        for latitude in (90.0, -90.0):
            points = self.pixels(np.array([[0.0, latitude], [90.0, latitude]]))
            if np.isfinite(points).all() and np.abs(points[1] - points[0]).max() < BESIDE_THE_POLE:
                found.append(shapely.Point(points[0]))
        return found

    def inside_pole(self, size: tuple[int, int]) -> float:
        """The latitude of the pole around which the outline leads."""
        box = shapely.box(0, 0, size[1], size[0])
        inside = [pole for pole in self.poles() if box.contains(pole)]
        middle = shapely.get_coordinates(inside[0] if inside else box.centroid)
        return math.copysign(90.0, float(self.degrees(middle)[0, 1]))


def _deviations(pixels: Points, degrees: Points) -> Float[np.ndarray, " m"]:
    """How far, in pixels, the middles of straight lines between every second point of an outline are from the points
    between.
    """
    width = np.cos(np.radians(degrees[1::2, 1].clip(-90, 90)))  # of a degree of longitude, in degrees of latitude
    aside, halves = degrees[1::2] - (degrees[2::2] + degrees[:-2:2]) / 2, degrees[2::2] - degrees[1::2]
    apart, half = (np.hypot(values[:, 0] * width, values[:, 1]) for values in (aside, halves))
    lengths = np.hypot(*(pixels[2::2] - pixels[1::2]).T)
    return apart * lengths / np.maximum(half, np.finfo(float).tiny)


def _over_the_pole(outline: Points, latitude: float) -> More:
    """An outline that leads around a pole, closed over it."""
    if abs(outline[-1, 0] - outline[0, 0]) < WHOLE_TURN / 2:
        return outline
    return np.concatenate([outline, [[outline[-1, 0], latitude], [outline[0, 0], latitude]]])


def _with_nearest(along: Points, pole: Any) -> More:
    """The outline with its place nearest to a pole, where longitudes change at once."""
    ring = shapely.LineString(along)
    corners = shapely.line_locate_point(ring, shapely.points(along[:-1]))
    places = np.unique(np.concatenate([corners, [ring.project(pole), ring.length]]))
    return shapely.get_coordinates(shapely.line_interpolate_point(ring, places))


def _wrapped(longitude: float, at_180: float) -> float:
    """A longitude from -180 to 180; ``at_180`` on the 180th meridian."""
    wrapped = round((longitude + 180) % WHOLE_TURN - 180, DECIMALS)
    return at_180 if abs(wrapped) == 180 else wrapped
