"""A finished class map against labels: a mask on its grid, or the labels of a scene, by mask or polygons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData, Pair, boxes, check_size
from regard.errors import ConfigError, DatasetError, counted
from regard.evaluation.evaluate import Scores
from regard.evaluation.matching import matched
from regard.io.class_map_file import LabelMap, open_label_map
from regard.io.ground import at_gsd
from regard.io.image import RASTERS
from regard.io.raster import Box, Raster, apply, open_raster
from regard.ops.metrics import confusion_matrix
from regard.progress import Progress

ALL = "all"  # splits together
SIDE = 1024  # pixels: a mask is read in such squares
SAME = 0.1  # pixels that a corner of the map may be off the scene's


class MapScores(NamedTuple):
    """The scores of a map, and the share of the labelled pixels (0..1) where it has no data, which are not scored."""

    scores: Scores
    unmapped: float


def evaluate_map(
    path: str | Path,
    data: LabelledData | str | Path,
    *,
    split: str = "val",
    map: Mapping[str, str] | None = None,
    progress: bool = True,
) -> MapScores:
    """The scores of a finished class map.

    Args:
        path: The class map (.tif) that regard wrote.
        data: A mask on the map's grid (all of it, whatever the split), or labelled data of the scene that was mapped.
        split: ``train``, ``val``, ``test``, or ``all`` of them.
        map: The data's class that each class of the map is, ``*`` for the rest.
        progress: Show progress on standard error.

    Raises:
        ClassMismatch, UnknownName: the map's classes are not the data's, or not mapped to them; see ``matched``.
        DatasetError: no image of the data is on the map's grid, or no labelled pixel is mapped.
        SizeMismatch, UnreadableImage: see ``read_mask`` and ``open_label_map``.
    """
    with open_label_map(Path(path)) as made:
        labelled = data if isinstance(data, LabelledData) else _data(Path(data), made.classes)
        pairs = _on_grid(made.raster, labelled, split if split in labelled.splits or split != ALL else None)
        table = matched(made.classes, labelled.classes, map, str(labelled.root))
        confusions, counts = [], np.zeros(2, np.int64)
        with Progress("evaluate", len(pairs), unit=" images", enabled=progress) as bar:
            for pair in pairs:
                confusion, labelled_pixels = _count(made, pair, labelled.classes, table.numpy())
                confusions.append(confusion)
                counts += labelled_pixels, confusion.sum()
                bar.advance()
    if not counts[1]:
        raise DatasetError(
            f"{labelled.root}: no labelled pixel of the split {split} is mapped in {Path(path).name}; nothing can be "
            "scored. Choose another split."
        )
    scores = Scores(labelled.classes, np.sum(confusions, axis=0), np.stack(confusions))
    return MapScores(scores, 1 - float(counts[1] / counts[0]))


def _data(path: Path, classes: ClassMap) -> LabelledData:
    """Labelled data as ``folder`` reads them; or a mask, with the classes next to it or else the map's."""
    if path.is_file() and path.suffix.lower() not in (*RASTERS, ".png", ".json"):
        raise ConfigError(
            f"{path.name}: labels are a mask (.tif, .png), a folder, or polygons by way of a .json that describes "
            f'them: {{"images": ["scene.tif"], "labels": "{path.name}", "column": "class"}}. Write that and give it.'
        )
    if path.suffix.lower() not in (*RASTERS, ".png"):
        return folder(path)
    named = path.with_name("classes.json")
    with open_raster(path) as raster:
        parts = boxes(raster.size, SIDE)
    pairs = tuple(Pair(f"{path.stem}_{box.top}_{box.left}", path, path, box) for box in parts)
    return LabelledData(path, ClassMap.read(named) if named.is_file() else classes, {ALL: pairs, "val": pairs})


def _on_grid(made: Raster, data: LabelledData, split: str | None) -> list[Pair]:
    """The pairs of the images that lie on the map's grid."""
    every = [pair for pairs in data.splits.values() for pair in pairs] if split is None else data.split(split)
    images = {image: _same_grid(made, image) for image in dict.fromkeys(pair.image for pair in every)}
    found = [image for image, same in images.items() if same]
    if len(found) != 1:
        raise DatasetError(
            f"{data.root}: {len(found)} of {counted(len(images), 'image')} lie on the grid of {made.source.name} "
            f"({made.size[1]} x {made.size[0]} pixels); one must. Give the labels of the scene that was mapped."
        )
    return [pair for pair in every if images[pair.image]]


def _same_grid(made: Raster, image: Path) -> bool:
    """Whether an image has the map's size and, where both say where they lie, its CRS and place."""
    with open_raster(image) as scene:
        if scene.size != made.size or not (scene.is_georeferenced and made.is_georeferenced):
            return scene.size == made.size
        moved = [
            np.subtract(apply(~made.transform, *apply(scene.transform, *corner)), corner)
            for corner in ((0, 0), scene.size[::-1])
        ]
        return scene.crs == made.crs and bool(np.abs(moved).max() <= SAME)


def _count(
    made: LabelMap, pair: Pair, classes: ClassMap, table: Int[np.ndarray, " k"]
) -> tuple[Int[np.ndarray, "n n"], int]:
    """The confusion matrix of one part of the map, and how many of its pixels have a label in the data."""
    truth = pair.read_labels(classes)
    predicted = _labels(made, pair, truth.shape)
    check_size(pair, predicted.shape, truth.shape)
    labelled, mapped = truth != classes.ignore_index, predicted < len(table)
    known = torch.from_numpy(np.where(mapped, truth, classes.ignore_index))
    renamed = torch.from_numpy(table[np.where(mapped, predicted, 0)])
    of = {"classes": len(classes), "ignore_index": classes.ignore_index}
    return confusion_matrix(known, renamed, **of).numpy(), int(labelled.sum())


def _labels(made: LabelMap, pair: Pair, shape: tuple[int, ...]) -> Int[np.ndarray, "h w"]:
    """The map's labels where the pair lies; where its pixels have another size, the nearest label."""
    box = pair.box or Box(0, 0, *made.size)
    if pair.gsd is None:
        return made.raster.read_band(box).astype(np.int64)
    with open_raster(pair.image) as native, at_gsd(native, pair.gsd) as scene:
        down, across = (own / other for own, other in zip(made.size, scene.size, strict=True))
    part = (box.top * down, box.left * across, box.height * down, box.width * across)
    return made.raster.read_scaled((shape[0], shape[1]), part, nearest=True)[0].astype(np.int64)
