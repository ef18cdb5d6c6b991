"""A finished class map, read again in strips: its labels, its classes, and the map sieved."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, OutputError, SizeMismatch
from regard.files import json_of
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import is_photograph

STRIP = 512  # rows: the height of a block of the maps that we write, so that each block is decoded once


class LabelMap:
    """An open class map."""

    def __init__(self, raster: Raster, classes: ClassMap) -> None:
        self.raster = raster
        self.classes = classes
        self.size = raster.size
        self.name = raster.source.name
        self.crs = raster.crs
        nodata = raster.nodata
        self.nodata: int | None = int(nodata) if nodata is not None and math.isfinite(nodata) else None

    @property
    def transform(self) -> Affine:
        """Pixels to the map's coordinates; without any, y is minus the row, as QGIS shows such pictures."""
        return self.raster.transform if self.raster.is_georeferenced else Affine(1, 0, 0, 0, -1, 0)

    def read(self, top: int, height: int) -> Shaped[np.ndarray, "h w"]:
        """``height`` rows of labels from row ``top`` on."""
        return self.read_box(Box(top, 0, height, self.size[1]))

    def read_box(self, box: Box) -> Shaped[np.ndarray, "h w"]:
        """The labels of a box.

        Raises:
            ClassMismatch: a label that is neither a class nor the map's value for no data.
        """
        values = self.raster.read_band(box)
        strange = (values >= len(self.classes)) & (values != self.nodata)
        if strange.any():
            raise ClassMismatch(
                f"{self.raster.source.name} has the label {values[strange][0]}, but {len(self.classes)} classes and "
                f"{self.nodata} for no data. Make the map again, or correct its tag regard_classes."
            )
        return values

    def strips(self, height: int = STRIP) -> Iterator[tuple[int, Shaped[np.ndarray, "h w"]]]:
        """All rows from top to bottom: the first row's number and the labels of up to ``height`` rows."""
        for top in range(0, self.size[0], height):
            yield top, self.read(top, min(height, self.size[0] - top))


class _SievedMap(LabelMap):
    """A class map whose labels lie in a scratch file."""

    def __init__(self, source: LabelMap, labels: Shaped[np.ndarray, "h w"]) -> None:
        super().__init__(source.raster, source.classes)
        self.labels = labels

    def read(self, top: int, height: int) -> Shaped[np.ndarray, "h w"]:
        return np.array(self.labels[top : top + height])


@contextmanager
def open_label_map(path: Path) -> Iterator[LabelMap]:
    """A class map to read, with the names and colours of its classes that the file itself carries.

    Raises:
        UnreadableImage: missing, broken, or no raster.
        ClassMismatch: it names no classes, or holds no integers.
    """
    with open_raster(path, bands=[1]) as raster:
        kind = np.dtype(raster.dtypes[0])
        if kind not in (np.uint8, np.uint16):
            raise ClassMismatch(f"{path.name} holds {kind}, a class map uint8 or uint16. Give the map, not the scores.")
        yield LabelMap(raster, _stored_classes(raster))


@contextmanager
def open_confidence(path: Path, source: LabelMap) -> Iterator[Raster]:
    """The confidence that was written with a class map, to read next to its strips.

    Raises:
        UnreadableImage: missing or broken.
        SizeMismatch: of another size than the map.
        ConfigError: not in steps of 1/255.
    """
    with open_raster(path, bands=[1]) as raster:
        if raster.size != source.size:
            sizes = [f"{width} x {height}" for height, width in (raster.size, source.size)]
            raise SizeMismatch(
                f"{path.name} has {sizes[0]} pixels, {source.raster.source.name} {sizes[1]}. Give the confidence that "
                "was written with the map."
            )
        if raster.dtypes[0] != "uint8":
            raise ConfigError(
                f"{path.name} holds {raster.dtypes[0]}; confidence is uint8, in steps of 1/255. Give the file that "
                "regard predict --confidence wrote."
            )
        yield raster


def _stored_classes(raster: Raster) -> ClassMap:
    """The names in a map's tag ``regard_classes`` with the colours of its colour table."""
    try:
        classes = ClassMap.of(json_of(raster.tags()["regard_classes"]))
    except (KeyError, ValueError, TypeError):
        if is_photograph(raster.source):
            raise ClassMismatch(
                f"{raster.source.name} is a picture, which names no classes; need a map in GeoTIFF (.tif). Polygons of "
                "a photograph: regard.predict(model, photograph).to_polygons(), in pixels."
            ) from None
        raise ClassMismatch(
            f"{raster.source.name} does not say which classes it shows (no tag regard_classes). Give a map of regard."
        ) from None
    table = raster.colormap()
    if table is None or not table.keys() >= {*range(len(classes))}:
        return classes
    return classes.model_copy(update={"palette": tuple(tuple(table[label][:3]) for label in range(len(classes)))})


def sieved(source: LabelMap, pixels: int, scratch: Path) -> LabelMap:
    """The map with every polygon of fewer than ``pixels`` pixels given to its largest neighbour; no data stays no data.

    The result lies in a nameless file of one or two bytes a pixel in the folder ``scratch``, not in memory.

    Raises:
        OutputError: the disk has no room for the file.
    """
    if pixels < 2:
        return source
    labels = _on_disk(source.size, source.raster.dtypes[0], scratch)
    mask = _on_disk(source.size, "uint8", scratch)
    for top, rows in source.strips():
        mask[top : top + len(rows)] = rows < len(source.classes)
    source.raster.sieve(min(pixels, labels.size - 1), labels, mask)  # GDAL takes no more
    return _SievedMap(source, labels)


def _on_disk(size: tuple[int, int], dtype: str, folder: Path) -> Shaped[np.ndarray, "h w"]:
    """Zeros in a file, which goes with the array. Each is written: a disk that is full later would end the process."""
    row = bytes(size[1] * np.dtype(dtype).itemsize)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        try:
            for _ in range(size[0]):
                if file.write(row) < len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            needed = len(row) * size[0] / 1e6
            raise OutputError(
                f"{folder} has no {needed:.0f} MB left for the sieve ({error.strerror}). Make room."
            ) from None
        return np.memmap(file, dtype=dtype, shape=size)
