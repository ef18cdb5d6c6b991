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
from regard.datasets.labelled_data import SPLITS, LabelledData, Pair, PolygonLabels, boxes
from regard.errors import ClassMismatch, DatasetError, counted, unknown
from regard.io.ground import at_gsd
from regard.io.raster import open_raster, to_map
from regard.io.vectors import read_polygons

BLOCKS = 8  # along the longer side of a scene


class PolygonScenes(BaseModel):
    """A description of scenes and of the polygons over them; paths are relative to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(min_length=1)
    labels: str
    column: str
    classes: tuple[str, ...] | None = None  # in this order; without them the column's values by alphabet
    split: str | None = None  # a column with train, val or test
    val: float = Field(0.3, ge=0, lt=1)  # share of each class's area, where no column gives the split
    touched: bool = False  # label every pixel that a polygon touches, not only those whose centre it covers
    block: int | None = Field(None, ge=1)  # pixels; polygons whose centres are in one block go to one split
    window: int = Field(1024, ge=32)  # pixels
    gsd: float | None = Field(None, gt=0)  # metres per pixel at which scenes are read and labels drawn

    @classmethod
    def read(cls, path: Path) -> PolygonScenes:
        """The description in a JSON file; a DatasetError if it is missing, not JSON, or lacks a part."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
        except ValidationError as error:
            reason = cls._reason(error)
        except (OSError, ValueError) as error:
            reason = f"not JSON: {error}"
        needed = '{"images": ["scene.tif"], "labels": "fields.gpkg", "column": "class"}'
        raise DatasetError(f"{path}: {reason}. It needs {needed}.")

    @classmethod
    def _reason(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            return str(unknown("key", str(first["loc"][0]), cls.model_fields)).rstrip(".")
        got = "" if first["type"] == "missing" else f", got {json.dumps(first['input'])[:60]}"
        return first_reason(error).replace("a valid tuple", "a list in [ ]") + got


def polygon_scenes(path: Path) -> LabelledData:
    """The windows of the scenes that ``path`` describes, by split; no polygon is in two splits.

    Raises:
        DatasetError: the description is incomplete, or no polygon lies on a scene.
        ClassMismatch: a class that is not listed, or fewer than two.
        UnreadableImage, ConfigError: see ``open_raster`` and ``read_polygons``.
    """
    given = assign(path)
    description, splits = given.description, dict[str, tuple[Pair, ...]]()
    for name, scene in zip(description.images, given.scenes, strict=True):
        for split in SPLITS:
            chosen = scene.on_scene & (given.split == split)
            polygons = PolygonLabels(scene.shapes[chosen], given.labels[chosen], description.touched)
            splits[split] = (*splits.get(split, ()), *_windows(path.parent, name, polygons, scene.size, description))
    named = {split: pairs for split, pairs in splits.items() if pairs}
    return LabelledData(path, given.classes, named, gsd=description.gsd)


class OnScene(NamedTuple):
    """All polygons of a file in a scene's pixels; which of them lie on it and have a class; their values."""

    shapes: np.ndarray
    on_scene: Bool[np.ndarray, " n"]
    values: list[np.ndarray]
    size: tuple[int, int]


class Assigned(NamedTuple):
    """A description, all polygons over each of its scenes, the classes, and the label and split of each polygon."""

    description: PolygonScenes
    scenes: list[OnScene]
    classes: ClassMap
    labels: Int[np.ndarray, " n"]
    split: np.ndarray


def assign(path: Path) -> Assigned:
    """The label and the split of each polygon of the described file; the split is empty where a polygon is not used.

    Raises what :func:`polygon_scenes` raises.
    """
    description = PolygonScenes.read(path)
    scenes = [_on_scene(path.parent, name, description) for name in description.images]
    first, used = scenes[0], np.any([scene.on_scene for scene in scenes], axis=0)
    values = first.values[0]  # of all polygons of the file, used or not
    classes = ClassMap.of(description.classes or sorted(set(values[used].tolist())))
    labels = _labels(values, used, classes, description.labels)
    if description.split is None:
        split = _split_by_blocks(first, labels, used, description)
    else:
        split = first.values[1]
        wrong = sorted(set(split[used].tolist()) - set(SPLITS))
        if wrong:
            says = f"column {description.split} says {wrong[0]!r}"
            raise DatasetError(f"{says}; it may say {', '.join(SPLITS)}. Correct it.")
    return Assigned(description, scenes, classes, labels, split)


def _on_scene(base: Path, image: str, description: PolygonScenes) -> OnScene:
    columns = [description.column, *([description.split] if description.split else [])]
    with open_raster(base / image) as native, at_gsd(native, description.gsd) as raster:
        shapes, values = read_polygons(base / description.labels, raster, columns)
        inverse, size, bounds = ~raster.transform, raster.size, raster.bounds
    pixels = np.array(shapely.transform(shapes, lambda xy: to_map(xy, inverse)), dtype=object)
    texts = [np.array([text_of(value) for value in column]) for column in values]
    on_scene = shapely.intersects(shapely.box(*shapely.bounds(pixels).T), shapely.box(0, 0, size[1], size[0]))
    on_scene &= texts[0] != ""
    if not on_scene.any():
        reach, extent = (", ".join(f"{x:.6g}" for x in corners) for corners in (shapely.total_bounds(shapes), bounds))
        raise DatasetError(
            f"{Path(description.labels).name} has no polygon with a class on {Path(image).name}: in its CRS it covers "
            f"{reach}, the scene {extent}. Take the scene off the list, or correct the CRS."
        )
    return OnScene(pixels, on_scene, texts, size)


def text_of(value: Any) -> str:
    """A value of a column as the name of a class; empty if there is none."""
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()


def _labels(values: np.ndarray, used: Bool[np.ndarray, " n"], classes: ClassMap, file: str) -> Int[np.ndarray, " n"]:
    """The label of each polygon; the ignore index for those that are not used."""
    missing = sorted(set(values[used].tolist()) - set(classes.names))
    if missing:
        raise ClassMismatch(
            f"{file} has {counted(int((values[used] == missing[0]).sum()), 'polygon')} of {missing[0]!r}; the classes "
            f"are {', '.join(classes.names)}. Add it to 'classes', or correct the column."
        )
    known = {name: label for label, name in enumerate(classes.names)}
    return np.array([known.get(value, classes.ignore_index) for value in values.tolist()], dtype=np.int64)


def _split_by_blocks(
    first: OnScene, labels: Int[np.ndarray, " n"], used: Bool[np.ndarray, " n"], description: PolygonScenes
) -> np.ndarray:
    """The split of each polygon by the block of ground that holds its centre, in the grid of the first scene."""
    side = description.block or max(1, max(first.size) // BLOCKS)
    blocks = shapely.get_coordinates(shapely.centroid(first.shapes[used])) // side
    block = np.unique(blocks, axis=0, return_inverse=True)[1].ravel()
    area = np.zeros((block.max() + 1, labels[used].max() + 1))
    np.add.at(area, (block, labels[used]), shapely.area(first.shapes[used]))
    split = np.full(len(used), "", dtype="U5")
    split[used] = np.where(blocks_for_val(area, description.val)[block], "val", "train")
    return split


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


def _windows(
    base: Path, image: str, polygons: PolygonLabels, size: tuple[int, int], description: PolygonScenes
) -> list[Pair]:
    """The windows of a scene that have polygons, each with these alone."""
    path, vectors, side, pairs = base / image, base / description.labels, description.window, []
    for box in boxes(size, side):
        near = polygons.within(box)
        if len(near.shapes):
            pairs.append(Pair(f"{path.stem}_{box.top}_{box.left}", path, vectors, box, near, description.gsd))
    return pairs
