"""One georeferenced scene with labels, cut into the windows of its splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regard.datasets.labelled_data import Pair
from regard.errors import DatasetError, SizeMismatch
from regard.io.image import image_size
from regard.io.raster import Box, open_raster

CODES = {"train": 0, "val": 1, "test": 2}
WINDOW = 450  # pixels
UNIFORM = 0.95  # share of one label above which a training window teaches next to nothing


def scene_splits(base: Path, *, window: int = WINDOW) -> dict[str, tuple[Pair, ...]]:
    """Windows of ``image.tif`` by split: those that ``split.tif`` gives wholly to one split; without it all are train.

    Training windows of which one label (of a class, or for no class) covers more than 95 % are left out: open sea.

    Raises:
        DatasetError: the mask is missing, or no window lies wholly in the training part.
        SizeMismatch: image, mask and split differ in size.
    """
    image, mask, codes = base / "image.tif", base / "mask.tif", base / "split.tif"
    if not mask.is_file():
        raise DatasetError(f"{mask} is missing. Put the labels of image.tif there, on the same grid.")
    height, width = image_size(image)
    _check_size(mask, (height, width))
    boxes = [
        Box(top, left, min(window, height - top), min(window, width - left))
        for top in range(0, height, window)
        for left in range(0, width, window)
    ]
    names = _split_of_boxes(codes, boxes, (height, width)) if codes.is_file() else ["train"] * len(boxes)
    uniform = _uniform(mask, boxes)
    splits: dict[str, tuple[Pair, ...]] = {}
    for box, split in zip(boxes, names, strict=True):
        if split and not (split == "train" and box in uniform):
            pair = Pair(f"{base.name}_{box.top}_{box.left}", image, mask, box)
            splits[split] = (*splits.get(split, ()), pair)
    if "train" not in splits:
        raise DatasetError(
            f"{base} has no window of {window} x {window} pixels wholly in train with more than one label. Label more, "
            "or draw larger blocks in split.tif."
        )
    return splits


def _check_size(path: Path, size: tuple[int, int]) -> None:
    height, width = image_size(path)
    if (height, width) != size:
        raise SizeMismatch(f"{path} is {width} x {height} pixels, image.tif {size[1]} x {size[0]}. Use one grid.")


def _uniform(mask: Path, boxes: list[Box]) -> set[Box]:
    with open_raster(mask) as raster:
        counts = {box: np.unique(raster.read(box)[0], return_counts=True)[1] for box in boxes}
    return {box for box, found in counts.items() if found.max() > UNIFORM * box.height * box.width}


def _split_of_boxes(codes: Path, boxes: list[Box], size: tuple[int, int]) -> list[str]:
    _check_size(codes, size)
    with open_raster(codes) as raster:
        found = [np.unique(raster.read(box)[0]).tolist() for box in boxes]
    return [next((name for name, code in CODES.items() if values == [code]), "") for values in found]
