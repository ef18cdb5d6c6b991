"""The pixels of a map that a sample is drawn from: their strata, counted and found again, in pieces of a few rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from regard.assessment.design import Stratum
from regard.assessment.options import SampleOptions
from regard.assessment.units import Units, near_border
from regard.errors import ConfigError
from regard.io.class_map_file import STRIP, LabelMap
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
    """The pixels at the centre of drawn units, and the stratum of each by its place among the strata."""

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    strata: Int[np.ndarray, " n"]


class Zones(NamedTuple):
    """Polygons in pixels of a map, each with the number of its name among ``names``; the first is the ground outside.
    Where two overlap the later holds.
    """

    shapes: np.ndarray
    numbers: Int[np.ndarray, " n"]
    names: list[str]

    @classmethod
    def of(cls, layer: str | Path | None, source: LabelMap) -> Zones:
        """The polygons of a layer; without any, all ground is outside."""
        if layer is None:
            return cls(np.empty(0, object), np.empty(0, int), [OUTSIDE])
        shapes, found = _polygons(layer, source)
        names, inverse = np.unique(found, return_inverse=True)
        return cls(shapes, inverse + 1, [OUTSIDE, *names.tolist()])

    def at(self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The number of the name at some pixels."""
        boxes = [Box(row, column, 1, 1) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        near = [reaching(self.shapes, box) for box in boxes]
        parts = zip(boxes, near, strict=True)
        return np.array([rasterise(self.shapes[n], self.numbers[n], box, fill=0)[0, 0] for box, n in parts], int)


class Population:
    """The units of a class map, pixels or blocks, that have data and lie in the area of interest, each in one stratum.

    A stratum is a class or, where polygons are given, a class in the polygons of one name; with the confidence of the
    map, ``certainty``, that at one level of confidence; and with ``boundary``, that near another class or not. A block
    lies where its centre lies, has the mean confidence of its pixels with data, and is near a border with any of them.
    """

    def __init__(self, source: LabelMap, options: SampleOptions, certainty: Raster | None = None) -> None:
        self.map = source
        self.area: Any = None if options.aoi is None else area_of_interest(options.aoi, source.raster)
        self.ground = Ground.of(source.crs, source.transform)
        zones = Zones.of(options.strata, source)
        self.shapes, self.zones, self.names = zones.shapes, zones.numbers, zones.names
        self.certainty, self.levels = certainty, options.levels if certainty is not None else ()
        self.units, self.reach = Units(options.block or 1), options.boundary or 0
        self.parts = len(self.names) * len(source.classes) * (len(self.levels) + 1)
        self.most = self.parts * (2 if self.reach else 1)  # strata, those without a unit too

    def pieces(self) -> Iterator[tuple[int, Shaped[np.ndarray, "h w"], Int[np.ndarray, "m n"]]]:
        """From north to south, some rows of units: the first pixel's row, the labels, and the strata (``most``: none).

        Where borders matter, rows are read beyond both ends of a piece.
        """
        (height, width), side, reach = self.map.size, self.units.side, self.reach
        tall, step = max(1, STRIP // side) * side, max(1, PIECE // width // side) * side
        for top in range(0, height, tall):
            above, last = max(0, top - reach), min(top + tall, height)
            rows = self.map.read(above, min(last + reach, height) - above)
            for begin in range(top, last, step):
                end, first = min(begin + step, last), max(0, begin - reach)
                box = Box(begin, 0, end - begin, width)
                strata = self._strata(rows[begin - above : end - above], box)
                if reach:
                    near = near_border(rows[first - above : end + reach - above], len(self.map.classes), reach)
                    touched = self.units.sums(near[begin - first : end - first].astype(np.intp)) > 0
                    strata += np.where(touched & (strata < self.most), self.parts, 0)
                yield begin, rows[begin - above : end - above], strata

    def _strata(self, labels: Shaped[np.ndarray, "h w"], box: Box) -> Int[np.ndarray, "m n"]:
        """The stratum of each unit, its border apart."""
        count, units = len(self.map.classes), self.units
        strata = units.labels(labels, count)
        left_out: Bool[np.ndarray, "m n"] = strata >= count
        if len(self.shapes):
            near = reaching(self.shapes, box)
            strata += count * units.at_centres(rasterise(self.shapes[near], self.zones[near], box, fill=0))
        if self.certainty is not None:
            steps = np.where(labels < count, self.certainty.read_band(box), 0).astype(np.int64)
            mean = units.sums(steps) / np.maximum(1, units.sums((labels < count).astype(np.int64)))
            strata += count * len(self.names) * np.digitize(mean, [255 * level for level in self.levels])
        if self.area is not None:
            left_out |= ~units.at_centres(inside(self.area, box))
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
                weights = np.where(labels < len(self.map.classes), cells.areas(Box(top, 0, *labels.shape)), 0)
                areas += np.bincount(strata.ravel(), self.units.sums(weights).ravel(), self.most + 1)[: self.most]
        if not pixels.any():
            raise ConfigError(f"{self.map.name} has no pixel with data in the area. Choose another area.")
        return [self._stratum(index, pixels, areas) for index in np.flatnonzero(pixels).tolist()], digest.hexdigest()

    def _stratum(self, index: int, pixels: np.ndarray, areas: np.ndarray) -> Stratum:
        border, within = divmod(index, self.parts)
        rest, label = divmod(within, len(self.map.classes))
        level, zone = divmod(rest, len(self.names))
        polygon = self.names[zone] if len(self.names) > 1 else None
        limits = [0.0, *self.levels, 1.0]
        confidence = (limits[level], limits[level + 1]) if self.levels else None
        area = None if self.ground is None else float(areas[index])
        found = Stratum(index, label, self.map.classes.names[label], polygon, int(pixels[index]), area)
        return replace(found, confidence=confidence, border=bool(border) if self.reach else None)

    def drawn(self, strata: list[Stratum], seed: int) -> Place:
        """Units at random without replacement in each stratum: ranks among its units in row-major order are drawn,
        and then found in the map. So neither the file's blocks nor the pieces have a part in it.
        """
        side, width = self.units.side, self.units.shape(*self.map.size)[1]
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
                found[code].append(places + top // side * width)
                following[code] = ranks[code][end] if end < len(ranks[code]) else NONE_LEFT
            seen = passed
            if following.min() == NONE_LEFT:
                break
        each = [np.concatenate(found[stratum.code]) for stratum in strata]
        at = side * np.stack(np.divmod(np.concatenate(each), width), axis=1)
        rows, columns = self.units.centres(at, self.map.size).astype(np.int64).T
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


def units_at(
    source: LabelMap, units: Units, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The class of the units at some pixels, and their ground with data: m², or pixels where the ground is unknown."""
    ground, count = Ground.of(source.crs, source.transform), len(source.classes)
    mapped, size = np.full(len(rows), count), np.zeros(len(rows))
    for place, at in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        box = units.box(*at, source.size)
        labels = source.read_box(box)
        each = np.ones(labels.shape) if ground is None else ground.pixel_areas(box)
        mapped[place], size[place] = units.labels(labels, count)[0, 0], each[labels < count].sum()
    return mapped, size


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
