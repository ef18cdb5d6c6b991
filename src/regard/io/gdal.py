"""GDAL underneath: opening and checking a file, one line for its errors, its settings."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import rasterio
import rasterio.features
from jaxtyping import Bool, Int
from jinja2 import Environment, PackageLoader, StrictUndefined
from rasterio._env import del_gdal_config
from rasterio._err import CPLE_BaseError
from rasterio._path import _UnparsedPath
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from regard.errors import UnreadableImage
from regard.io.source import Source

BLOCK_LIMIT = 2**30  # bytes that one block of a file may ask for
MOST_BANDS = 4096  # of a file: each is asked for its type, colour and tags
CACHE_MB = 32  # of GDAL's blocks; by itself GDAL keeps a twentieth of the machine's memory
GDAL_ERRORS = (rasterio.errors.RasterioError, CPLE_BaseError)
XML = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
    loader=PackageLoader("regard.io"),
)  # fmt: skip


def open_dataset(source: Source, *, vrt: bool = False) -> Any:
    """Rasterio's dataset of a source."""
    drivers = source.drivers(vrt=vrt)
    with refusing(source, "the header"), not_georeferenced_is_fine(), rasterio.Env():
        return DatasetReader(_UnparsedPath(source.gdal_name), driver=drivers)


def check_dataset(source: Source, dataset: Any) -> None:
    """Refuse what would fail later.

    Raises:
        UnreadableImage: more than 4,096 bands, blocks above 1 GiB, complex numbers, a part that is missing, a
            photograph stored turned.
    """
    if dataset.count > MOST_BANDS:
        raise UnreadableImage(
            f"{source} has {dataset.count:,} bands; {MOST_BANDS:,} are read at most. If it is whole, choose some: "
            "gdal_translate -b."
        )
    _check_blocks(source, dataset)
    _check_parts(source, dataset)
    _check_orientation(source, dataset)


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
    files = [(name, Source(name).local) for name in dataset.files]
    missing = [name for name, file in files if file is not None and not os.path.isfile(file)]
    if missing:
        raise UnreadableImage(
            f"{source} is made of {missing[0]}, which does not exist. Fetch it, or make the VRT again."
        )


def _check_orientation(source: Source, dataset: Any) -> None:
    orientation = dataset.tags().get("EXIF_Orientation", "1") if dataset.driver == "JPEG" else "1"
    if orientation not in ("0", "1"):
        raise UnreadableImage(
            f"{source} is stored turned (EXIF orientation {orientation}), and is read in windows as it is stored. Turn "
            "its pixels upright first: jpegtran, or any editor."
        )


def is_lossy(dataset: Any) -> bool:
    """Whether a file is compressed with loss: JPEG, or what GDAL calls lossy of WebP, JPEG 2000, JPEG XL and LERC."""
    facts = dataset.tags(ns="IMAGE_STRUCTURE")
    if dataset.driver == "JPEG" or "JPEG" in facts.get("COMPRESSION", ""):
        return True
    return facts.get("COMPRESSION_REVERSIBILITY") == "LOSSY" or float(facts.get("MAX_Z_ERROR", 0)) > 0.5


@contextmanager
def refusing(source: Source, part: str) -> Iterator[None]:
    """Turn GDAL's errors into UnreadableImage, in one line."""
    try:
        yield
    except (*GDAL_ERRORS, MemoryError, UnicodeDecodeError) as error:  # rasterio decodes texts of the header
        reason = " ".join(_reasons(error).replace(source.gdal_name, str(source)).split())[:240]
        raise UnreadableImage(
            f"{source}: {part} cannot be read ({reason}). Fetch the file again or convert it to GeoTIFF."
        ) from None


def _reasons(error: BaseException) -> str:
    """The first and the deepest of GDAL's complaints; rasterio's own words only tell to look there."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return "; ".join(dict.fromkeys(str(reason) for reason in (chain[min(1, len(chain) - 1)], chain[-1])))


class not_georeferenced_is_fine(warnings.catch_warnings):
    """A context in which rasters without a georeference give no warning: photographs have none."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)


class Settings:
    """GDAL's settings, one for the process: ours while files of ours are open, then as they were before.

    Its cache holds ``CACHE_MB``. A PNG is read row by row: GDAL's shorter way for a whole one fills what a cut file
    lacks, without an error. Environment variables of the same names take precedence.
    """

    OURS: ClassVar[dict[str, Any]] = {"GDAL_CACHEMAX": CACHE_MB * 10**6, "GDAL_PNG_WHOLE_IMAGE_OPTIM": False}

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, dict[str, Any]()

    def enter(self) -> None:
        """Set them for one more file."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = {name: get_gdal_config(name) for name in self.OURS.keys() - os.environ.keys()}
                for name in self._before:
                    set_gdal_config(name, self.OURS[name])

    def leave(self) -> None:
        """Of the last file: restore them."""
        with self._lock:
            self._users -= 1
            for name, value in self._before.items() if self._users == 0 else ():
                set_gdal_config(name, value) if value is not None else del_gdal_config(name)

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *error: object) -> None:
        self.leave()


SETTINGS = Settings()


def inside(area: Any, box: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """Which pixels of ``box`` (top, left, height, width) have their centre in ``area``, a geometry in pixels."""
    return rasterio.features.geometry_mask([area], box[2:], Affine.translation(box[1], box[0]), invert=True)


def rasterise(
    shapes: np.ndarray, labels: Int[np.ndarray, " n"], box: Sequence[int], *, fill: int, touched: bool = False
) -> Int[np.ndarray, "h w"]:
    """The label of each pixel of a box from polygons in pixels; where two overlap the later holds; ``fill`` elsewhere.

    A pixel gets a label by its centre; with ``touched`` by any part of it.
    """
    drawn = np.full(box[2:], fill, dtype=np.int32)
    if len(shapes):
        pairs, origin = zip(shapes, labels.tolist(), strict=True), Affine.translation(box[1], box[0])
        rasterio.features.rasterize(pairs, out=drawn, transform=origin, all_touched=touched)
    return drawn.astype(np.int64)


def gdal_version() -> str:
    """The version of GDAL that rasters are read with."""
    return rasterio.__gdal_version__
