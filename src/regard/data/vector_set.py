"""Scenes whose labels are polygons, cut into the windows of their spltheir: blocks of ground, or as a column says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regard.classes import ClassMap, first_reason
from regard.data.areas import to_map
from regard.data.drawn import Drawn
from regard.data.raster import Box, open_raster
from regard.data.sample import LabelledData, Pair
from regard.data.vector_file import read_polygons
from regard.errors import ClassMismatch, DatasetError

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

    @classmethod
    def read(cls, path: Path) -> Scenes:
        """The description in a JSON file.

        Raises:
            DatasetError: it is missing, not JSON, or lacks a part.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
        except ValidationError as error:
            reason = first_reason(error)
        except (OSError, ValueError) as error:
            reason = f"not JSON: {error}"
        raise DatasetError(
            f'{path}: {reason}. It needs {{"images": ["scene.tif"], "labels": "fields.gpkg", "column": "class"}}.'
        )


def scenes_with_polygons(path: Path) -> LabelledData:
    """The windows of the scenes that ``path`` describes, by split; no polygon is in two splits.

    Raises:
        DatasetError: the description is not whole, or polygons miss a scene.
        ClassMismatch: a class that is not listed, or fewer than two.
        UnreadableImage, ConfigError: see ``open_raster`` and ``read_polygons``.
    """
    told = Scenes.read(path)
    images, vectors = [path.parent / name for name in told.images], path.parent / told.labels
    columns = (told.column, *([told.split] if told.split else []))
    found = [_over(image, vectors, columns) for image in images]
    classes = ClassMap.of(told.classes or sorted({str(name) for _, values, _ in found for name in values[0]}))
    known = [_labelled(shapes, values, classes, told) for shapes, values, _ in found]
    sides = [told.block or max(1, max(size) // BLOCKS) for _, _, size in found]
    parts = _parts([drawn for drawn, _ in known], [names for _, names in known], sides, told)
    splits: dict[str, tuple[Pair, ...]] = {}
    for image, (drawn, _), part, (_, _, size) in zip(images, known, parts, found, strict=True):
        for split in SPLITS:
            pairs = _windows(image, vectors, drawn.of(part == split), size, told.window)
            splits[split] = (*splits.get(split, ()), *pairs)
    return LabelledData(path, classes, {split: pairs for split, pairs in splits.items() if pairs})


Found = tuple[np.ndarray, list[np.ndarray], tuple[int, int]]


def _over(image: Path, vectors: Path, columns: Sequence[str]) -> Found:
    """The polygons with a class on a scene in its pixels, their values in each column, and the scene's size."""
    with open_raster(image) as raster:
        shapes, values = read_polygons(vectors, raster, columns)
        inverse, size, bounds = ~raster.transform, raster.size, raster.dataset.bounds
    pixels = np.array(shapely.transform(shapes, lambda xy: to_map(xy, inverse)), dtype=object)
    here = shapely.intersects(shapely.box(*shapely.bounds(pixels).T), shapely.box(0, 0, size[1], size[0]))
    texts = [np.array([_text(value) for value in column]) for column in values]
    here &= texts[0] != ""
    if not here.any():
        reach, extent = (
            ", ".join(f"{value:.6g}" for value in corners) for corners in (shapely.total_bounds(shapes), bounds)
        )
        raise DatasetError(
            f"{vectors.name} has no polygon with a class on {image.name}: in its CRS it covers {reach}, the scene "
            f"{extent}. Take the scene off the list, or correct the CRS."
        )
    return pixels[here], [column[here] for column in texts], size


def _text(value: Any) -> str:
    """A value of a column as the name of a class; empty if there is none."""
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()


def _labelled(shapes: np.ndarray, values: Sequence[np.ndarray], classes: ClassMap, how: Scenes) -> tuple[Drawn, Any]:
    """The polygons with their labels, and the split that each is told to be in, if there is such a column."""
    strange = sorted(set(values[0].tolist()) - set(classes.names))
    if strange:
        count = int((values[0] == strange[0]).sum())
        raise ClassMismatch(
            f"{how.labels} has {count} polygons of {strange[0]!r}; the classes are {', '.join(classes.names)}. "
            "Add it to 'classes', or correct the column."
        )
    labels = np.array([classes.names.index(name) for name in values[0].tolist()], dtype=np.int64)
    return Drawn(shapes, labels, how.touched), values[1] if len(values) > 1 else None


def _parts(scenes: Sequence[Drawn], told: Sequence[Any], sides: Sequence[int], how: Scenes) -> list[np.ndarray]:
    """The split of each polygon of each scene: as the column says, else by blocks of ground."""
    if how.split is not None:
        strange = sorted({name for names in told for name in names.tolist()} - set(SPLITS))
        if strange:
            raise DatasetError(f"column {how.split} says {strange[0]!r}; it may say {', '.join(SPLITS)}. Correct it.")
        return list(told)
    centres = [shapely.get_coordinates(shapely.centroid(scene.shapes)) for scene in scenes]
    cells = [np.column_stack([np.full(len(at), i), at // sides[i]]) for i, at in enumerate(centres)]
    _, block = np.unique(np.concatenate(cells), axis=0, return_inverse=True)
    labels = np.concatenate([scene.labels for scene in scenes])
    area = np.concatenate([shapely.area(scene.shapes) for scene in scenes])
    table = np.zeros((block.max() + 1, labels.max() + 1))
    np.add.at(table, (block.ravel(), labels), area)
    part = np.where(blocks_for_val(table, how.val)[block.ravel()], "val", "train")
    return np.split(part, np.cumsum([len(scene.labels) for scene in scenes])[:-1])


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


def _windows(image: Path, vectors: Path, drawn: Drawn, size: tuple[int, int], side: int) -> list[Pair]:
    """The windows of a scene that have polygons, each with these alone."""
    pairs = []
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            box = Box(top, left, min(side, size[0] - top), min(side, size[1] - left))
            near = drawn.within(box)
            if near.any():
                pairs.append(Pair(f"{image.stem}_{top}_{left}", image, vectors, box, drawn.of(near)))
    return pairs
