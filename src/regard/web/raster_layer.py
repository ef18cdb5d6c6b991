"""The files of a viewer, and the tiles of one of any size, with or without overviews, in bounded memory."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import ClassMismatch, SizeMismatch, UnreadableImage
from regard.io.image import Pixels, image_size
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import Fingerprint, Source
from regard.io.window_reader import RasterPool, in_memory, measured_in, read_web_mercator
from regard.web.grid import SIDE, Address, Extent, Grid, PixelGrid

READERS = 4  # tiles read at the same time
READ_WHOLE = 4096  # pixels: larger files without overviews get one of at most FAR pixels a side, in memory
FAR = 2048
CHUNK = 512  # pixels: about what is read of such a file at a time
FIRST, AGAIN = 0.7, 3.0  # seconds of reading until the rough copy is shown, and until it is shown again


@dataclass(frozen=True)
class Sources:
    """The files of a viewer; they must not change while it runs."""

    scene: Path
    labels_map: Path | None = None
    confidence: Path | None = None
    labels: Path | None = None
    bands: tuple[int | str, ...] | None = None

    def states(self) -> list[tuple[str, Fingerprint, int | None]]:
        """Name, fingerprint and inode of all files as they are now."""
        files = [path for path in (self.scene, self.labels_map, self.confidence, self.labels) if path is not None]
        return [(str(path), Source.of(path).fingerprint(), _inode(path)) for path in files]


class Changed(UnreadableImage):
    """A file is not the one that was opened."""


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


class RasterLayer:
    """A raster as tiles of a grid; ``nearest`` for labels, else smoothly."""

    def __init__(self, reopen: Callable[[], Raster], grid: Grid, bands: Sequence[int], *, nearest: bool) -> None:
        def opened() -> Raster:
            raster = reopen()
            raster.bands = tuple(bands)
            return raster

        self.grid, self.nearest = grid, nearest
        self._near = RasterPool(opened)
        self._far: RasterPool | None = None
        self._turns = threading.BoundedSemaphore(READERS)
        self.begun, self.ready, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.progress = 0.0
        with reopen() as raster:
            self.size, self.bands, self.dtype = raster.size, len(bands), raster.dtypes[0]
            shrunk = max(raster.overviews, default=1)
        large = max(self.size) > READ_WHOLE * shrunk
        self.factor = 2 ** math.ceil(math.log2(max(self.size) / FAR)) if large else 0
        if large:
            threading.Thread(target=self._prepare, daemon=True).start()
        else:
            self._finish()

    def is_rough(self, step: float) -> bool:
        """Whether what has ``step`` scene pixels to a pixel would be cut from a copy that is not finished."""
        return bool(self.factor) and step >= self.factor and not self.ready.is_set()

    def tile(self, address: Address, grid: Grid | None = None, *, rough: bool = False) -> Pixels:
        """The pixels of a tile; no valid ones outside the raster. ``rough`` ones do not wait for the whole file.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        grid = grid or self.grid
        if isinstance(grid, PixelGrid):
            return self.cut(grid.extent(address), SIDE, rough=rough)
        with self._reader(grid.step(address.z), rough) as raster:
            return self._from_earth(raster, address)

    def cut(self, extent: Extent, side: int, *, rough: bool = False) -> Pixels:
        """A square of the scene, in its pixels, as ``side`` x ``side`` pixels; what lies beyond its edge is empty."""
        left, top, right, bottom = extent
        step, (height, width), found = (right - left) / side, self.size, self._empty(side)
        first_column, first_row = max(0.0, left), max(0.0, top)
        across, down = min(right, width) - first_column, min(bottom, height) - first_row
        if across <= 0 or down <= 0:
            return found
        with self._reader(step, rough) as raster:
            scale = (raster.size[1] / width, raster.size[0] / height)
            box = (first_row * scale[1], first_column * scale[0], down * scale[1], across * scale[0])
            row, column = round((first_row - top) / step), round((first_column - left) / step)
            shape = (min(side - row, math.ceil(down / step)), min(side - column, math.ceil(across / step)))
            inside = np.s_[..., row : row + shape[0], column : column + shape[1]]
            found.values[inside], found.valid[inside] = self._read(raster, shape, box)
        return found

    @contextmanager
    def _reader(self, step: float, rough: bool) -> Iterator[Raster]:
        """The file, or the small copy of it that far views are cut from."""
        far = self.factor and step >= self.factor
        while far and not (self.begun if rough else self.ready).wait(0.2):
            if self.stopped.is_set():
                raise UnreadableImage("the viewer has been closed. Start it again.")
        with self._turns, (self._far if far and self._far is not None else self._near).borrow() as raster:
            yield raster

    def close(self) -> None:
        """Stop preparing, close the files."""
        self.stopped.set()
        for pool in (self._near, self._far):
            if pool is not None:
                pool.close()

    def _from_earth(self, raster: Raster, address: Address) -> Pixels:
        """The raster in web mercator."""
        left, top, right, bottom = self.grid.extent(address)
        west, north, east, south = self.grid.around(Box(0, 0, *self.size))
        if left >= east or right <= west or bottom >= north or top <= south:
            return self._empty(SIDE)
        return read_web_mercator(raster, (left, bottom, right, top), SIDE, nearest=self.nearest)

    def _read(self, raster: Raster, shape: tuple[int, int], box: Sequence[Any]) -> Pixels:
        values = raster.read_scaled(shape, box, nearest=self.nearest)
        return Pixels(values, raster.valid(box, shape) & measured_in(raster, values))

    def _empty(self, side: int) -> Pixels:
        return Pixels(np.zeros((self.bands, side, side), self.dtype), np.zeros((side, side), bool))

    def _prepare(self) -> None:
        """Read the file once for a small copy that far views are cut from: here and there first, the gaps later."""
        try:
            with self._near.borrow() as raster:
                shape = [-(-length // self.factor) for length in self.size]
                copy = Pixels(np.zeros((self.bands, *shape), self.dtype), np.zeros(shape, bool))
                chunks, due = _spread(raster.size, self._chunk(raster)), time.monotonic() + FIRST
                for done, (box, reach) in enumerate(chunks, 1):
                    if self.stopped.is_set():
                        return
                    self._shrink(raster, box, reach, copy)
                    if time.monotonic() > due or done == len(chunks):
                        self._show(copy, raster, done / len(chunks))
                        due = time.monotonic() + AGAIN
        except (UnreadableImage, MemoryError):  # far views are read from the file
            self.factor = 0
        finally:
            self._finish()

    def _finish(self) -> None:
        self.progress = 1.0
        self.begun.set()
        self.ready.set()

    def _chunk(self, raster: Raster) -> tuple[int, int]:
        """Height and width of what is read at a time: whole blocks as far as they fit, whole pixels of the copy."""
        rows, columns = raster.block_shape
        wide = max(columns, CHUNK)
        tall = max(rows, CHUNK * CHUNK // wide)
        return -(-tall // self.factor) * self.factor, -(-wide // self.factor) * self.factor

    def _shrink(self, raster: Raster, box: Box, reach: tuple[int, int], copy: Pixels) -> None:
        """One chunk of the copy; as far as ``reach``, where nothing is read yet, its middle stands for all."""
        top, left, height, width = (-(-length // self.factor) for length in box)
        values, valid = self._read(raster, (height, width), box)
        around = np.s_[top : top + -(-reach[0] // self.factor), left : left + -(-reach[1] // self.factor)]
        copy.values[(slice(None), *around)] = values[:, height // 2, width // 2, None, None]
        copy.valid[around] = valid[height // 2, width // 2]
        inside = np.s_[top : top + height, left : left + width]
        copy.values[(slice(None), *inside)], copy.valid[inside] = values, valid

    def _show(self, pixels: Pixels, raster: Raster, progress: float) -> None:
        """Cut far views from the copy as it is now."""
        across, down = self.size[1] / pixels.valid.shape[1], self.size[0] / pixels.valid.shape[0]
        a, b, c, d, e, f = raster.transform[:6]
        transform = type(raster.transform)(a * across, b * down, c, d * across, e * down, f)
        before, self._far = self._far, RasterPool(in_memory(pixels, raster.crs, transform))
        if before is not None:
            before.close()
        self.progress = progress
        self.begun.set()


def _spread(size: Sequence[int], chunk: tuple[int, int]) -> list[tuple[Box, tuple[int, int]]]:
    """The chunks of a raster from coarse to fine, and how far to the right and down of its corner each one is alone."""
    rows, columns = (-(-length // side) for length, side in zip(size, chunk, strict=True))
    alone: dict[tuple[int, int], int] = {}
    for level in range(math.ceil(math.log2(max(rows, columns))), -1, -1):
        for place in product(range(0, rows, 2**level), range(0, columns, 2**level)):
            alone.setdefault(place, 2**level)
    found = []
    for (row, column), step in alone.items():
        top, left = row * chunk[0], column * chunk[1]
        box = Box(top, left, min(chunk[0], size[0] - top), min(chunk[1], size[1] - left))
        found.append((box, (step * chunk[0], step * chunk[1])))
    return found


def layer_on(
    grid: Grid, path: Path, name: str, scene: Path, size: tuple[int, int], classes: tuple[str, ...]
) -> RasterLayer:
    """The layer ``name`` of a scene from a file of its map, confidence or labels.

    Raises:
        SizeMismatch, ClassMismatch: it is not the scene's size, or has other classes than the model.
    """
    found = image_size(path)
    if found != size:
        raise SizeMismatch(
            f"{path.name} is {found[1]} x {found[0]} pixels, {scene.name} {size[1]} x {size[0]}. Give files on the "
            "same grid."
        )
    with open_raster(path) as raster:
        stored, count = raster.tags().get("regard_classes"), len(raster.bands)
    if stored is not None and name == "labels_map" and tuple(json.loads(stored)) != classes:
        raise ClassMismatch(
            f"{path.name} has the classes {', '.join(json.loads(stored))}; the model has {', '.join(classes)}. Give "
            "the model that made the map."
        )
    bands = (1, 2, 3) if count >= 3 and name == "labels" else (1,)
    return RasterLayer(partial(open_raster, path), grid, bands, nearest=name != "confidence")
