"""A scene of three kinds of ground whose colours tell them apart, and labels on it as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely

from support import COLOURS, NAMES, write_tif

SIZE = (160, 224)
CELL = 32
PIXEL, WEST, NORTH = 10, 500_000, 5_000_000  # as write_tif places a scene


def truth() -> np.ndarray:
    """The class of each pixel: squares of 32 pixels in diagonals."""
    rows, columns = np.indices(SIZE) // CELL
    return (rows + columns) % len(NAMES)


def write_scene(path: Path) -> Path:
    noise = np.random.default_rng(1).integers(-30, 30, size=(3, *SIZE))
    return write_tif(path, (COLOURS[truth()].transpose(2, 0, 1) + noise).clip(0, 255).astype(np.uint8))


def on_map(shape: Any) -> Any:
    """A shape in pixels (x right, y down) in the scene's coordinates."""
    return shapely.transform(shape, lambda xy: np.stack([WEST + PIXEL * xy[:, 0], NORTH - PIXEL * xy[:, 1]], axis=1))


def write_labels(path: Path, shapes: list[Any], classes: list[Any], *, crs: str | None = "EPSG:32633") -> Path:
    """Shapes in pixels with a column ``class``, as a GeoPackage."""
    geometry = shapely.to_wkb([on_map(shape) for shape in shapes])
    field = np.array(classes, dtype=object if isinstance(classes[0], str) else None)
    with_crs = {} if crs is None else {"crs": crs}
    pyogrio.raw.write(path, geometry, [field], ["class"], geometry_type="Unknown", driver="GPKG", **with_crs)
    return path


def squares(side: int = 8, *, every: int = 1) -> tuple[list[Any], list[str]]:
    """A small square in the middle of each cell, and the name of its class."""
    begins = [(y, x) for y in range(12, SIZE[0], CELL) for x in range(12, SIZE[1], CELL)][::every]
    return [shapely.box(x, y, x + side, y + side) for y, x in begins], [NAMES[truth()[place]] for place in begins]
