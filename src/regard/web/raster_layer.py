"""Tiles of one raster file of any size, with or without overviews, in bounded memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window
from rio_tiler.reader import part

from regard.io.image import Pixels
from regard.io.raster import Box, Raster, refusing
from regard.web.grid import SIDE, Address, Grid, PixelGrid

READERS = 4  # tiles read at the same time
READ_WHOLE = 4096  # pixels: larger files without overviews get one of at most FAR pixels a side, in memory
FAR = 2048
CHUNK = 512  # pixels: about what is read of such a file at a time
FIRST, AGAIN = 0.7, 3.0  # seconds of reading until the rough copy is shown, and until it is shown again
MERCATOR = CRS.from_epsg(3857)
SOMEWHERE = Affine(1, 0, 1, 0, -1, 1)  # for pictures: rasterio warns where nothing is said
GDAL = {"GDAL_TIFF_INTERNAL_MASK": True}


class RasterLayer:
    """A raster as tiles of a grid; ``nearest`` for labels, else smoothly."""

    def __init__(self, reopen: Callable[[], Raster], grid: Grid, bands: Sequence[int], *, nearest: bool) -> None:
        self.grid, self.nearest = grid, nearest
        self._near = Handles(lambda: reopen().dataset, bands)
        self._far: Handles | None = None
        self._turns = threading.BoundedSemaphore(READERS)
        self.begun, self.ready, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.progress = 0.0
        with reopen() as raster:
            self.path, self.size = raster.source, raster.size
            shrunk = max(raster.dataset.overviews(bands[0]), default=1)
        large = max(self.size) > READ_WHOLE * shrunk
        self.factor = 2 ** math.ceil(math.log2(max(self.size) / FAR)) if large else 0
        if large:
            threading.Thread(target=self._prepare, daemon=True).start()
        else:
            self._finish()

    def is_rough(self, address: Address) -> bool:
        """Whether the tile would be cut from a copy that is not finished."""
        return bool(self.factor) and self.grid.step(address.z) >= self.factor and not self.ready.is_set()

    def tile(self, address: Address, *, rough: bool = False) -> Pixels:
        """The pixels of a tile; no valid ones outside the raster. ``rough`` ones do not wait for the whole file.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        far = self.factor and self.grid.step(address.z) >= self.factor
        while far and not (self.begun if rough else self.ready).wait(0.2):
            if self.stopped.is_set():
                return self._empty()
        handles = self._far if far and self._far is not None else self._near
        with self._turns, rasterio.Env(**GDAL), refusing(self.path, f"tile {address}"), handles.borrow() as dataset:
            if isinstance(self.grid, PixelGrid):
                return self._from_pixels(dataset, handles.bands, address)
            return self._from_earth(dataset, handles.bands, address)

    def close(self) -> None:
        """Stop preparing, close the files."""
        self.stopped.set()
        for handles in (self._near, self._far):
            if handles is not None:
                handles.close()

    def _from_earth(self, dataset: Any, bands: Sequence[int], address: Address) -> Pixels:
        """The raster in web mercator; GDAL takes the overview that fits."""
        left, top, right, bottom = self.grid.extent(address)
        west, north, east, south = self.grid.around(Box(0, 0, *self.size))
        if left >= east or right <= west or bottom >= north or top <= south:
            return self._empty()
        how: Any = "nearest" if self.nearest else "bilinear"
        floating = np.issubdtype(np.dtype(dataset.dtypes[0]), np.floating)
        image = part(
            dataset, (left, bottom, right, top), SIDE, SIDE, dst_crs=MERCATOR, bounds_crs=MERCATOR,
            indexes=tuple(bands), resampling_method=how, reproject_method=how,
            nodata=math.nan if floating and dataset.nodata is None else None,
        )  # fmt: skip
        return Pixels(image.array.data, np.asarray(~np.ma.getmaskarray(image.array).any(axis=0)))

    def _from_pixels(self, dataset: Any, bands: Sequence[int], address: Address) -> Pixels:
        """A window of the picture at a whole fraction of its size; the part beyond its edge is empty."""
        tile, (height, width) = self._empty(dataset.dtypes[0]), self.size
        left, top, right, bottom = self.grid.extent(address)
        across, down = min(right, width) - left, min(bottom, height) - top
        if across <= 0 or down <= 0:
            return tile
        step, scale = self.grid.step(address.z), (dataset.width / width, dataset.height / height)
        window = Window(left * scale[0], top * scale[1], across * scale[0], down * scale[1])
        shape = (min(SIDE, math.ceil(down / step)), min(SIDE, math.ceil(across / step)))
        how = Resampling.nearest if self.nearest else Resampling.average if step > 1 else Resampling.bilinear
        inside = np.s_[..., : shape[0], : shape[1]]
        tile.values[inside] = dataset.read(bands, window=window, out_shape=(len(bands), *shape), resampling=how)
        tile.valid[inside] = dataset.dataset_mask(window=window, out_shape=shape) > 0
        if np.issubdtype(tile.values.dtype, np.floating):
            np.logical_and(tile.valid, np.isfinite(tile.values).all(axis=0), out=tile.valid)
        return tile

    def _empty(self, dtype: str = "uint8") -> Pixels:
        return Pixels(np.zeros((len(self._near.bands), SIDE, SIDE), dtype), np.zeros((SIDE, SIDE), bool))

    def _prepare(self) -> None:
        """Read the file once for a small copy that far views are cut from: here and there first, the gaps later."""
        try:
            with rasterio.Env(**GDAL), self._near.borrow() as dataset:
                shape = [-(-length // self.factor) for length in self.size]
                values, valid = np.zeros((len(self._near.bands), *shape), dataset.dtypes[0]), np.zeros(shape, bool)
                chunks, due = _spread(dataset.shape, self._chunk(dataset)), time.monotonic() + FIRST
                for done, (window, reach) in enumerate(chunks, 1):
                    if self.stopped.is_set():
                        return
                    self._shrink(dataset, window, reach, Pixels(values, valid))
                    if time.monotonic() > due or done == len(chunks):
                        self._show(Pixels(values, valid), dataset, done / len(chunks))
                        due = time.monotonic() + AGAIN
        except (rasterio.errors.RasterioError, CPLE_BaseError, MemoryError):  # far views are read from the file
            self.factor = 0
        finally:
            self._finish()

    def _finish(self) -> None:
        self.progress = 1.0
        self.begun.set()
        self.ready.set()

    def _chunk(self, dataset: Any) -> tuple[int, int]:
        """Height and width of what is read at a time: whole blocks as far as they fit, whole pixels of the copy."""
        rows, columns = dataset.block_shapes[0]
        wide = max(columns, CHUNK)
        tall = max(rows, CHUNK * CHUNK // wide)
        return -(-tall // self.factor) * self.factor, -(-wide // self.factor) * self.factor

    def _shrink(self, dataset: Any, window: Window, reach: tuple[int, int], copy: Pixels) -> None:
        """One chunk of the copy; as far as ``reach``, where nothing is read yet, its middle stands for all."""
        top, left = int(window.row_off) // self.factor, int(window.col_off) // self.factor
        shape = [-(-int(length) // self.factor) for length in (window.height, window.width)]
        how = Resampling.nearest if self.nearest else Resampling.average
        part = dataset.read(self._near.bands, window=window, out_shape=(len(copy.values), *shape), resampling=how)
        there = dataset.dataset_mask(window=window, out_shape=shape) > 0
        around = np.s_[top : top + -(-reach[0] // self.factor), left : left + -(-reach[1] // self.factor)]
        copy.values[(slice(None), *around)] = part[:, shape[0] // 2, shape[1] // 2, None, None]
        copy.valid[around] = there[shape[0] // 2, shape[1] // 2]
        inside = np.s_[top : top + shape[0], left : left + shape[1]]
        copy.values[(slice(None), *inside)], copy.valid[inside] = part, there

    def _show(self, pixels: Pixels, dataset: Any, progress: float) -> None:
        """Cut far views from the copy as it is now."""
        across, down = self.size[1] / pixels.valid.shape[1], self.size[0] / pixels.valid.shape[0]
        a, b, c, d, e, f = dataset.transform[:6]
        memory = in_memory(pixels, dataset.crs, Affine(a * across, b * down, c, d * across, e * down, f))
        before, self._far = self._far, Handles(memory.open, range(1, 1 + len(pixels.values)))
        if before is not None:
            before.close()
        self.progress = progress
        self.begun.set()


def _spread(size: Sequence[int], chunk: tuple[int, int]) -> list[tuple[Window, tuple[int, int]]]:
    """The chunks of a raster from coarse to fine, and how far to the right and down of its corner each one is alone."""
    rows, columns = (-(-length // side) for length, side in zip(size, chunk, strict=True))
    step = 2 ** math.ceil(math.log2(max(rows, columns)))
    places = [(0, 0, step)]
    while step > 1:
        double, step = step, step // 2
        grid = product(range(0, rows, step), range(0, columns, step))
        places += [(row, column, step) for row, column in grid if row % double or column % double]
    found = []
    for row, column, step in places:
        top, left = row * chunk[0], column * chunk[1]
        window = Window(left, top, min(chunk[1], size[1] - left), min(chunk[0], size[0] - top))
        found.append((window, (step * chunk[0], step * chunk[1])))
    return found


class Handles:
    """Open files, each used by one thread at a time and kept for the next."""

    def __init__(self, reopen: Callable[[], Any], bands: Sequence[int]) -> None:
        self._reopen, self.bands = reopen, list(bands)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """An open file."""
        try:
            dataset = self._idle.get_nowait()
        except Empty:
            dataset = self._reopen()
        try:
            yield dataset
        finally:
            self._idle.put(dataset)

    def close(self) -> None:
        """Close those that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()


def in_memory(pixels: Pixels, crs: Any = None, transform: Any = SOMEWHERE) -> MemoryFile:
    """Pixels and their validity as a tiled GeoTIFF in memory."""
    count, height, width = pixels.values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.values.dtype}
    profile |= {"tiled": True, "crs": crs, "transform": transform, "photometric": "minisblack"}
    memory = MemoryFile()
    with rasterio.Env(**GDAL), memory.open(**profile) as dataset:
        dataset.write(pixels.values)
        dataset.write_mask(pixels.valid)
    return memory
