"""Rows in, a cloud-optimised GeoTIFF out, under its final name only when it is complete; and its style for QGIS."""

from __future__ import annotations

import filecmp
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
import rasterio.shutil
from jaxtyping import Shaped
from rasterio.crs import CRS
from rasterio.windows import Window

from regard.classes import ClassMap, Colour
from regard.files import FileWriter, write_text
from regard.io.gdal import GDAL_ERRORS, SETTINGS, XML, not_georeferenced_is_fine

BACKGROUND = re.compile(r"(back ?ground|others?|rest|none|nothing|unlabell?ed|(no|non|not)[ _-].*)", re.IGNORECASE)
BLOCK = 512  # pixels: what is written together in rows of blocks is compressed once
SUMMED = 8 * BLOCK  # columns that are summed up, and read back, together


@dataclass(frozen=True)
class Layer:
    """What a raster means: its empty value, how it is coloured, and what is said of it in its tags.

    ``styled``: a style for QGIS is to lie next to it.
    """

    description: str
    nodata: int
    dtype: str = "uint8"
    classes: ClassMap | None = None
    scale: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)
    styled: bool = False
    bands: tuple[str, ...] = ()  # their names, where there are several


def label_layer(classes: ClassMap, tags: Mapping[str, str], *, styled: bool = False) -> Layer:
    """The layer of a class map: labels, 255 (or 65535) for no data, the classes' names and colours."""
    many = len(classes.names) > 255
    names = {"regard_classes": json.dumps(list(classes.names))}
    nodata, dtype = (65535, "uint16") if many else (255, "uint8")
    return Layer("class", nodata, dtype, classes, tags={**names, **tags}, styled=styled)


def measure_layer(name: str, tags: Mapping[str, str], bands: Sequence[str] = ()) -> Layer:
    """The layer of a share 0..1 (confidence, entropy), in steps of 1/255; 0 where there is no data. ``bands`` are the
    names of several such shares.
    """
    return Layer(name, 0, scale=1 / 255, tags=tags, bands=tuple(bands))


class RasterWriter(FileWriter):
    """Writes one layer row block by row block; leaving the ``with`` block without an error publishes it.

    ``scratch`` is a folder on the same disk for what is unfinished; without it, that lies next to ``path``.
    """

    def __init__(
        self,
        path: Path,
        layer: Layer,
        size: tuple[int, int],
        *,
        crs: Any = None,
        transform: Any = None,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(path, scratch)
        self.layer = layer
        self.size = size
        self._part = self._unfinished.with_name(f"{self._unfinished.name}.part")
        self._twin, self._work = self._part.with_suffix(".twin.part"), self._part.with_suffix(".work.part")
        self._names = layer.bands or (layer.description,)
        self._profile = {
            "driver": "GTiff",
            "count": len(self._names),
            "interleave": "band",
            "height": size[0],
            "width": size[1],
            "dtype": layer.dtype,
        }
        self._profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
        self._profile |= {"bigtiff": "if_safer", "nodata": layer.nodata, "crs": crs}
        self._profile |= {} if transform is None else {"transform": transform}
        self._file: Any = None
        self._sums = self._no_sums()

    def _open(self) -> None:
        """Write the header, see that it is on the disk, and continue from there: libtiff may crash on a part of one."""
        SETTINGS.enter()
        try:
            with not_georeferenced_is_fine(), rasterio.Env():
                for part in (self._work, self._twin):
                    with rasterio.open(part, "w", sparse_ok=True, **self._profile) as file:
                        self._describe(file)
                if not filecmp.cmp(self._work, self._twin, shallow=False):
                    raise self._failed("its header does not read back")
                self._file = rasterio.open(self._work, "r+", driver="GTiff")
        except (*GDAL_ERRORS, OSError) as error:
            raise self._failed(error) from None

    def _describe(self, file: Any) -> None:
        layer = self.layer
        file.descriptions = self._names
        file.update_tags(**layer.tags)
        if layer.scale != 1.0:
            file.scales = (layer.scale,) * len(self._names)
        if layer.classes is not None:
            table = {label: (*colour, 255) for label, colour in enumerate(layer.classes.palette)}
            if layer.dtype == "uint8":
                file.write_colormap(1, {**table, layer.nodata: (0, 0, 0, 0)})

    def place_by(self, points: Sequence[Any], crs: Any, rpcs: Any) -> None:
        """Place the raster by ground control points with their CRS, and by RPCs, where there are any."""
        if points:
            self._file.gcps = (points, crs or CRS())
        if rpcs is not None:
            self._file.rpcs = rpcs

    def write(self, top: int, rows: Shaped[np.ndarray, "h w"], band: int = 1) -> None:
        """The next rows of a band, from ``top`` on; OutputError where the disk is full or gone."""
        self._add(self._sums, band, 0, rows)
        try:
            self._file.write(rows, band, window=Window(0, top, rows.shape[1], rows.shape[0]))
        except GDAL_ERRORS as error:
            raise self._failed(error) from None

    def _publish(self) -> None:
        resampling = "AVERAGE" if self.layer.classes is None else "MODE"
        options = {"BLOCKSIZE": BLOCK, "COMPRESS": "DEFLATE", "OVERVIEW_RESAMPLING": resampling, "BIGTIFF": "IF_SAFER"}
        try:
            for part in (self._part, self._twin):  # from what is in memory: its header may not have reached the disk
                rasterio.shutil.copy(self._file, part, driver="COG", **options)
            self._read_back()
        except (*GDAL_ERRORS, OSError) as error:  # GDAL's own where a copy finds no room
            raise self._failed(error) from None
        if self.layer.classes is not None:  # TIFF itself has no place for the names of classes that GDAL reads
            write_text(
                names_path(self.path), XML.get_template("categories.xml.j2").render(names=self.layer.classes.names)
            )
            if self.layer.styled:
                write_style(self.path, self.layer.classes)
        os.replace(self._part, self.path)  # at last: where it is, what lies next to it is

    def _read_back(self) -> None:
        """Decode the file whole, and compare it with its twin: GDAL does not report every write that fails."""
        (height, width), found = self.size, self._no_sums()
        with not_georeferenced_is_fine(), rasterio.open(self._part) as part:
            for top, left in product(range(0, height, BLOCK), range(0, width, SUMMED)):
                window = Window(left, top, min(SUMMED, width - left), min(BLOCK, height - top))
                for band, rows in enumerate(part.read(window=window), start=1):
                    self._add(found, band, left, rows)
        if found != self._sums or not filecmp.cmp(self._part, self._twin, shallow=False):
            raise self._failed("what was written does not read back")

    def _no_sums(self) -> list[dict[int, int]]:
        """For each band the sums of all its rows, by the first of the columns that they are of."""
        return [dict.fromkeys(range(0, self.size[1], SUMMED), 0) for _ in self._names]

    def _add(self, sums: list[dict[int, int]], band: int, left: int, rows: Shaped[np.ndarray, "h w"]) -> None:
        """Add the next rows of a band, from the column ``left`` on, to the sums."""
        for first in range(0, rows.shape[1], SUMMED):
            part = np.ascontiguousarray(rows[:, first : first + SUMMED], self.layer.dtype)
            sums[band - 1][left + first] = crc32(part.data, sums[band - 1][left + first])

    def _close(self) -> None:
        SETTINGS.leave()
        if self._file is not None:
            with suppress(*GDAL_ERRORS), rasterio.Env():  # said before
                self._file.close()


def names_path(raster: Path) -> Path:
    """Where GDAL looks for the names of a raster's classes."""
    return raster.with_name(raster.name + ".aux.xml")


def style_path(raster: Path) -> Path:
    """Where QGIS looks for the style of a raster: the same name with the ending ``.qml``."""
    return raster.with_suffix(".qml")


def write_style(raster: Path, classes: ClassMap, target: Path | None = None) -> Path:
    """Write the style next to the class map ``raster``, with which QGIS opens the map: each class of band 1 by name and
    colour; other values, and the background of two classes, are transparent.

    Raises:
        OutputError: the folder cannot be written to.
    """
    entries = list(zip(classes.names, map(as_hex, classes.palette), opacities(classes), strict=True))
    return write_text(target or style_path(raster), XML.get_template("style.qml.j2").render(entries=entries))


def opacities(classes: ClassMap) -> list[int]:
    """The opacity 0..255 of each class where it lies over an image: 0 for the background of two classes."""
    return [0 if len(classes.names) == 2 and BACKGROUND.fullmatch(name.strip()) else 255 for name in classes.names]


def as_hex(colour: Colour) -> str:
    """``#rrggbb``."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
