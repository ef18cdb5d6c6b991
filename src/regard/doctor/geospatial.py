"""Faults on the ground: footprints of two splits that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from jaxtyping import Bool

from regard.datasets.folder import Finding
from regard.doctor.inspection import Ground, Inspection
from regard.io.raster import apply

OVERLAP = 0.01  # share of the smaller of two footprints
SAMPLES = 64  # points along each side of a footprint


def find_overlaps(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Footprints of two splits that share ground which is labelled in both."""
    placed = [(item, item.ground) for item in inspections if item.ground is not None]
    if not placed:
        return
    boxes = [_bounds(ground, placed[0][1].crs) for _, ground in placed]
    for index, other in zip(*shapely.STRtree(boxes).query(boxes, predicate="intersects").tolist(), strict=True):
        smaller, larger = sorted((index, other), key=lambda place: boxes[place].area)
        first, second = placed[smaller][0], placed[larger][0]
        if index >= other or first.split == second.split:
            continue
        share = _shared_ground(first, second)
        if share > OVERLAP:
            both = f"{first.name} ({first.split}) and {second.name} ({second.split})"
            message = f"{both} share {100 * share:.0f} % of the first's ground, labelled in both"
            yield Finding("error", "leak", f"{message}. Keep both in one split.", (first.name, second.name))


def _bounds(ground: Ground, target: Any) -> shapely.Polygon:
    """The footprint as a rectangle in another coordinate system."""
    height, width = ground.size
    corners = apply(ground.transform, np.array([0, width, 0, width]), np.array([0, 0, height, height]))
    east, north = _reproject(ground.crs, target, *corners)
    return shapely.box(east.min(), north.min(), east.max(), north.max())


def _reproject(source: Any, target: Any, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in another system; unchanged where one of the two is unknown."""
    if source is None or target is None or source == target:
        return east, north
    transformer = pyproj.Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
    moved = transformer.transform(east, north)
    return np.asarray(moved[0]), np.asarray(moved[1])


def _shared_ground(first: Inspection, second: Inspection) -> float:
    """The share of the first's ground that is labelled in both, from a grid of ``SAMPLES`` by ``SAMPLES`` points."""
    assert first.ground is not None and second.ground is not None
    crs, transform, (height, width) = first.ground
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    east, north = apply(transform, *np.meshgrid(steps * width, steps * height))
    theirs = _reproject(crs, second.ground.crs, east, north)
    return float((_labelled_at(first, east, north) & _labelled_at(second, *theirs)).mean())


def _labelled_at(item: Inspection, east: np.ndarray, north: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Whether each point lies on the image and has a label there, as far as the labels are known."""
    assert item.ground is not None
    height, width = item.ground.size
    columns, rows = apply(~item.ground.transform, east, north)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if item.labelled is None:
        return inside
    grid = item.labelled
    down = (rows / height * grid.shape[0]).astype(int).clip(0, grid.shape[0] - 1)
    right = (columns / width * grid.shape[1]).astype(int).clip(0, grid.shape[1] - 1)
    return inside & grid[down, right]
