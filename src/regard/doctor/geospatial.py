"""Faults on the ground: footprints of two splits that overlap, and polygon labels that are invalid or misplaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from jaxtyping import Bool

from regard.datasets.folder import Finding
from regard.datasets.polygon_scenes import Assigned, PolygonScenes, assign, text_of
from regard.doctor.inspection import Ground, Inspection
from regard.errors import RegardError, counted, listed
from regard.io.raster import apply, open_raster
from regard.io.vectors import Polygons, read_shapes

OVERLAP = 0.01  # share of the smaller of two footprints or polygons
SAMPLES = 64  # points along each side of a footprint
NAMED = 5  # polygons in one message


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


def polygon_faults(path: Path) -> list[Finding]:
    """The faults of the polygons that a .json describes; what keeps them from being read is found elsewhere."""
    try:
        description = PolygonScenes.read(path)
        polygons = read_shapes(path.parent / description.labels, [description.column])
    except RegardError:
        return []
    findings = [*_check_features(description, polygons), *_check_systems(path.parent, description, polygons)]
    with suppress(RegardError):
        findings += _check_places(assign(path), polygons)
    return findings


def _check_features(description: PolygonScenes, polygons: Polygons) -> Iterator[Finding]:
    """Features that are not polygons, invalid ones, those without a value or of a class that is not listed."""
    file, column = description.labels, description.column
    if polygons.others:
        message = f"{counted(polygons.others, 'feature')} without a polygon (points, lines, no geometry), not used."
        yield Finding("note", "polygons", f"{file}: {message}", (file,))
    broken = ~shapely.is_valid(polygons.shapes)
    if broken.any():
        reason = shapely.is_valid_reason(polygons.shapes[broken][0]).split("[")[0]
        message = f"invalid ({reason}, ...), so their labels are doubtful. Repair them: ogr2ogr -makevalid."
        yield Finding("warning", "polygons", f"{file}: {_named(polygons, broken)} {message}", (file,))
    classes = np.array([text_of(value) for value in polygons.values[0]])
    if (classes == "").any():
        message = f"{_named(polygons, classes == '')} without a value in {column!r}, not used."
        yield Finding("note", "polygons", f"{file}: {message}", (file,))
    for name in sorted(set(classes.tolist()) - {"", *(description.classes or classes.tolist())}):
        message = f"{_named(polygons, classes == name)} of {name!r}, which is not among the classes. List it, or "
        yield Finding("error", "classes", f"{file}: {message}correct the column.", (file,))


def _check_systems(base: Path, description: PolygonScenes, polygons: Polygons) -> Iterator[Finding]:
    """Scenes in another coordinate system than the polygons."""
    for name in description.images:
        try:
            with open_raster(base / name) as raster:
                crs = raster.crs
        except RegardError:
            continue
        if crs is not None and polygons.crs is not None and not _same(crs.to_wkt(), polygons.crs):
            systems = f"{description.labels} is in {polygons.crs[:60]}, {name} in {crs.to_string()[:60]}"
            yield Finding("note", "coordinates", f"{systems}; polygons are reprojected.", (name,))


def _same(first: str, second: str) -> bool:
    return pyproj.CRS.from_user_input(first).equals(pyproj.CRS.from_user_input(second), ignore_axis_order=True)


def _check_places(assigned: Assigned, polygons: Polygons) -> Iterator[Finding]:
    """Polygons outside every scene, and those of two splits that share ground."""
    file, scenes, split = assigned.description.labels, assigned.scenes, assigned.split
    outside = (scenes[0].values[0] != "") & ~np.any([scene.on_scene for scene in scenes], axis=0)
    if outside.any():
        message = f"{_named(polygons, outside)} outside every scene, not used. Add their scene, or check the CRS."
        yield Finding("warning", "polygons", f"{file}: {message}", (file,))
    shapes = shapely.make_valid(scenes[0].shapes)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    apart = (split[first] < split[second]) & (split[first] != "")
    first, second = first[apart], second[apart]
    areas = shapely.area(shapes)
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second])) / np.minimum(areas[first], areas[second])
    leaks = np.flatnonzero(shared > OVERLAP)
    if leaks.size:
        worst = leaks[shared[leaks].argmax()]
        names = [f"{polygons.numbers[index]} ({split[index]})" for index in (first[worst], second[worst])]
        overlap = f"{file}: {counted(leaks.size, 'pair')} of polygons of two splits overlap"
        share = f"{' and '.join(names)} share {100 * shared[worst]:.0f} % of the smaller"
        message = f"{overlap}; {share}: scores would be inflated. Keep such polygons in one split."
        yield Finding("error", "leak", message, (file,))


def _named(polygons: Polygons, chosen: Bool[np.ndarray, " n"]) -> str:
    """How many polygons, with the numbers of the first."""
    numbers = polygons.numbers[chosen].tolist()
    return f"{counted(len(numbers), 'polygon')} ({listed(numbers, NAMED)})"
