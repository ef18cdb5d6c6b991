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
from jaxtyping import Bool, Shaped
from rasterio._err import CPLE_BaseError
from rasterio._path import _UnparsedPath
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import geometry_mask
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.errors import BandMismatch, UnreadableImage
from regard.io.bands import band_names, check_bits, choose_bands
from regard.io.source import MOSAICS, VRT, Stamp, drivers_of, gdal_name, is_virtual, stamp

BLOCK_LIMIT = 2**30  # bytes that one block of a file may ask for


class Box(NamedTuple):
    """A rectangle of pixels: top left corner and size."""

    top: int
    left: int
    height: int
    width: int


class Raster:
    """An open raster: its size, bands and place on Earth, and its pixels window by window."""

    def __init__(self, path: Path, dataset: Any, bands: tuple[int, ...]) -> None:
        self.path = path
        self.dataset = dataset
        self.bands = bands
        self.area: Any = None  # a shapely geometry in pixels (x right, y down): what lies outside is no data

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.height, self.dataset.width

    @property
    def crs(self) -> Any:
        with refusing(self.path, "the coordinate system"):
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
        """The files that the raster is made of, as they are now: itself; of a VRT, those that it names too."""
        whole = self.dataset.driver == VRT
        return [stamp(name) for name in (self.dataset.files if whole else [gdal_name(self.path)])]

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or not self.transform.is_identity

    def read(self, box: Box) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Pixels of the chosen bands and which of them hold data (alpha, mask, nodata, finite), inside the raster.

        Raises:
            UnreadableImage: a block of the file is damaged.
        """
        window = Window(box.left, box.top, box.width, box.height)
        with refusing(self.path, f"a part of {box.width} x {box.height} pixels from row {box.top}"):
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


def apply(transform: Any, columns: Any, rows: Any) -> tuple[Any, Any]:
    """Coordinates on the ground of columns and rows, or the reverse with the inverse transform."""
    a, b, c, d, e, f = transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f


def open_raster(
    path: Path,
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
    drivers = drivers_of(path, vrt=vrt)
    with refusing(path, "the header"), warnings.catch_warnings(), rasterio.Env():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = DatasetReader(_UnparsedPath(gdal_name(path)), driver=drivers)
    try:
        with refusing(path, "the header"):
            _check_blocks(path, dataset)
            _check_parts(path, dataset)
            _check_upright(path, dataset)
            if expected:
                check_bits(path, dataset)
            raster = Raster(path, dataset, choose_bands(path, dataset, bands, expected))
            if raster.reads_alpha and str(path).startswith(MOSAICS):
                raise BandMismatch(
                    "an alpha band of a mosaic says where there is data, and is no data itself. If it is, mark it so "
                    "in every file: gdal_edit.py -colorinterp_4 undefined."
                )
            return raster
    except BaseException:
        dataset.close()
        raise


def _check_blocks(path: Path, dataset: Any) -> None:
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = height * width * np.dtype(kind.replace("complex_int16", "complex64")).itemsize
        if size > BLOCK_LIMIT:
            raise UnreadableImage(
                f"{path} asks for a block of {size / 2**30:.0f} GiB. Rewrite it in tiles: gdal_translate -co TILED=YES."
            )
        if kind.startswith("complex"):
            raise UnreadableImage(f"{path} holds complex numbers ({kind}). Convert it to real values first.")


def _check_parts(path: Path, dataset: Any) -> None:
    gone = [file for file in dataset.files if not is_virtual(Path(file)) and not Path(file).is_file()]
    if gone:
        raise UnreadableImage(f"{path} is made of {gone[0]}, which does not exist. Fetch it, or make the VRT again.")


def _check_upright(path: Path, dataset: Any) -> None:
    turned = dataset.tags().get("EXIF_Orientation", "1") if dataset.driver == "JPEG" else "1"
    if turned not in ("0", "1"):
        raise UnreadableImage(
            f"{path} is stored turned (EXIF orientation {turned}), and is read in windows as it is stored. Turn its "
            "pixels upright first: jpegtran, or any editor."
        )


@contextmanager
def refusing(path: Path, part: str) -> Iterator[None]:
    """Turn GDAL's errors into one line of ours."""
    try:
        yield
    except (rasterio.errors.RasterioError, CPLE_BaseError, MemoryError) as error:
        reason = " ".join(_told(error).split())[:240]
        raise UnreadableImage(
            f"{path}: {part} cannot be read ({reason}). Fetch the file again or convert it to GeoTIFF."
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


def read_small(path: Path, width: int, *, nearest: bool = False) -> Shaped[np.ndarray, "c h w"]:
    """A raster shrunk to ``width`` pixels, for pictures.

    Raises:
        UnreadableImage: see :func:`open_raster`.
    """
    with open_raster(path) as raster, refusing(path, "the overview"):
        height = max(1, round(raster.size[0] * width / raster.size[1]))
        how = Resampling.nearest if nearest else Resampling.average
        return raster.dataset.read(raster.bands, out_shape=(len(raster.bands), height, width), resampling=how)
