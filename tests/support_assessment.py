"""A class map made on the fly, and labels for points drawn from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from rasterio.transform import Affine

NAMES = ("land", "roof", "water")
UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, -20, 0, -0.5, 75)}


def pattern(height: int = 60, width: int = 90) -> np.ndarray:
    """Labels of three classes of different size, the smallest of 24 pixels; two rows without data."""
    rows, columns = np.mgrid[:height, :width]
    labels = (np.sin(rows / 7) + np.cos(columns / 11) > 0.9).astype(np.uint8)
    labels[10:14, 30:36] = 2
    labels[:2] = 255
    return labels


def write_map(
    path: Path, labels: np.ndarray, place: dict[str, Any] = UTM, names: Sequence[str] = NAMES, **profile: Any
) -> Path:
    """A class map as regard writes it, in its own words."""
    height, width = labels.shape
    size = {"count": 1, "height": height, "width": width, "dtype": labels.dtype.name, "nodata": 255}
    with rasterio.open(path, "w", driver="GTiff", **size, **place, **profile) as raster:
        raster.write(labels, 1)
        raster.update_tags(regard_classes=json.dumps(names))
    return path


def columns_of(points: Path) -> dict[str, np.ndarray]:
    """The layer's columns as GDAL reads them."""
    about, _, _, values = pyogrio.raw.read(points, layer=points.stem, read_geometry=False)
    return dict(zip(about["fields"].tolist(), values, strict=True))


def label(points: Path, labels: np.ndarray, where: str = "1") -> Path:
    """Fill ``reference`` with an array's labels in plain SQLite."""
    with closing(sqlite3.connect(points)) as database, database:
        chosen = f'SELECT fid, map_row, map_column FROM "{points.stem}" WHERE {where}'
        for fid, row, column in database.execute(chosen).fetchall():
            database.execute(f'UPDATE "{points.stem}" SET reference = ? WHERE fid = ?', [str(labels[row, column]), fid])
    return points


def districts(path: Path, parts: dict[str, tuple[float, float, float, float]]) -> Path:
    """A layer of boxes by name, in the coordinates of ``UTM``."""
    boxes, names = [shapely.box(*box) for box in parts.values()], np.array([*parts], object)
    layer = {"driver": "GPKG", "crs": "EPSG:32633", "geometry_type": "Polygon"}
    pyogrio.raw.write(path, shapely.to_wkb(boxes), [names], ["name"], **layer)
    return path
