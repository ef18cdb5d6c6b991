"""Windows of a raster: all from north to south, read ahead in pieces of bounded size, any at any scale, or a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import rasterio
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from regard.io.gdal import refusing
from regard.io.no_data import all_nodata, measured
from regard.io.raster import Box, Pixels, Raster
from regard.io.source import Source

PLACEHOLDER = Affine(1, 0, 1, 0, -1, 1)  # of images without a transform: rasterio warns of the identity
ALONG, SIDE = 8, 128  # boxes of a sparse look along each axis, and their pixels along a side
STATISTICS = ("STATISTICS_MINIMUM", "STATISTICS_MAXIMUM")
Bounds = tuple[float, float, float, float]
ROWS_AT_ONCE = 512e6  # bytes that a piece may take where a file has full-width blocks, which its parts would all decode


def read_windows(
    raster: Raster, tops: Sequence[int], lefts: Sequence[int], size: tuple[int, int], *, at_most: float
) -> Iterator[Pixels]:
    """Pixels and validity of the windows of ``size`` at ``tops`` x ``lefts``, row by row, each from left to right.

    Neighbours are read together, as pieces of ``at_most`` bytes or of one window; while one piece is worked on, a
    thread reads the next. What lies beyond the raster's edge mirrors what lies before it, as data that is there.
    """
    height, width = size
    groups = list(_neighbours(lefts, width, piece_bytes(raster, at_most) / raster.bytes_of(height, 1)))
    pieces = [(group, Box(top, group[0], height, group[-1] - group[0] + width)) for top in tops for group in groups]
    with ThreadPoolExecutor(1, "reader") as reader:
        coming = reader.submit(padded, raster, pieces[0][1])
        for (group, box), following in zip(pieces, [*pieces[1:], None], strict=True):
            pixels, valid = coming.result()
            if following is not None:
                coming = reader.submit(padded, raster, following[1])
            for left in group:
                columns = slice(left - box.left, left - box.left + width)
                yield Pixels(pixels[..., columns], valid[:, columns])


def piece_bytes(raster: Raster, at_most: float) -> float:
    """How large a piece may be: larger where the file's blocks are as wide as it is, which each piece decodes whole."""
    return max(at_most, ROWS_AT_ONCE) if raster.block_shape[1] >= raster.size[1] else at_most


def _neighbours(lefts: Sequence[int], width: int, at_most: float) -> Iterator[list[int]]:
    """Windows that begin at ``lefts`` in groups that cover up to ``at_most`` columns."""
    group = [lefts[0]]
    for left in lefts[1:]:
        if left + width - group[0] > at_most:
            yield group
            group = []
        group.append(left)
    yield group


def padded(raster: Raster, box: Box) -> Pixels:
    """Pixels and validity of a box that may reach beyond the raster's lower and right edge, which mirror the inside."""
    (height, width), bottom, right = raster.size, box.top + box.height, box.left + box.width
    below, beyond = max(0, bottom - height), max(0, right - width)
    top, left = max(0, min(box.top, height - below)), max(0, min(box.left, width - beyond))  # with what is mirrored
    pixels = raster.read(Box(top, left, min(bottom, height) - top, min(right, width) - left))
    if not below and not beyond:
        return pixels
    edges, inside = ((0, below), (0, beyond)), np.s_[..., box.top - top :, box.left - left :]
    values, valid = np.pad(pixels.values, ((0, 0), *edges), "symmetric"), np.pad(pixels.valid, edges, "symmetric")
    return Pixels(values[inside], valid[inside])


def sampled(raster: Raster) -> Iterator[Pixels]:
    """Pixels of boxes spread evenly over the raster or its area of interest; of a small one, all pixels.

    Raises:
        UnreadableImage: a block of the file is damaged.
    """
    left, top, right, bottom = (0, 0, *raster.size[::-1]) if raster.area is None else map(int, raster.area.bounds)
    height, width = raster.size
    for row in _places(max(0, top), min(height, bottom + 1)):
        for column in _places(max(0, left), min(width, right + 1)):
            yield raster.read(Box(row, column, min(SIDE, height - row), min(SIDE, width - column)))


def _places(first: int, end: int) -> list[int]:
    """Where boxes begin between ``first`` and ``end``: side by side where few fit, else far apart."""
    begin, count = first // SIDE, max(1, -(-end // SIDE) - first // SIDE)
    picked = range(count) if count <= ALONG else (round(i * (count - 1) / (ALONG - 1)) for i in range(ALONG))
    return [SIDE * (begin + place) for place in picked]


def stored_range(raster: Raster) -> tuple[float, float] | None:
    """The lowest and the highest value of the bands that are read by the statistics in the file; None without any."""
    found = [raster.band_tags(number) for number in raster.bands]
    if not all(name in tags for tags in found for name in STATISTICS):
        return None
    low, high = ([float(tags[name]) for tags in found] for name in STATISTICS)
    return min(low), max(high)


def measured_in(raster: Raster, pixels: Shaped[np.ndarray, "c h w"]) -> Bool[np.ndarray, "h w"]:
    """Which pixels of the chosen bands have a value in each, as in :meth:`~regard.io.raster.Raster.read`."""
    return measured(pixels, [raster._dataset.nodatavals[number - 1] for number in raster.bands], raster.no_data)


def read_web_mercator(raster: Raster, bounds: Bounds, side: int, *, nearest: bool) -> Pixels:
    """The chosen bands in ``side`` x ``side`` pixels over ``bounds`` (left, bottom, right, top) in EPSG:3857, from the
    overview that fits, and which pixels hold data.
    """
    nan = math.nan if np.issubdtype(np.dtype(raster.dtypes[0]), np.floating) and raster.nodata is None else None
    resampling = "nearest" if nearest else "bilinear"
    how = {"indexes": raster.bands, "resampling_method": resampling, "reproject_method": resampling, "nodata": nan}
    values = _warped(raster, bounds, side, **how, vrt_options=_unmarked(raster) if len(raster.missing_data) > 1 else {})
    return Pixels(values, _warped_valid(raster, bounds, side))


def _warped_valid(raster: Raster, bounds: Bounds, side: int) -> Bool[np.ndarray, "h w"]:
    """Which pixels over ``bounds`` hold data: those whose nearest pixel of the file does, by the rule of a map."""
    nodata, colours = raster._dataset.nodatavals, raster._dataset.colorinterp
    bands = [number for number, colour in enumerate(colours, 1) if colour != ColorInterp.alpha]
    alpha = next((number for number, colour in enumerate(colours, 1) if colour == ColorInterp.alpha), len(colours) + 1)
    read = bands if "nodata" in raster.missing_data else list(raster.bands)
    order = (*read, alpha)
    values = _warped(raster, bounds, side, indexes=order, vrt_options=_unmarked(raster))  # nearest by default
    valid = (values[-1] > 0) & measured_in(raster, values[[order.index(number) for number in raster.bands]])
    if read is bands:
        valid &= ~all_nodata(values[:-1], [nodata[number - 1] for number in bands])
    return valid


def _unmarked(raster: Raster) -> dict[str, Any]:  # warps every value, nodata too; the file's mask becomes an alpha band
    return {"src_nodata": None, "nodata": None, "add_alpha": "alpha" not in raster.missing_data}


def _warped(raster: Raster, bounds: Bounds, side: int, **how: Any) -> Shaped[np.ndarray, "c h w"]:
    from rio_tiler.reader import part  # of the extra "web"

    with refusing(raster.source, "a tile"):
        return part(
            raster._dataset, bounds, side, side, dst_crs="EPSG:3857", bounds_crs="EPSG:3857", **how
        ).array.data  # fmt: skip


def in_memory(pixels: Pixels, crs: Any = None, transform: Any = PLACEHOLDER) -> Callable[[], Raster]:
    """Pixels and their validity as a tiled GeoTIFF in memory, and how to open it, as often as one likes."""
    values, valid = pixels
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    profile |= {"tiled": True, "crs": crs, "transform": transform, "photometric": "minisblack"}
    file = MemoryFile()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), file.open(**profile) as dataset:
        dataset.write(values)
        dataset.write_mask(valid)
    return lambda: Raster(Source(file.name), file.open(), tuple(range(1, count + 1)))


class RasterPool:
    """Open rasters of one source, each used by one thread at a time and kept for the next."""

    def __init__(self, reopen: Callable[[], Raster]) -> None:
        self._reopen = reopen
        self._idle: SimpleQueue[Raster] = SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[Raster]:
        try:
            raster = self._idle.get_nowait()
        except Empty:
            raster = self._reopen()
        try:
            yield raster
        finally:
            self._idle.put(raster)

    def close(self) -> None:
        """Close those that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()
