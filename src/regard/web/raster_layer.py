"""Tiles of one raster file of any size, with or without overviews, in bounded memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window
from rio_tiler.reader import part

from regard.data.image import Pixels
from regard.data.raster import Box, Raster, refusing
from regard.web.grid import SIDE, Address, Grid, PixelGrid

READERS = 4  # tiles read at the same time
READ_WHOLE = 4096  # pixels: larger files without overviews get one of at most FAR pixels a side, in memory
FAR = 2048
STRIP = 512
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
        self.ready, self.stopped = threading.Event(), threading.Event()
        with reopen() as raster:
            self.path, self.size = raster.path, raster.size
            shrunk = max(raster.dataset.overviews(bands[0]), default=1)
        large = max(self.size) > READ_WHOLE * shrunk
        self.factor = 2 ** math.ceil(math.log2(max(self.size) / FAR)) if large else 0
        if large:
            threading.Thread(target=self._prepare, daemon=True).start()
        else:
            self.ready.set()

    def tile(self, address: Address) -> Pixels:
        """The pixels of a tile; no valid ones outside the raster.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        far = self.factor and self.grid.step(address.z) >= self.factor
        while far and not self.ready.wait(0.2):
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
        """Read the file once, from top to bottom, for a small copy that far views are cut from."""
        try:
            with rasterio.Env(**GDAL), self._near.borrow() as dataset:
                pixels = self._shrunk(dataset)
                across, down = self.size[1] / pixels.valid.shape[1], self.size[0] / pixels.valid.shape[0]
                a, b, c, d, e, f = dataset.transform[:6]
                memory = in_memory(pixels, dataset.crs, Affine(a * across, b * down, c, d * across, e * down, f))
            self._far = Handles(memory.open, range(1, 1 + len(pixels.values)))
        except rasterio.errors.RasterioError:  # a damaged block: far views are read from the file, and say so
            self.factor = 0
        self.ready.set()

    def _shrunk(self, dataset: Any) -> Pixels:
        (height, width), factor, bands = self.size, self.factor, self._near.bands
        shape = (-(-height // factor), -(-width // factor))
        values, valid = np.zeros((len(bands), *shape), dataset.dtypes[0]), np.zeros(shape, bool)
        rows = max(1, STRIP // factor) * factor
        how = Resampling.nearest if self.nearest else Resampling.average
        for top in range(0, height, rows):
            if self.stopped.is_set():
                break
            window = Window(0, top, width, min(rows, height - top))
            part = np.s_[..., top // factor : -(-(top + window.height) // factor), :]
            values[part] = dataset.read(bands, window=window, out_shape=values[part].shape, resampling=how)
            valid[part] = dataset.dataset_mask(window=window, out_shape=valid[part].shape) > 0
        return Pixels(values, valid)


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
        while not self._idle.empty():
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
