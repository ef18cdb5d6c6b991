"""One georeferenced scene with a mask, cut into the windows of its splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regard.datasets.labelled_data import SPLITS, Pair, boxes
from regard.errors import DatasetError, SizeMismatch
from regard.io.image import image_size
from regard.io.raster import Box, open_raster

CODES = dict(enumerate(SPLITS))  # value in split.tif: split
WINDOW = 450  # pixels
UNIFORM = 0.95  # share of one label above which a training window teaches next to nothing


def scene_splits(base: Path) -> dict[str, tuple[Pair, ...]]:
    """Windows of ``image.tif`` by split: those wholly in one split of ``split.tif``; without that file all are train.

    Training windows in which one label (of a class, or for no class) covers more than 95 % are left out: open sea.

    Raises:
        DatasetError: the mask is missing, or no window lies wholly in the training part.
        SizeMismatch: image, mask and split differ in size.
    """
    image, mask, codes = base / "image.tif", base / "mask.tif", base / "split.tif"
    if not mask.is_file():
        raise DatasetError(f"{mask} is missing. Put the labels of image.tif there, on the same grid.")
    size = image_size(image)
    _check_size(mask, size)
    windows = boxes(size, WINDOW)
    names = ["train"] * len(windows)
    if codes.is_file():
        _check_size(codes, size)
        names = [CODES.get(values[0], "") if len(values) == 1 else "" for values, _ in _values(codes, windows)]
    uniform = [counts.max() > UNIFORM * counts.sum() for _, counts in _values(mask, windows)]
    splits: dict[str, list[Pair]] = {}
    for box, split, is_uniform in zip(windows, names, uniform, strict=True):
        if split and not (split == "train" and is_uniform):
            splits.setdefault(split, []).append(Pair(f"{base.name}_{box.top}_{box.left}", image, mask, box))
    if "train" not in splits:
        raise DatasetError(
            f"{base} has no window of {WINDOW} x {WINDOW} pixels wholly in train with more than one label. Label more, "
            "or draw larger blocks in split.tif."
        )
    return {split: tuple(pairs) for split, pairs in splits.items()}


def _check_size(path: Path, size: tuple[int, int]) -> None:
    height, width = image_size(path)
    if (height, width) != size:
        raise SizeMismatch(f"{path} is {width} x {height} pixels, image.tif {size[1]} x {size[0]}. Use one grid.")


def _values(path: Path, windows: list[Box]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The values in each window and how many pixels have each."""
    with open_raster(path) as raster:
        return [np.unique(raster.read(box)[0], return_counts=True) for box in windows]
