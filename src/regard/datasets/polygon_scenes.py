"""Scenes whose labels are polygons, cut into the windows of their splits: by blocks of ground, or as a column says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regard.classes import ClassMap, first_reason
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.polygon_labels import Drawn
from regard.errors import ClassMismatch, DatasetError, unknown
from regard.io.areas import to_map
from regard.io.raster import Box, open_raster
from regard.io.resampled_raster import at_gsd
from regard.io.vectors import read_polygons

BLOCKS = 8  # along the longer side of a scene
SPLITS = ("train", "val", "test")


class Scenes(BaseModel):
    """A description of scenes and of the polygons over them; paths are relative to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(min_length=1)
    labels: str
    column: str
    classes: tuple[str, ...] | None = None  # in this order; without them the column's values by alphabet
    split: str | None = None  # a column that says train, val or test
    val: float = Field(0.3, ge=0, lt=1)  # share of each class's area, where no column says it
    touched: bool = False  # label every pixel that a polygon touches, not those alone whose centre it covers
    block: int | None = Field(None, ge=1)  # pixels; polygons whose centres are in one block go to one split
    window: int = Field(1024, ge=32)  # pixels
    gsd: float | None = Field(None, gt=0)  # metres per pixel at which scenes are read and labels drawn

    @classmethod
    def read(cls, path: Path) -> Scenes:
        """The description in a JSON file.

        Raises:
            DatasetError: it is missing, not JSON, or lacks a part.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
        except ValidationError as error:
            reason = cls._told(error)
        except (OSError, ValueError) as error:
            reason = f"not JSON: {error}"
        raise DatasetError(
            f'{path}: {reason}. It needs {{"images": ["scene.tif"], "labels": "fields.gpkg", "column": "class"}}.'
        )

    @classmethod
    def _told(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            return str(unknown("key", str(first["loc"][0]), cls.model_fields)).rstrip(".")
        got = "" if first["type"] == "missing" else f", got {json.dumps(first['input'])[:60]}"
        return first_reason(error).replace("a valid tuple", "a list in [ ]") + got


def scenes_with_polygons(path: Path) -> LabelledData:
    """The windows of the scenes that ``path`` describes, by split; no polygon is in two splits.

    Raises:
        DatasetError: the description is not whole, or polygons miss a scene.
        ClassMismatch: a class that is not listed, or fewer than two.
        UnreadableImage, ConfigError: see ``open_raster`` and ``read_polygons``.
    """
    told, over, classes, labels, part = assign(path)
    splits: dict[str, tuple[Pair, ...]] = {}
    for name, scene in zip(told.images, over, strict=True):
        for split in SPLITS:
            chosen = scene.here & (part == split)
            drawn = Drawn(scene.shapes[chosen], labels[chosen], told.touched)
            pairs = _windows(path.parent / name, path.parent / told.labels, drawn, scene.size, told)
            splits[split] = (*splits.get(split, ()), *pairs)
    return LabelledData(path, classes, {split: pairs for split, pairs in splits.items() if pairs}, gsd=told.gsd)


class Assigned(NamedTuple):
    """A description, all polygons over each of its scenes, the classes, and the label and split of each polygon."""

    told: Scenes
    over: list[Over]
    classes: ClassMap
    labels: Int[np.ndarray, " n"]
    part: np.ndarray


def assign(path: Path) -> Assigned:
    """What each polygon of the described file is labelled as, and the split that it belongs to; empty if unused.

    Raises:
        DatasetError, ClassMismatch, UnreadableImage, ConfigError: see :func:`scenes_with_polygons`.
    """
    told = Scenes.read(path)
    over = [_over(path.parent / name, path.parent / told.labels, told) for name in told.images]
    kinds = over[0].values[0]  # of all polygons of the file, as what follows
    used = np.any([scene.here for scene in over], axis=0)
    classes = ClassMap.of(told.classes or sorted(set(kinds[used].tolist())))
    labels = _labels(kinds, used, classes, told.labels)
    part = _split_by_blocks(over[0], labels, used, told) if told.split is None else _split_as_told(over[0], used, told)
    return Assigned(told, over, classes, labels, part)


class Over(NamedTuple):
    """All polygons of a file in a scene's pixels, which of them lie on it and have a class, and their values."""

    shapes: np.ndarray
    here: Bool[np.ndarray, " n"]
    values: list[np.ndarray]
    size: tuple[int, int]


def _over(image: Path, vectors: Path, how: Scenes) -> Over:
    with open_raster(image) as native, at_gsd(native, how.gsd) as raster:
        shapes, values = read_polygons(vectors, raster, [how.column, *([how.split] if how.split else [])])
        inverse, size, bounds = ~raster.transform, raster.size, raster.dataset.bounds
    pixels = np.array(shapely.transform(shapes, lambda xy: to_map(xy, inverse)), dtype=object)
    texts = [np.array([text_of(value) for value in column]) for column in values]
    here = shapely.intersects(shapely.box(*shapely.bounds(pixels).T), shapely.box(0, 0, size[1], size[0]))
    here &= texts[0] != ""
    if not here.any():
        reach, extent = (
            ", ".join(f"{value:.6g}" for value in corners) for corners in (shapely.total_bounds(shapes), bounds)
        )
        raise DatasetError(
            f"{vectors.name} has no polygon with a class on {image.name}: in its CRS it covers {reach}, the scene "
            f"{extent}. Take the scene off the list, or correct the CRS."
        )
    return Over(pixels, here, texts, size)


def text_of(value: Any) -> str:
    """A value of a column as the name of a class; empty if there is none."""
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()


def _labels(kinds: np.ndarray, used: Bool[np.ndarray, " n"], classes: ClassMap, file: str) -> Int[np.ndarray, " n"]:
    """The label of each polygon; the ignore index for those that are not used."""
    strange = sorted(set(kinds[used].tolist()) - set(classes.names))
    if strange:
        raise ClassMismatch(
            f"{file} has {(kinds[used] == strange[0]).sum()} polygons of {strange[0]!r}; the classes are "
            f"{', '.join(classes.names)}. Add it to 'classes', or correct the column."
        )
    known = {name: label for label, name in enumerate(classes.names)}
    return np.array([known.get(kind, classes.ignore_index) for kind in kinds.tolist()], dtype=np.int64)


def _split_as_told(first: Over, used: Bool[np.ndarray, " n"], how: Scenes) -> np.ndarray:
    """The split of each polygon as a column says it."""
    strange = sorted(set(first.values[1][used].tolist()) - set(SPLITS))
    if strange:
        raise DatasetError(f"column {how.split} says {strange[0]!r}; it may say {', '.join(SPLITS)}. Correct it.")
    return first.values[1]


def _split_by_blocks(
    first: Over, labels: Int[np.ndarray, " n"], used: Bool[np.ndarray, " n"], how: Scenes
) -> np.ndarray:
    """The split of each polygon by the block of ground that holds its centre, in the grid of the first scene."""
    side = how.block or max(1, max(first.size) // BLOCKS)
    cells = shapely.get_coordinates(shapely.centroid(first.shapes[used])) // side
    block = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    area = np.zeros((block.max() + 1, labels[used].max() + 1))
    np.add.at(area, (block, labels[used]), shapely.area(first.shapes[used]))
    part = np.full(len(used), "", dtype="U5")
    part[used] = np.where(blocks_for_val(area, how.val)[block], "val", "train")
    return part


def blocks_for_val(area: Float[np.ndarray, "m k"], share: float) -> Bool[np.ndarray, " m"]:
    """Which blocks go to val: ``share`` of each class's area or little more, the classes of fewest blocks first.

    A block is not taken if a class of it would be left with none to train on.
    """
    taken, total = np.zeros(len(area), dtype=bool), area.sum(axis=0)
    for label in np.argsort((area > 0).sum(axis=0), kind="stable"):
        while area[taken, label].sum() < share * total[label]:
            rest = area[~taken].sum(axis=0) - area  # what would be left
            free = np.flatnonzero(~taken & (area[:, label] > 0) & ((rest > 1e-9 * total) | (area == 0)).all(axis=1))
            if not free.size:
                break
            got = area[taken].sum(axis=0) + area[free]
            off = np.abs(got / np.maximum(total, 1e-9) - share).sum(axis=1)
            taken[free[off.argmin()]] = True
    return taken


def _windows(image: Path, vectors: Path, drawn: Drawn, size: tuple[int, int], how: Scenes) -> list[Pair]:
    """The windows of a scene that have polygons, each with these alone."""
    pairs, side = [], how.window
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            box = Box(top, left, min(side, size[0] - top), min(side, size[1] - left))
            near = drawn.within(box)
            if near.any():
                pairs.append(Pair(f"{image.stem}_{top}_{left}", image, vectors, box, drawn.of(near), how.gsd))
    return pairs
