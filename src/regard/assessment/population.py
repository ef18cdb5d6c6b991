"""The pixels of a map that a sample is drawn from: their strata, counted and found again, in pieces of a few rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from regard.assessment.design import Stratum
from regard.assessment.options import SampleOptions
from regard.errors import ConfigError
from regard.io.class_map_file import LabelMap
from regard.io.extent import reaching
from regard.io.gdal import inside, rasterise
from regard.io.ground import Ground, ground_resolution
from regard.io.raster import Box, Raster
from regard.io.vectors import area_of_interest, read_polygons

PIECE = 2**20  # pixels that are worked on at a time; each takes some 30 bytes
CELL, CELL_METRES = 64, 500.0  # pixels and metres of a row that are taken to have the same area, at most
OUTSIDE = "outside"  # the name of the ground in no polygon
NONE_LEFT = np.iinfo(np.int64).max


class Place(NamedTuple):
    """Where drawn pixels lie, and the stratum of each by its place among the strata."""

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    strata: Int[np.ndarray, " n"]


class Population:
    """The pixels of a class map that have data and lie in the area of interest, each in one stratum.

    A stratum is a class or, where polygons are given, a class in the polygons of one name; with the confidence of the
    map, ``certainty``, that at one level of confidence.
    """

    def __init__(self, source: LabelMap, options: SampleOptions, certainty: Raster | None = None) -> None:
        self.map = source
        self.area: Any = None if options.aoi is None else area_of_interest(options.aoi, source.raster)
        self.ground = Ground.of(source.crs, source.transform)
        self.shapes, self.zones, self.names = np.empty(0, object), np.empty(0, int), [OUTSIDE]
        if options.strata is not None:
            self.shapes, found = _polygons(options.strata, source)
            names, inverse = np.unique(found, return_inverse=True)
            self.names, self.zones = [OUTSIDE, *names.tolist()], inverse + 1
        self.certainty, self.levels = certainty, options.levels if certainty is not None else ()
        self.most = len(self.names) * len(source.classes) * (len(self.levels) + 1)  # strata, those without a pixel too

    def pieces(self) -> Iterator[tuple[int, Shaped[np.ndarray, "h w"], Int[np.ndarray, "h w"]]]:
        """From north to south, some rows: the first one's number, their labels, and their strata (``most``: none)."""
        step = max(1, PIECE // self.map.size[1])
        for top, rows in self.map.strips():
            for first in range(0, len(rows), step):
                labels = rows[first : first + step]
                yield top + first, labels, self._strata(labels, Box(top + first, 0, *labels.shape))

    def _strata(self, labels: Shaped[np.ndarray, "h w"], box: Box) -> Int[np.ndarray, "h w"]:
        count = len(self.map.classes)
        strata = labels.astype(np.intp)
        left_out: Bool[np.ndarray, "h w"] = labels >= count
        if len(self.shapes):
            near = reaching(self.shapes, box)
            strata += count * rasterise(self.shapes[near], self.zones[near], box, fill=0)
        if self.certainty is not None:
            limits = [255 * level for level in self.levels]
            strata += count * len(self.names) * np.digitize(self.certainty.read_band(box), limits)
        if self.area is not None:
            left_out |= ~inside(self.area, box)
        strata[left_out] = self.most
        return strata

    def counted(self) -> tuple[list[Stratum], str]:
        """All strata that have a pixel, and the map's fingerprint.

        Raises:
            ConfigError: no pixel is left.
        """
        pixels, areas, digest = np.zeros(self.most, np.int64), np.zeros(self.most), started(self.map)
        cells = Cells(self.map, self.ground)
        for top, labels, strata in self.pieces():
            digest.update(labels.tobytes())
            pixels += np.bincount(strata.ravel(), minlength=self.most + 1)[: self.most]
            if self.ground is not None:
                weights = cells.areas(Box(top, 0, *strata.shape))
                areas += np.bincount(strata.ravel(), weights.ravel(), self.most + 1)[: self.most]
        if not pixels.any():
            raise ConfigError(f"{self.map.raster.source.name} has no pixel with data in the area. Choose another area.")
        return [self._stratum(index, pixels, areas) for index in np.flatnonzero(pixels).tolist()], digest.hexdigest()

    def _stratum(self, index: int, pixels: np.ndarray, areas: np.ndarray) -> Stratum:
        rest, label = divmod(index, len(self.map.classes))
        level, zone = divmod(rest, len(self.names))
        polygon = self.names[zone] if len(self.names) > 1 else None
        limits = [0.0, *self.levels, 1.0]
        confidence = (limits[level], limits[level + 1]) if self.levels else None
        area = None if self.ground is None else float(areas[index])
        return Stratum(
            index, label, self.map.classes.names[label], polygon, int(pixels[index]), area, confidence=confidence
        )

    def drawn(self, strata: list[Stratum], seed: int) -> Place:
        """Pixels at random without replacement in each stratum: ranks among its pixels in row-major order are drawn,
        and then found in the map. So neither the file's blocks nor the pieces have a part in it.
        """
        ranks = {stratum.code: _ranks(stratum, seed) for stratum in strata}
        following, seen = np.full(self.most, NONE_LEFT), np.zeros(self.most, np.int64)
        following[[*ranks]] = [chosen[0] for chosen in ranks.values()]
        found: dict[int, list[np.ndarray]] = {code: [] for code in ranks}
        for top, _, codes in self.pieces():
            flat = codes.ravel()
            passed = seen + np.bincount(flat, minlength=self.most + 1)[: self.most]
            for code in np.flatnonzero(following < passed).tolist():
                begin, end = np.searchsorted(ranks[code], [seen[code], passed[code]])
                places = np.flatnonzero(flat == code)[ranks[code][begin:end] - seen[code]]
                found[code].append(places + top * self.map.size[1])
                following[code] = ranks[code][end] if end < len(ranks[code]) else NONE_LEFT
            seen = passed
            if following.min() == NONE_LEFT:
                break
        each = [np.concatenate(found[stratum.code]) for stratum in strata]
        rows, columns = np.divmod(np.concatenate(each), self.map.size[1])
        return Place(rows, columns, np.repeat(np.arange(len(strata)), [len(places) for places in each]))


def _ranks(stratum: Stratum, seed: int) -> Int[np.ndarray, " n"]:
    generator = np.random.default_rng([seed, stratum.code])
    return np.sort(generator.choice(stratum.pixels, stratum.points, replace=False, shuffle=False)).astype(np.int64)


def _polygons(source: Any, made: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """The polygons in pixels of the map, and the name of each: its column ``name``, else its id."""
    try:
        polygons = read_polygons(source, made.raster, ["name"])
        return polygons.shapes, polygons.values[0].astype(str)
    except ConfigError:
        polygons = read_polygons(source, made.raster)
        return polygons.shapes, polygons.ids.astype(str)


class Cells:
    """The area of pixels, the same for some pixels of a row side by side: it hardly changes over 500 m."""

    def __init__(self, source: LabelMap, ground: Ground | None) -> None:
        metres = None if ground is None else ground_resolution(source.raster)
        self.length = int(np.clip(CELL_METRES / metres, 1, CELL)) if metres else 1
        self.ground = Ground.of(source.crs, source.transform @ source.transform.scale(self.length, 1))

    def areas(self, box: Box) -> Float[np.ndarray, "h w"]:
        """In m², of the pixels of whole rows."""
        assert self.ground is not None
        wide = self.ground.pixel_areas(box._replace(width=-(-box.width // self.length)))
        return np.repeat(wide / self.length, self.length, axis=1)[:, : box.width]


def pixel_areas(source: LabelMap, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> np.ndarray:
    """The area of single pixels in m²; 1 where the ground is unknown."""
    ground = Ground.of(source.crs, source.transform)
    if ground is None:
        return np.ones(len(rows))
    at = zip(rows.tolist(), columns.tolist(), strict=True)
    return np.array([ground.pixel_areas(Box(row, column, 1, 1))[0, 0] for row, column in at])


def fingerprint(source: LabelMap) -> str:
    """The same for the same labels, classes and place, whatever the file's compression, blocks and tags."""
    digest = started(source)
    for _, rows in source.strips():
        digest.update(rows.tobytes())
    return digest.hexdigest()


def started(source: LabelMap) -> Any:
    """The digest of a map before its labels."""
    place = [f"{value:.9g}" for value in source.transform[:6]]
    return hashlib.sha256(repr((source.size, place, source.classes.names, source.raster.dtypes[:1])).encode())
