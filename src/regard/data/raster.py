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
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.data.place import driver_of
from regard.errors import BandMismatch, UnreadableImage

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
    def _reads_alpha(self) -> bool:
        """Whether a band marked as alpha was asked for: in truth near infrared, as many files have it."""
        return any(self.dataset.colorinterp[number - 1] == ColorInterp.alpha for number in self.bands)

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
                np.ones(pixels.shape[1:], bool) if self._reads_alpha else self.dataset.dataset_mask(window=window) > 0
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


def open_raster(
    path: Path, *, bands: Sequence[int | str] | None = None, expected: Sequence[str] | None = None
) -> Raster:
    """Open a raster and choose its bands: ``bands`` by number from 1 or by name; else those that a model ``expected``.

    Raises:
        UnreadableImage: missing, of a kind that is not read, broken, or with blocks above 1 GiB.
        BandMismatch: the bands asked for are not there, or are not as many as the model's.
    """
    driver = driver_of(path)
    with refusing(path, "the header"), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = rasterio.open(path, driver=driver)
    try:
        with refusing(path, "the header"):
            _check_blocks(path, dataset)
            if expected:
                _check_bits(path, dataset)
            return Raster(path, dataset, choose_bands(path, dataset, bands, expected))
    except BaseException:
        dataset.close()
        raise


def choose_bands(
    path: Path, dataset: Any, bands: Sequence[int | str] | None, expected: Sequence[str] | None
) -> tuple[int, ...]:
    """Numbers (from 1) of the bands to read: those asked for; else all but alpha, in the model's order if named alike.

    Raises:
        BandMismatch: see :func:`open_raster`.
    """
    names = band_names(dataset)
    if bands:
        chosen = tuple(_band_number(path, band, names) for band in bands)
    else:
        chosen = tuple(i + 1 for i, kind in enumerate(dataset.colorinterp) if kind != ColorInterp.alpha)
        if expected and sorted(expected) == sorted(names[number - 1] for number in chosen):
            chosen = tuple(names.index(band) + 1 for band in expected)
    if expected and len(chosen) != len(expected):
        listed = ", ".join(f"{number + 1} {name}" for number, name in enumerate(names))
        raise BandMismatch(
            f"{path.name} has {len(chosen)} band{'s' * (len(chosen) > 1)} ({listed}); the model was trained on "
            f"{len(expected)} ({', '.join(expected)}). {_advice(path, dataset, expected)}"
        )
    return chosen


def _advice(path: Path, dataset: Any, expected: Sequence[str]) -> str:
    """Which bands to ask for: those whose names hold the model's band names, else the first ones; how to make them of
    a single one.
    """
    names = band_names(dataset)
    if len(names) == 1 and tuple(expected) == ("red", "green", "blue"):
        how = "-expand rgb" if dataset.colorinterp[0] == ColorInterp.palette else "-b 1 -b 1 -b 1"
        return f"If the band is a picture, make three of it: gdal_translate {how} {path.name} {path.stem}_rgb.tif."
    if len(names) < len(expected):
        return "Give an image with these bands."
    words = [name.lower().split() for name in names]
    alike = [number for band in expected for number, held in enumerate(words, 1) if band.lower() in held]
    numbers = alike if len(alike) == len(expected) else range(1, len(expected) + 1)
    return f"Choose them with --bands {','.join(map(str, numbers))}."


def band_names(dataset: Any) -> list[str]:
    """The bands' descriptions, or their colours, or band_1, band_2, ..."""
    fallback = [kind.name if kind.value > 2 else f"band_{i + 1}" for i, kind in enumerate(dataset.colorinterp)]
    return [text or other for text, other in zip(dataset.descriptions, fallback, strict=True)]


def _band_number(path: Path, band: int | str, names: list[str]) -> int:
    text = str(band)
    if text in names:
        return names.index(text) + 1
    if text.isdigit() and 1 <= int(text) <= len(names):
        return int(text)
    raise BandMismatch(
        f"{path.name} has no band {text!r}; it has 1 to {len(names)}: {', '.join(names)}. Choose among them."
    )


def _check_blocks(path: Path, dataset: Any) -> None:
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = height * width * np.dtype(kind.replace("complex_int16", "complex64")).itemsize
        if size > BLOCK_LIMIT:
            raise UnreadableImage(
                f"{path} asks for a block of {size / 2**30:.0f} GiB. Rewrite it in tiles: gdal_translate -co TILED=YES."
            )
        if kind.startswith("complex"):
            raise UnreadableImage(f"{path} holds complex numbers ({kind}). Convert it to real values first.")


def _check_bits(path: Path, dataset: Any) -> None:
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if bits < 8:
        raise BandMismatch(
            f"{path.name} has {bits} bit{'s' * (bits > 1)} a band; a photograph or scene has 8 or more. Give the image "
            "that it was made from."
        )


@contextmanager
def refusing(path: Path, part: str) -> Iterator[None]:
    """Turn GDAL's errors into one line of ours."""
    try:
        yield
    except (rasterio.errors.RasterioError, CPLE_BaseError, MemoryError) as error:
        while isinstance(error.__cause__, CPLE_BaseError):  # rasterio's own words are: see the previous exception
            error = error.__cause__
        reason = " ".join(str(error).split())[:160]
        raise UnreadableImage(
            f"{path}: {part} cannot be read ({reason}). Fetch the file again or convert it to GeoTIFF."
        ) from None


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
