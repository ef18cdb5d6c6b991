"""GeoTIFF and its relatives in windows. The only place that reads through GDAL."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import rasterio
from jaxtyping import Bool, Int, Shaped
from rasterio._err import CPLE_BaseError
from rasterio._path import _UnparsedPath
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import geometry_mask, rasterize
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.errors import BandMismatch, UnreadableImage
from regard.io.bands import band_names, check_bits, choose_bands
from regard.io.source import VRT, Source, Stamp

BLOCK_LIMIT = 2**30  # bytes that one block of a file may ask for


class Box(NamedTuple):
    """A rectangle of pixels: top left corner and size."""

    top: int
    left: int
    height: int
    width: int


class Raster:
    """An open raster: its size, bands and place on Earth, and its pixels window by window."""

    def __init__(self, source: Source, dataset: Any, bands: tuple[int, ...]) -> None:
        self.source = source
        self.dataset = dataset
        self.bands = bands
        self.area: Any = None  # a shapely geometry in pixels (x right, y down): what lies outside is no data

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.height, self.dataset.width

    @property
    def crs(self) -> Any:
        with refusing(self.source, "the coordinate system"):
            return self.dataset.crs

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @property
    def band_names(self) -> tuple[str, ...]:
        """The names of the chosen bands."""
        names = band_names(self.dataset)
        return tuple(names[number - 1] for number in self.bands)

    @property
    def reads_alpha(self) -> bool:
        """Whether a band marked as alpha was asked for: in truth near infrared, as many files have it."""
        return any(self.dataset.colorinterp[number - 1] == ColorInterp.alpha for number in self.bands)

    @property
    def stamps(self) -> list[Stamp]:
        """The fingerprints of the files that the raster is made of: its own; of a VRT or mosaic, its parts' too."""
        parts = self.dataset.files if self.dataset.driver == VRT else []
        return [self.source.stamp(), *(Source(name).stamp() for name in parts if name != self.source.gdal_name)]

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or not self.transform.is_identity

    def read(self, box: Box) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Pixels of the chosen bands and which of them hold data (alpha, mask, nodata, finite), inside the raster.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        window = Window(box.left, box.top, box.width, box.height)
        with refusing(self.source, f"a part of {box.width} x {box.height} pixels from row {box.top}"):
            pixels = self.dataset.read(self.bands, window=window)
            valid = (
                np.ones(pixels.shape[1:], bool) if self.reads_alpha else self.dataset.dataset_mask(window=window) > 0
            )
        if np.issubdtype(pixels.dtype, np.floating):
            valid &= np.isfinite(pixels).all(axis=0)
        for values, number in zip(pixels, self.bands, strict=True):
            nodata = self.dataset.nodatavals[number - 1]
            if nodata is not None and nodata < 0:  # no reading, whatever the other bands hold; 0 may be a dark pixel
                valid &= values != nodata
        if self.area is not None:
            valid &= inside(self.area, box)
        return pixels, valid

    def bytes_of(self, height: int, width: int) -> int:
        """The memory that so many pixels and their validity take."""
        return height * width * (1 + sum(np.dtype(self.dataset.dtypes[number - 1]).itemsize for number in self.bands))

    def close(self) -> None:
        self.dataset.close()

    def __enter__(self) -> Raster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def inside(area: Any, box: Box) -> Bool[np.ndarray, "h w"]:
    """Which pixels of a box have their centre in ``area``, a shapely geometry in pixels of the raster."""
    shift = Affine.translation(box.left, box.top)
    return geometry_mask([area], (box.height, box.width), shift, invert=True)


def rasterise(
    shapes: np.ndarray, labels: Int[np.ndarray, " n"], box: Box, *, fill: int, touched: bool = False
) -> Int[np.ndarray, "h w"]:
    """The label of each pixel of a box from polygons in pixels; where two overlap the later holds; ``fill`` elsewhere.

    A pixel gets a label by its centre; with ``touched`` by any part of it.
    """
    drawn = np.full((box.height, box.width), fill, dtype=np.int32)
    if len(shapes):
        origin = Affine.translation(box.left, box.top)
        rasterize(zip(shapes, labels.tolist(), strict=True), out=drawn, transform=origin, all_touched=touched)
    return drawn.astype(np.int64)


def apply(transform: Any, columns: Any, rows: Any) -> tuple[Any, Any]:
    """Coordinates on the ground of columns and rows, or the reverse with the inverse transform."""
    a, b, c, d, e, f = transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f


def open_raster(
    source: str | Path | Source,
    *,
    bands: Sequence[int | str] | None = None,
    expected: Sequence[str] | None = None,
    vrt: bool = False,
) -> Raster:
    """Open a raster and choose its bands: ``bands`` by number from 1 or by name; else those that a model ``expected``.

    ``vrt`` allows a VRT, which may read any file of the machine.

    Raises:
        UnreadableImage: missing, of a kind that is not read, broken, or with blocks above 1 GiB.
        BandMismatch: the bands asked for are not there, or are not as many as the model's.
    """
    source = Source.of(source)
    drivers = source.drivers(vrt=vrt)
    with refusing(source, "the header"), warnings.catch_warnings(), rasterio.Env():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = DatasetReader(_UnparsedPath(source.gdal_name), driver=drivers)
    try:
        with refusing(source, "the header"):
            _check_blocks(source, dataset)
            _check_parts(source, dataset)
            _check_upright(source, dataset)
            if expected:
                check_bits(source, dataset)
            raster = Raster(source, dataset, choose_bands(source, dataset, bands, expected))
            if raster.reads_alpha and source.document is not None:
                raise BandMismatch(
                    "an alpha band of a mosaic says where there is data, and is no data itself. If it is, mark it so "
                    "in every file: gdal_edit.py -colorinterp_4 undefined."
                )
            return raster
    except BaseException:
        dataset.close()
        raise


def _check_blocks(source: Source, dataset: Any) -> None:
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = height * width * np.dtype(kind.replace("complex_int16", "complex64")).itemsize
        if size > BLOCK_LIMIT:
            raise UnreadableImage(
                f"{source} asks for a block of {size / 2**30:.0f} GiB. Rewrite it in tiles: "
                "gdal_translate -co TILED=YES."
            )
        if kind.startswith("complex"):
            raise UnreadableImage(f"{source} holds complex numbers ({kind}). Convert it to real values first.")


def _check_parts(source: Source, dataset: Any) -> None:
    gone = [file for file in dataset.files if (local := Source(file).local) is not None and not local.is_file()]
    if gone:
        raise UnreadableImage(f"{source} is made of {gone[0]}, which does not exist. Fetch it, or make the VRT again.")


def _check_upright(source: Source, dataset: Any) -> None:
    turned = dataset.tags().get("EXIF_Orientation", "1") if dataset.driver == "JPEG" else "1"
    if turned not in ("0", "1"):
        raise UnreadableImage(
            f"{source} is stored turned (EXIF orientation {turned}), and is read in windows as it is stored. Turn its "
            "pixels upright first: jpegtran, or any editor."
        )


@contextmanager
def refusing(source: Source, part: str) -> Iterator[None]:
    """Turn GDAL's errors into one line of ours."""
    try:
        yield
    except (rasterio.errors.RasterioError, CPLE_BaseError, MemoryError) as error:
        reason = " ".join(_told(error).replace(source.gdal_name, str(source)).split())[:240]
        raise UnreadableImage(
            f"{source}: {part} cannot be read ({reason}). Fetch the file again or convert it to GeoTIFF."
        ) from None


def _told(error: BaseException) -> str:
    """The first and the deepest of GDAL's complaints; rasterio's own words only tell to look there."""
    told = [error]
    while told[-1].__cause__ is not None:
        told.append(told[-1].__cause__)
    return "; ".join(dict.fromkeys(str(one) for one in (told[min(1, len(told) - 1)], told[-1])))


def gdal_version() -> str:
    """The version of GDAL that rasters are read with."""
    return rasterio.__gdal_version__


def read_small(source: str | Path | Source, width: int, *, nearest: bool = False) -> Shaped[np.ndarray, "c h w"]:
    """A raster shrunk to ``width`` pixels, for pictures.

    Raises:
        UnreadableImage: see :func:`open_raster`.
    """
    with open_raster(source) as raster, refusing(raster.source, "the overview"):
        height = max(1, round(raster.size[0] * width / raster.size[1]))
        how = Resampling.nearest if nearest else Resampling.average
        return raster.dataset.read(raster.bands, out_shape=(len(raster.bands), height, width), resampling=how)
