"""Labels drawn over a scene: points, lines and polygons with a class, as pixels of the scene."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Int

from regard.classes import ClassMap
from regard.datasets.polygon_description import texts
from regard.errors import ClassMismatch, ConfigError, counted
from regard.io.gdal import rasterise
from regard.io.raster import Box, Raster
from regard.io.vectors import Polygons, elsewhere, in_pixels, layer_of, read_features

MOST = 200  # pixels of one object, drawn at random: a field weighs more than a click, but not without limit
STRIP = 2**22  # pixels that are drawn at once


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled pixels of a scene: where, which class, and of which object; the objects in the order of the file."""

    file: str
    sha256: str
    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    objects: Int[np.ndarray, " n"]

    def chosen(self, which: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]) -> Labels:
        """Some of the pixels."""
        fields = (self.rows, self.columns, self.labels, self.objects)
        return Labels(self.file, self.sha256, *(values[which] for values in fields))

    def counts(self, classes: ClassMap) -> dict[str, tuple[int, int]]:
        """How many objects and pixels of each class."""
        return {
            name: (len(np.unique(self.objects[self.labels == label])), int((self.labels == label).sum()))
            for label, name in enumerate(classes.names)
        }


def class_names(source: str | Path, column: str) -> tuple[str, ...]:
    """The values of a column, in alphabetical order.

    Raises:
        ConfigError: fewer than two.
    """
    features = read_features(source, [column])
    names = tuple(sorted({*texts(features.values[0]).tolist()} - {""}))
    if len(names) < 2:
        raise ConfigError(f"{features.file} has {len(names)} classes in column {column!r}; need two or more to tell.")
    return names


def read_labels(source: str | Path, raster: Raster, classes: ClassMap, column: str, seed: int = 0) -> Labels:
    """The pixels that points, lines and polygons label; where two overlap the later one of the file holds.

    A polygon labels the pixels whose centres it covers, a line or a point those that it touches.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no such column or no CRS, or no label lies on the scene.
        ClassMismatch: a class that is not one of the ``classes``.
    """
    features = read_features(source, [column])
    if raster.crs is None or features.crs is None:
        bare, tool = (features.file, "ogr2ogr") if features.crs is None else (raster.source.name, "gdal_edit.py")
        raise ConfigError(f"{bare} has no CRS, so the two do not meet. Give it its own: {tool} -a_srs.")
    shapes, label = in_pixels(features.shapes, features.crs, raster, features.file), _labels_of(features, classes)
    used = np.flatnonzero(label >= 0)
    found = [(place, _pixels(shapes[place], place, raster, seed)) for place in used.tolist()]
    rows, columns, objects = (
        np.concatenate([np.full(len(at), place) if axis == 2 else at[:, axis] for place, at in found] or [used])
        for axis in range(3)
    )
    if not len(rows):
        raise ConfigError(f"no label of {features.file} lies on {raster.source.name}: {elsewhere(source, raster)}")
    path = layer_of(source)[0]
    every = Labels(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), rows, columns, label[objects], objects)
    return every.chosen(_latest(every, shapes))


def _labels_of(features: Polygons, classes: ClassMap) -> Int[np.ndarray, " n"]:
    """The label of each object; -1 where it has none."""
    values = texts(features.values[0])
    known = {str(label): label for label in range(len(classes))}
    known |= {name: label for label, name in enumerate(classes.names)} | {"": -1}
    unknown = [value for value in dict.fromkeys(values.tolist()) if value not in known]
    if unknown:
        count = counted(int((values == unknown[0]).sum()), "object")
        raise ClassMismatch(
            f"{features.file} labels {count} {unknown[0]!r}; the classes are {', '.join(classes.names)}. Add it "
            f"(--add-class {unknown[0]}), or correct the column."
        )
    return np.array([known[value] for value in values.tolist()], dtype=np.int64)


def _pixels(shape: Any, number: int, raster: Raster, seed: int) -> Int[np.ndarray, "n 2"]:
    """Row and column of the pixels of a shape, in pixels of the raster; of many, some that are drawn at random."""
    rng, kept, keys = np.random.default_rng([seed, number]), np.empty((0, 2), np.int64), np.empty(0)
    for box in _strips(shape, raster.size):
        drawn = rasterise(np.array([shape]), np.ones(1, np.int64), box, fill=0)
        at = np.argwhere(drawn == 1) + np.array([box.top, box.left])
        kept, keys = np.concatenate([kept, at]), np.concatenate([keys, rng.random(len(at))])
        first = np.sort(np.argsort(keys, kind="stable")[:MOST])
        kept, keys = kept[first], keys[first]
    return kept


def _strips(shape: Any, size: tuple[int, int]) -> Iterator[Box]:
    """The bounds of a shape on a scene, in boxes of bounded size."""
    if shapely.is_empty(shape):
        return
    west, north, east, south = shapely.bounds(shape)
    left, right = max(0, math.floor(west)), min(size[1], math.floor(east) + 1)
    top, bottom = max(0, math.floor(north)), min(size[0], math.floor(south) + 1)
    if left < right:
        step = max(1, STRIP // (right - left))
        for begin in range(top, bottom, step):
            yield Box(begin, left, min(step, bottom - begin), right - left)


def _latest(labels: Labels, shapes: np.ndarray) -> Int[np.ndarray, " n"]:
    """The pixels that no later object labels too."""
    centres = shapely.points(labels.columns + 0.5, labels.rows + 0.5)
    pixel, other = shapely.STRtree(shapes).query(centres, predicate="intersects")
    later = (
        (other > labels.objects[pixel]) & np.isin(other, labels.objects) & (shapely.get_dimensions(shapes)[other] == 2)
    )
    places = np.stack([labels.rows, labels.columns], axis=1)[::-1]
    last = len(places) - 1 - np.unique(places, axis=0, return_index=True)[1]
    return np.setdiff1d(last, pixel[later])
