"""Images of two splits that show the same ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool
from pyproj import Transformer

from regard.doctor.inspection import Inspection
from regard.doctor.inventory import Finding
from regard.io.raster import apply

OVERLAP = 0.01  # share of the smaller of two footprints
SAMPLES = 64  # points along each side of a footprint


def find_overlaps(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Footprints of two splits that share ground which is labelled in both."""
    placed = [one for one in inspections if one.ground is not None and one.split != "unlisted"]
    if not placed:
        return
    boxes = [_bounds(one, placed[0]) for one in placed]
    for index, its in zip(*shapely.STRtree(boxes).query(boxes, predicate="intersects").tolist(), strict=True):
        smaller, larger = sorted((index, its), key=lambda place: boxes[place].area)
        one, other = placed[smaller], placed[larger]
        if index >= its or one.split == other.split:
            continue
        share = _shared_ground(one, other)
        if share > OVERLAP:
            names = one.name, other.name
            what = f"{names[0]} ({one.split}) and {names[1]} ({other.split}) share {100 * share:.0f} % of the first's "
            yield Finding("error", "leak", what + "ground, labelled in both. Keep both in one split.", names)


def _bounds(one: Inspection, reference: Inspection) -> shapely.Polygon:
    """The footprint as a rectangle in the coordinate system of ``reference``."""
    assert one.ground is not None and reference.ground is not None
    crs, transform, (height, width) = one.ground
    corners = apply(transform, np.array([0, width, 0, width]), np.array([0, 0, height, height]))
    east, north = _carry(crs, reference.ground[0], *corners)
    return shapely.box(east.min(), north.min(), east.max(), north.max())


def _carry(source: Any, target: Any, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from one system in another; as they are where one of the two is not known."""
    if source is None or target is None or source == target:
        return east, north
    moved = Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True).transform(east, north)
    return np.asarray(moved[0]), np.asarray(moved[1])


def _shared_ground(one: Inspection, other: Inspection) -> float:
    """The share of the first's ground that is labelled in both, from a grid of ``SAMPLES`` by ``SAMPLES`` points."""
    assert one.ground is not None and other.ground is not None
    crs, transform, (height, width) = one.ground
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    east, north = apply(transform, *np.meshgrid(steps * width, steps * height))
    both = _labelled_at(one, east, north) & _labelled_at(other, *_carry(crs, other.ground[0], east, north))
    return float(both.mean())


def _labelled_at(one: Inspection, east: np.ndarray, north: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Whether each point lies on the image and has a label there, as far as the labels are known."""
    assert one.ground is not None
    _, transform, (height, width) = one.ground
    columns, rows = apply(~transform, east, north)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if one.small is None:
        return inside
    labels = one.small.labels
    down = (rows / height * labels.shape[0]).astype(int).clip(0, labels.shape[0] - 1)
    right = (columns / width * labels.shape[1]).astype(int).clip(0, labels.shape[1] - 1)
    return inside & (labels[down, right] >= 0)
