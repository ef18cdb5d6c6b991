"""Strips of labels to polygons that fit together without gaps, in pixel coordinates (column, row).

Each strip becomes polygons for itself; those that meet on the line between two strips are joined as soon as no more can
follow, so memory grows with the width of the map and with the outlines of the regions that are still open, not with the
height. Neighbours share every vertex, also where three regions meet, so that the polygons stay a coverage (no gaps, no
overlaps) under any later mapping of points. No data is traced like a class, and simplified like one, and then dropped.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import shapely
from jaxtyping import Bool, Float, Int, Shaped
from rasterio.transform import Affine

from regard.errors import ConfigError
from regard.io.ground import Ground
from regard.io.raster import Box

NOBODY = -1
ROWS_SUMMED_AT_ONCE = 32  # each number takes 16 bytes while it is summed


class Strip(NamedTuple):
    """Some rows of a map: the first one's number, their labels, and a value to add up over each region."""

    top: int
    labels: Shaped[np.ndarray, "h w"]
    values: Shaped[np.ndarray, "h w"] | None = None


@dataclass(eq=False)
class Region:
    """4-connected pixels of one class: the pieces found so far, and the sums of their values and of their ground."""

    label: int
    pieces: list[Any]
    pixels: float = 0.0
    total: float = 0.0
    area: float = 0.0  # m²
    _joined: Region | None = field(default=None, repr=False)

    def root(self) -> Region:
        """The region that this one has become part of, or itself."""
        region = self
        while region._joined is not None:
            region = region._joined
        return region

    def join(self, other: Region) -> None:
        """Make one region of two that meet."""
        large, small = self.root(), other.root()
        if large is small:
            return
        if len(large.pieces) < len(small.pieces):
            large, small = small, large
        large.pieces += small.pieces
        large.pixels += small.pixels
        large.total += small.total
        large.area += small.area
        small.pieces, small._joined = [], large

    def pack(self) -> None:
        """Keep the pieces compressed while more may follow: a hole of five points takes 300 bytes in GEOS."""
        self.pieces = [zlib.compress(shapely.to_wkb(piece), 1) for piece in self.pieces]

    def polygon(self) -> Any:
        """The pieces as one polygon: holes, which end within a strip, are holes of the whole; only the outer rings
        are joined, which takes far less memory.
        """
        if len(self.pieces) == 1:
            return _unpacked(self.pieces[0])
        whole = joined(_unpacked(piece).exterior for piece in self.pieces)
        holes = chain(whole.interiors, *(_unpacked(piece).interiors for piece in self.pieces))
        return shapely.Polygon(whole.exterior, list(holes))


def _unpacked(piece: Any) -> Any:
    return shapely.from_wkb(zlib.decompress(piece)) if isinstance(piece, bytes) else piece


def joined(rings: Iterable[Any]) -> Any:
    """One polygon of rings on pixel corners that meet along level edges with the same ends, and together form one
    4-connected area: what shapely.coverage_union_all gives, in less memory.
    """
    lines = _borders(*shapely.get_coordinates(list(rings), return_index=True))
    faces = shapely.get_parts(shapely.polygonize(lines))  # the area and, for themselves, its holes
    return faces[np.argmin(shapely.bounds(faces)[:, 0])]


def _borders(points: Float[np.ndarray, "n 2"], whose: Int[np.ndarray, " n"]) -> np.ndarray:
    """The lines in which rings do not meet, cut where several begin."""
    corner = points[:, 1] * 2.0**32 + points[:, 0]
    kept = whose[:-1] == whose[1:]
    level = np.flatnonzero(kept & (points[:-1, 1] == points[1:, 1]))
    kept[level] = ~_repeated(np.minimum(corner[level], corner[level + 1]))
    edges = np.flatnonzero(kept)
    first = (np.diff(edges, prepend=-2) > 1) | _repeated(corner[edges])
    last = np.flatnonzero(np.append(first[1:], True))
    corners = np.insert(edges, last + 1, edges[last] + 1)
    line = np.insert(np.cumsum(first) - 1, last + 1, np.arange(len(last)))
    return shapely.linestrings(points[corners], indices=line)


def _repeated(keys: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which keys are there more than once."""
    ordered = np.sort(keys)
    several = np.append(ordered[1:][ordered[1:] == ordered[:-1]], np.inf)
    return several[np.searchsorted(several, keys)] == keys


def regions(
    strips: Iterable[Strip], simplify: float = 0.0, left_out: Collection[int] = (), ground: Ground | None = None
) -> Iterator[list[Region]]:
    """The regions of a map, in lists: those that end with each strip, from top to bottom; ``ground`` gives their areas.
    Labels that are ``left_out``, such as that for no data, give none.

    ``simplify`` (pixels) drops corners whose triangle with their neighbours is smaller than its square, on both sides
    of a border alike; corners where three regions meet or where a border crosses the line between two strips stay.

    Raises:
        ConfigError: a negative ``simplify``.
    """
    if not 0 <= simplify < float("inf"):
        raise ConfigError(f"simplify {simplify} must be 0 (off) or a number of pixels.")
    above, owners, still_open = None, None, list[Region]()
    for strip, following in pairwise(chain(strips, [None])):
        assert strip is not None
        below = None if following is None else following.labels[0]
        found, first, last = _traced(strip, above, below, simplify, ground)
        kept = [NOBODY if region.label in left_out else place for place, region in enumerate(found)]
        first, last = _named(first, kept), _named(last, kept)
        for place in np.setdiff1d([first, last], NOBODY):
            found[place].pack()
        for upper, lower in _meetings(owners, first):
            if still_open[upper].label == found[lower].label:
                still_open[upper].join(found[lower])
        roots = dict.fromkeys(region.root() for region in chain(still_open, (found[i] for i in kept if i != NOBODY)))
        going_on = dict.fromkeys(found[index].root() for index in np.unique(last[last != NOBODY]))
        yield [region for region in roots if region not in going_on]
        still_open = list(going_on)
        places = {region: place for place, region in enumerate(still_open)}
        owners = _named(last, [places.get(region.root(), NOBODY) for region in found])
        above = strip.labels[-1]
    yield still_open


def _named(owners: Int[np.ndarray, " w"], names: list[int]) -> Int[np.ndarray, " w"]:
    """Each column's owner under its new number; nobody's columns stay nobody's."""
    return np.array([*names, NOBODY])[owners]


def _meetings(upper: Int[np.ndarray, " w"] | None, lower: Int[np.ndarray, " w"]) -> list[tuple[int, int]]:
    """Who lies above whom, each pair once; nobody lies above the first strip."""
    if upper is None:
        return []
    both = (upper != NOBODY) & (lower != NOBODY)
    pairs = np.unique(np.stack([upper[both], lower[both]], axis=1), axis=0)
    return [(int(above), int(below)) for above, below in pairs]


def _traced(
    strip: Strip, above: np.ndarray | None, below: np.ndarray | None, simplify: float, ground: Ground | None
) -> tuple[list[Region], Int[np.ndarray, " w"], Int[np.ndarray, " w"]]:
    """The regions of one strip, and whose pixels lie in its first and its last row."""
    top, labels, _ = strip
    (height, width), shift = labels.shape, Affine.translation(0, top)
    shapes, traced = trace(labels, shift)
    sums = shapely.area(shapes), *_sums(shapes, strip, ground)
    pixel_sides = shapely.transform(shapely.segmentize(shapes, 1.0), np.rint)  # segmentize gives 0.9999999999999999
    whole = shapely.coverage_simplify(pixel_sides, simplify, simplify_boundary=False)
    first, last = _owners(whole, top, width), _owners(whole, top + height, width)
    sides = (
        (1, top, 0, _ends(labels[0]) | _ends(labels[0] if above is None else above)),
        (1, top + height, 0, _ends(labels[-1]) | _ends(labels[-1] if below is None else below)),
        (0, 0, top, _ends(labels[:, 0])),
        (0, width, top, _ends(labels[:, -1])),
    )
    rows = zip(traced.tolist(), thinned(whole, sides), *(column.tolist() for column in sums), strict=True)
    return [Region(value, [shape], *numbers) for value, shape, *numbers in rows], first, last


def _sums(shapes: Any, strip: Strip, ground: Ground | None) -> Float[np.ndarray, "2 n"]:
    """The sums of the values and of the ground within each polygon; the polygons cover the strip."""
    top, labels, values = strip
    sums = np.zeros((2, len(shapes)))
    if values is None and ground is None:
        return sums
    numbered = zip(shapes, range(len(shapes)), strict=True)
    inside = rasterio.features.rasterize(numbered, labels.shape, transform=Affine.translation(0, top), dtype=np.int32)
    for row in range(0, len(labels), ROWS_SUMMED_AT_ONCE):
        owners = inside[row : row + ROWS_SUMMED_AT_ONCE]
        if values is not None:
            part = values[row : row + ROWS_SUMMED_AT_ONCE]
            sums[0] += np.bincount(owners.ravel(), part.ravel(), len(shapes))
        if ground is not None:
            areas = ground.pixel_areas(Box(top + row, 0, *owners.shape))
            sums[1] += np.bincount(owners.ravel(), areas.ravel(), len(shapes))
    return sums


def trace(labels: Shaped[np.ndarray, "h w"], transform: Affine) -> tuple[Any, Shaped[np.ndarray, " n"]]:
    """Polygons around 4-connected equal labels, and their labels."""
    points, values, lengths, counts = array("d"), [], [], []
    for shape, value in rasterio.features.shapes(labels, connectivity=4, transform=transform):
        for ring in shape["coordinates"]:  # tuples of Python: an array takes a tenth of the memory
            points.extend(chain.from_iterable(ring))
            lengths.append(len(ring))
        values.append(value)
        counts.append(len(shape["coordinates"]))
    ring_ends, polygon_ends = np.cumsum([0, *lengths]), np.cumsum([0, *counts])
    xy = np.frombuffer(points).reshape(-1, 2)
    shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (ring_ends, polygon_ends))
    return shapes, np.array(values, labels.dtype)


def _ends(row: Shaped[np.ndarray, " w"]) -> Bool[np.ndarray, " v"]:
    """Where the label changes along a row (or column), its two ends included."""
    return np.concatenate([[True], row[1:] != row[:-1], [True]])


def _owners(shapes: Any, y: int, width: int) -> Int[np.ndarray, " w"]:
    """Whose side, one pixel long, lies on the line ``y`` in each column."""
    points, whose = shapely.get_coordinates(shapes, return_index=True)
    on_line = (points[:-1, 1] == y) & (points[1:, 1] == y) & (whose[:-1] == whose[1:])
    owners = np.full(width, NOBODY)
    owners[np.minimum(points[:-1, 0], points[1:, 0])[on_line].astype(int)] = whose[:-1][on_line]
    return owners


def thinned(shapes: Any, sides: Iterable[tuple[int, int, int, Bool[np.ndarray, " _"]]]) -> Any:
    """The polygons without the vertices in the midst of the strip's sides at which no border ends.

    A side is an axis (0: upright, 1: level), its place on it, the number of its first vertex, and which of its vertices
    to keep.
    """
    kind, points, (ring_ends, polygon_ends) = shapely.to_ragged_array(shapes)
    before, after = np.arange(len(points)) - 1, np.arange(len(points)) + 1
    before[ring_ends[:-1]] = ring_ends[1:] - 2  # the last point of a ring is the first
    after[ring_ends[1:] - 1] = ring_ends[:-1] + 1
    spare = np.zeros(len(points), bool)
    for axis, place, start, keep in sides:
        on = points[:, axis] == place
        inner = np.flatnonzero(on & on[before] & on[after])
        spare[inner] |= ~keep[points[inner, 1 - axis].astype(int) - start]
    kept_before = np.concatenate([[0], np.cumsum(~spare)])
    return shapely.from_ragged_array(kind, points[~spare], (kept_before[ring_ends], polygon_ends))
