"""GeoTIFF and its relatives in windows: the only place that reads through GDAL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.features
from jaxtyping import Bool, Float, Shaped
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from regard.errors import BandMismatch
from regard.io.bands import Band, band_names, bands_of, check_bits, choose_bands
from regard.io.gdal import SETTINGS, check_dataset, inside, is_lossy, open_dataset, refusing
from regard.io.no_data import marked_valid, measured, missing_data
from regard.io.source import VRT, Fingerprint, Source


class Box(NamedTuple):
    """A rectangle of pixels: top left corner and size."""

    top: int
    left: int
    height: int
    width: int


class Pixels(NamedTuple):
    """An image as read: its values, and where it has any."""

    values: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]


class Raster:
    """An open raster: its size, bands and georeference, and its pixels window by window.

    What reads pixels raises UnreadableImage where a block of the file is damaged.
    """

    def __init__(self, source: Source, dataset: Any, bands: tuple[int, ...]) -> None:
        self.source = source
        self.bands = bands
        self.area: Any = None  # a shapely geometry in pixels (x right, y down): what lies outside is no data
        self.no_data: float | None = None  # a value that stands for no data besides the file's own marks
        self._dataset = dataset
        SETTINGS.enter()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._dataset.height, self._dataset.width

    @property
    def crs(self) -> Any:
        with refusing(self.source, "the coordinate system"):
            return self._dataset.crs

    @property
    def transform(self) -> Any:
        """The affine transform from pixels (column, row) to coordinates of the CRS."""
        return self._dataset.transform

    @property
    def bounds(self) -> tuple[float, float, float, float]:  # west, south, east, north in the CRS
        return tuple(self._dataset.bounds)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(self._dataset.dtypes)

    @property
    def nodata(self) -> float | None:
        """The first band's value for no data."""
        return self._dataset.nodata

    @property
    def scale(self) -> float:
        """The factor from stored values of the first band to what they mean."""
        return self._dataset.scales[0]

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width of the blocks that the file is stored in."""
        return self._dataset.block_shapes[0]

    @property
    def is_lossy(self) -> bool:
        """Whether the file is compressed with loss."""
        return is_lossy(self._dataset)

    @property
    def overviews(self) -> list[int]:
        """The factors by which the file's overviews are smaller."""
        return self._dataset.overviews(1)

    @property
    def file_bands(self) -> tuple[Band, ...]:
        """All bands of the file: data type, colour, description, nodata."""
        return bands_of(self._dataset)

    @cached_property
    def missing_data(self) -> tuple[str, ...]:
        """Every way in which the file marks pixels without data, of ``alpha``, ``mask`` and ``nodata``."""
        return missing_data(self._dataset)

    @property
    def band_names(self) -> tuple[str, ...]:
        names = band_names(self._dataset)
        return tuple(names[number - 1] for number in self.bands)

    @property
    def reads_alpha(self) -> bool:
        """Whether a band marked as alpha was chosen: near infrared then, as in many files."""
        return any(self._dataset.colorinterp[number - 1] == ColorInterp.alpha for number in self.bands)

    @property
    def fingerprints(self) -> list[Fingerprint]:
        """The fingerprints of the files that the raster is made of: its own; of a VRT or mosaic, its parts' too."""
        parts = self._dataset.files if self._dataset.driver == VRT else []
        others = [Source(name) for name in parts if name != self.source.gdal_name]
        return [source.fingerprint() for source in (self.source, *others)]

    @property
    def control(self) -> tuple[Sequence[Any], Any, Any]:
        """Ground control points, their CRS, and a satellite's RPCs: what places a raster that has no transform."""
        return *self._dataset.gcps, self._dataset.rpcs

    @property
    def is_georeferenced(self) -> bool:
        """Whether it has a CRS or a transform."""
        return self.crs is not None or not self.transform.is_identity

    def tags(self) -> dict[str, str]:
        return self._dataset.tags()

    def band_tags(self, number: int) -> dict[str, str]:
        """The tags of one band, numbered from 1."""
        return self._dataset.tags(number)

    def colormap(self) -> dict[int, tuple[int, ...]] | None:
        """The colour table of the first band, if it has one."""
        try:
            return self._dataset.colormap(1)
        except ValueError:
            return None

    def read(self, box: Box) -> Pixels:
        """Pixels of the chosen bands and which of them hold data (alpha, mask, nodata, finite), inside the raster."""
        pixels = self._read(self.bands, box)
        valid = np.ones(pixels.shape[1:], bool) if self.reads_alpha else self.valid(box)
        valid &= measured(pixels, [self._dataset.nodatavals[number - 1] for number in self.bands], self.no_data)
        if self.area is not None:
            valid &= inside(self.area, box)
        return Pixels(pixels, valid)

    def read_band(self, box: Box) -> Shaped[np.ndarray, "h w"]:
        """The values of the first band as they are stored."""
        return self._read(1, box)

    def read_scaled(
        self, shape: tuple[int, int], box: Sequence[Any] | None = None, *, nearest: bool = False
    ) -> Shaped[np.ndarray, "c h w"]:
        """The chosen bands of ``box`` (of fractional pixels; all without) at another size: enlarged by bilinear
        interpolation, shrunk by averaging; ``nearest`` neighbours for labels.
        """
        box = box or (0, 0, *self.size)
        smooth = Resampling.average if box[2] > shape[0] or box[3] > shape[1] else Resampling.bilinear
        resampling = Resampling.nearest if nearest else smooth
        return self._read(self.bands, box, out_shape=(len(self.bands), *shape), resampling=resampling)

    def valid(self, box: Sequence[Any], shape: tuple[int, int] | None = None) -> Bool[np.ndarray, "h w"]:
        """Which pixels of ``box`` the file's alpha, mask and nodata all call data; ``shape`` resamples them."""
        with refusing(self.source, _told(box)):
            return marked_valid(self._dataset, self.missing_data, window=_window(box), out_shape=shape)

    def _read(self, bands: int | Sequence[int], box: Sequence[Any], **how: Any) -> np.ndarray:
        with refusing(self.source, _told(box)):
            return self._dataset.read(bands, window=_window(box), **how)

    def sieve(self, pixels: int, out: np.ndarray, mask: Bool[np.ndarray, "h w"] | np.ndarray) -> None:
        """Write band 1 to ``out``; 4-connected polygons below ``pixels`` pixels get their largest neighbour's value."""
        rasterio.features.sieve(rasterio.band(self._dataset, 1), pixels, out=out, mask=mask)

    def bytes_of(self, height: int, width: int) -> int:
        """The memory that so many pixels and their validity take."""
        return height * width * (1 + sum(np.dtype(self.dtypes[number - 1]).itemsize for number in self.bands))

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        if not self._dataset.closed:
            self._dataset.close()
            SETTINGS.leave()

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
        UnreadableImage: missing, of an unsupported format, broken, or with blocks above 1 GiB.
        BandMismatch: the bands asked for are not there, or are not as many as the model's.
    """
    source = Source.of(source)
    with SETTINGS, ExitStack() as unless_it_opens:
        dataset = open_dataset(source, vrt=vrt)
        unless_it_opens.callback(dataset.close)  # entered, it could be closed in this thread only
        with refusing(source, "the header"):
            check_dataset(source, dataset)
            if expected:
                check_bits(source, bands_of(dataset))
            raster = Raster(source, dataset, choose_bands(source, dataset, bands, expected))
        if raster.reads_alpha and source.document is not None:
            raster.close()
            raise BandMismatch(
                "an alpha band of a mosaic says where there is data, and is no data itself. If it is, mark it so "
                "in every file: gdal_edit.py -colorinterp_4 undefined."
            )
        unless_it_opens.pop_all()
        return raster


def apply(transform: Any, columns: Any, rows: Any) -> tuple[Any, Any]:
    """Map coordinates of columns and rows, or the reverse with the inverse transform."""
    a, b, c, d, e, f = transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f


def to_map(xy: Float[np.ndarray, "n 2"], transform: Any) -> Float[np.ndarray, "n 2"]:
    """:func:`apply` for points (column, row) in the rows of an array, as shapely wants it."""
    return np.stack(apply(transform, xy[:, 0], xy[:, 1]), axis=1)


def _window(box: Sequence[Any]) -> Window:
    top, left, height, width = box
    return Window(left, top, width, height)


def _told(box: Sequence[Any]) -> str:
    return f"a part of {round(box[3])} x {round(box[2])} pixels from row {round(box[0])}"
