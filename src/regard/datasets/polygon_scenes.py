"""Scenes whose labels are polygons, cut into the windows of their splits: by blocks of ground, or as a column says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from jaxtyping import Bool, Int

from regard.classes import ClassMap
from regard.datasets.blocks import block_side, coarse, split_by_centres, split_by_ground
from regard.datasets.labelled_data import SPLITS, LabelledData, Pair, PolygonLabels, boxes
from regard.datasets.polygon_description import ANY, PolygonScenes, texts, values_of
from regard.errors import ClassMismatch, DatasetError, counted
from regard.io.extent import Extent, Grid, PolygonExtent, RasterExtent, reaching
from regard.io.ground import at_gsd
from regard.io.image import RASTERS
from regard.io.raster import Box, Raster, open_raster
from regard.io.vectors import Polygons, elsewhere, in_pixels, layer_of, read_polygons

SCARCE = 0.05  # share of a window's pixels, below which a coarse look at its labels does not decide


def polygon_scenes(path: Path) -> LabelledData:
    """The windows of the scenes that ``path`` describes, by split; no pixel has a label in two splits.

    Raises:
        DatasetError: the description is incomplete, no polygon lies on a scene, or nothing is labelled.
        ClassMismatch: a class that is not listed, or fewer than two.
        UnreadableImage, ConfigError: see ``open_raster`` and ``read_polygons``.
    """
    given = assign(path)
    description, splits = given.description, dict[str, tuple[Pair, ...]]()
    for name, scene, by_split in zip(description.images, given.scenes, given.polygons(), strict=True):
        for split, polygons in by_split.items():
            found = _windows(path.parent / name, polygons, scene.grid.size, given)
            splits[split] = (*splits.get(split, ()), *found)
    named = {split: splits[split] for split in SPLITS if splits.get(split)}
    if not named:
        raise DatasetError(f"{path}: nothing is labelled on the scenes. Correct 'extent', or its CRS.")
    return LabelledData(path, given.classes, named, gsd=description.gsd)


class OnScene(NamedTuple):
    """All polygons of a file in a scene's pixels; which of them lie on it; the class and the split that columns give
    them, empty without; the extents of what was labelled, by the split that a column gives them, or under "".
    """

    polygons: Polygons
    on_scene: Bool[np.ndarray, " n"]
    values: np.ndarray
    splits: np.ndarray
    grid: Grid
    extents: Mapping[str, tuple[Extent, ...]]


class Assigned(NamedTuple):
    """A description, all polygons over each of its scenes, the classes, and the label and split of each polygon."""

    root: Path
    description: PolygonScenes
    scenes: list[OnScene]
    classes: ClassMap
    labels: Int[np.ndarray, " n"]
    split: np.ndarray

    @property
    def background(self) -> int | None:
        """The label of the ground without a polygon."""
        name = self.description.background
        return None if name is None else self.classes.label_of(name)

    def polygons(self) -> list[dict[str, PolygonLabels]]:
        """The labels of each split, for each scene."""
        if self.background is None:
            return [{split: self._of_split(scene, split) for split in SPLITS} for scene in self.scenes]
        if self.description.split is not None:
            return [{split: self._drawn(scene, part) for split, part in scene.extents.items()} for scene in self.scenes]
        drawn = [(scene.grid, self._drawn(scene, scene.extents[""])) for scene in self.scenes]
        side = block_side(drawn[0][0].size, self.description.block)
        grounds = split_by_ground(drawn, side, self.description.val, len(self.classes))
        return [
            {split: replace(labels, extents=(*labels.extents, part)) for split, part in ground.items()}
            for (_, labels), ground in zip(drawn, grounds, strict=True)
        ]

    def _drawn(self, scene: OnScene, extents: tuple[Extent, ...]) -> PolygonLabels:
        """All polygons over the background; first those without a class, which stay unlabelled."""
        order = np.argsort(self.labels != self.classes.ignore_index, kind="stable")
        shapes = scene.polygons.shapes[order]
        return PolygonLabels(shapes, self.labels[order], self.description.touched, self.background, extents)

    def _of_split(self, scene: OnScene, split: str) -> PolygonLabels:
        """The polygons of one split; where those of another lie over them, there is no label."""
        used = scene.on_scene & (self.split != "")
        labels = np.where(self.split == split, self.labels, self.classes.ignore_index)[used]
        shapes = scene.polygons.shapes[used]
        return PolygonLabels(shapes, labels, self.description.touched, extents=scene.extents[""])


def assign(path: Path) -> Assigned:
    """The label and the split of each polygon of the described file; the split is empty where a polygon is not used,
    and with a background, where each pixel has the split of its own ground.

    Raises what :func:`polygon_scenes` raises.
    """
    description = PolygonScenes.read(path)
    scenes = [_on_scene(path.parent, name, description) for name in description.images]
    used = np.any([scene.on_scene & (scene.values != "") for scene in scenes], axis=0)
    for name, scene in zip(description.images, scenes, strict=True):
        if not (scene.on_scene & (scene.values != "")).any() and (description.background is None or not used.any()):
            raise _elsewhere(path.parent, name, description)
    values = scenes[0].values  # of all polygons of the file, used or not
    names = description.names(set(values[used].tolist()))
    if len(names) == 1:
        raise ClassMismatch(only_class(description, int(used.sum()), names[0]))
    classes = ClassMap.of(names)
    labels, split = _labels(values, used, classes, description), np.full(len(used), "", dtype="U5")
    if description.background is None and description.split is None:
        side = block_side(scenes[0].grid.size, description.block)
        val = split_by_centres(scenes[0].polygons.shapes[used], labels[used], side, description.val)
        split[used] = np.where(val, "val", "train")
    elif description.background is None:
        split = _checked(scenes[0].splits, used, str(description.split))
    return Assigned(path.parent, description, scenes, classes, labels, split)


def only_class(description: PolygonScenes, count: int, name: str) -> str:
    """What polygons of a single class mean, and what to add."""
    has = f"{Path(description.labels).name} has {count:,} polygon{'s' * (count != 1)} of {name!r} and no other class"
    need = 'name the class of that ground, "background": "other", and if not all of it was labelled, "extent"'
    return f"{has}; ground without a polygon is unlabelled, so there is nothing to tell it from: {need}."


def _checked(split: np.ndarray, used: Bool[np.ndarray, " n"], column: str) -> np.ndarray:
    wrong = sorted(set(split[used].tolist()) - set(SPLITS))
    if wrong:
        raise DatasetError(f"column {column} says {wrong[0]!r}; it may say {', '.join(SPLITS)}. Correct it.")
    return split


def _on_scene(base: Path, image: str, description: PolygonScenes) -> OnScene:
    split = [description.split] if description.split and description.background is None else []
    with open_raster(base / image) as native, at_gsd(native, description.gsd) as raster:
        columns = [*description.column, *split]
        polygons = read_polygons(base / description.source, raster, columns, description.where)
        grid, extents = Grid.of(raster), _extents(base, description, raster)
    on_scene = reaching(polygons.shapes, Box(0, 0, *grid.size))
    splits = texts(polygons.values[-1]) if split else np.full(len(on_scene), "")
    return OnScene(polygons, on_scene, values_of(polygons, description), splits, grid, extents)


def _extents(base: Path, description: PolygonScenes, raster: Raster) -> dict[str, tuple[Extent, ...]]:
    """What was labelled of a scene: all of it, bounds, polygons or a raster's pixels; by split if a column says so."""
    given, split = description.extent, description.split if description.background is not None else None
    if split is not None and (not isinstance(given, str) or layer_of(given)[0].suffix.lower() in RASTERS):
        need = f"an 'extent' of polygons with the column {split!r}, or no 'split'"
        raise DatasetError(f"with a background, each pixel has the split of its ground: it needs {need}.")
    if given is None:
        return {"": ()}
    if not isinstance(given, str):
        outline = np.array(
            [
                shapely.segmentize(
                    shapely.box(*given.bounds), 1 / 64 * max(np.ptp(given.bounds[::2]), np.ptp(given.bounds[1::2]))
                )
            ]
        )
        return {"": (PolygonExtent(in_pixels(outline, given.crs, raster)),)}
    if layer_of(given)[0].suffix.lower() in RASTERS:
        return {"": (RasterExtent.of(base / given, raster),)}
    polygons = read_polygons(base / given, raster, [split] if split else [])
    if split is None:
        return {"": (PolygonExtent(polygons.shapes),)}
    said = _checked(texts(polygons.values[0]), np.ones(len(polygons.shapes), bool), split)
    extents, taken = dict[str, tuple[Extent, ...]](), shapely.Polygon()
    for name in reversed(SPLITS):  # ground of two splits is not trained on
        ground = shapely.union_all(polygons.shapes[said == name])
        extents[name] = (PolygonExtent(np.array([ground.difference(taken)], object)),)
        taken = shapely.union(taken, ground)
    return extents


def _elsewhere(base: Path, image: str, description: PolygonScenes) -> DatasetError:
    with open_raster(base / image) as raster:
        where = elsewhere(base / description.source, raster)
    return DatasetError(
        f"{Path(description.labels).name} has no polygon with a class on {Path(image).name}: {where} Take the scene "
        "off the list, or correct the CRS."
    )


def _labels(
    values: np.ndarray, used: Bool[np.ndarray, " n"], classes: ClassMap, description: PolygonScenes
) -> Int[np.ndarray, " n"]:
    """The label of each polygon; the ignore index for those that are not used."""
    listed = description.classes if description.value is None else None
    listed = listed or {name: (name,) for name in classes.names}
    known = {value: classes.label_of(name) for name, values in listed.items() for value in values}
    missing = sorted(set(values[used].tolist()) - set(known))
    if missing and ANY not in known:
        raise ClassMismatch(
            f"{description.labels} has {counted(int((values[used] == missing[0]).sum()), 'polygon')} of "
            f"{missing[0]!r}; the classes are {', '.join(classes.names)}. Add it to 'classes', or correct the column."
        )
    known = {"": classes.ignore_index} | known
    other = known.get(ANY, classes.ignore_index)
    return np.array([known.get(value, other) for value in values.tolist()], dtype=np.int64)


def _windows(image: Path, polygons: PolygonLabels, size: tuple[int, int], given: Assigned) -> list[Pair]:
    """The windows of a scene that have labels, each with the polygons that reach into it alone."""
    description, pairs = given.description, []
    vectors = given.root / layer_of(description.labels)[0]
    has_labels = _labelled(polygons, size, given.classes.ignore_index)
    for box in boxes(size, description.window):
        near = polygons.within(box)
        if has_labels(near, box):
            pairs.append(Pair(f"{image.stem}_{box.top}_{box.left}", image, vectors, box, near, description.gsd))
    return pairs


def _labelled(
    polygons: PolygonLabels, size: tuple[int, int], ignore_index: int
) -> Callable[[PolygonLabels, Box], bool]:
    """Tells of a box and the polygons near it whether any pixel has a label."""
    if polygons.background is None and not polygons.extents:
        return lambda near, _: bool((near.labels != ignore_index).any())
    factor, whole = coarse(size)
    drawn = replace(polygons, touched=True).coarser(factor).draw(whole, ignore_index) != ignore_index

    def has_labels(near: PolygonLabels, box: Box) -> bool:
        down, right = ((begin, begin + side) for begin, side in ((box.top, box.height), (box.left, box.width)))
        part = drawn[tuple(slice(int(begin / factor), math.ceil(end / factor)) for begin, end in (down, right))]
        return bool(part.mean() > SCARCE or (part.any() and (near.draw(box, ignore_index) != ignore_index).any()))

    return has_labels
