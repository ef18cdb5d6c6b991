"""Faults on the ground: footprints of two splits that overlap; polygons that are invalid, misplaced or of no class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from jaxtyping import Bool

from regard.datasets.folder import Finding
from regard.datasets.polygon_description import ANY, PolygonScenes, values_of
from regard.datasets.polygon_scenes import Assigned, assign
from regard.doctor.inspection import Ground, Inspection
from regard.errors import RegardError, counted, listed
from regard.io.raster import apply, open_raster
from regard.io.vectors import Polygons, read_shapes

OVERLAP = 0.01  # share of the smaller of two footprints or polygons
SAMPLES = 64  # points along each side of a footprint
MOSTLY = 0.9  # share of one value above which a column may be none of classes
SAYS_LITTLE = {"yes", "true", "unknown"}  # in lower case; "yes" and "no" alone may be two classes
ALIKE = 0.85  # similarity of two values, as difflib has it
SPARSE = 0.25  # share of the scenes


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
        polygons = read_shapes(path.parent / description.source, description.column, description.where)
    except RegardError:
        return []
    values = values_of(polygons, description)
    findings = [*_check_features(description, polygons, values), *_check_column(description, values)]
    findings += _check_systems(path.parent, description, polygons)
    with suppress(RegardError):
        findings += _check_places(assign(path))
    return findings


def _check_features(description: PolygonScenes, polygons: Polygons, values: np.ndarray) -> Iterator[Finding]:
    """Features that are not polygons, invalid ones, those without a value or of a class that is not listed."""
    file, column = description.labels, " or ".join(map(repr, description.column))
    if polygons.others:
        message = f"{counted(polygons.others, 'feature')} without a polygon (points, lines, no geometry), not used."
        yield Finding("note", "polygons", f"{file}: {message}", (file,))
    invalid = polygons.faults != ""
    if invalid.any():
        message = f"{polygons.named(invalid)} invalid ({polygons.faults[invalid][0]}, ...), read as GDAL fills them"
        advice = "(even-odd), which may not be what was drawn. Repair them: ogr2ogr -makevalid."
        yield Finding("warning", "polygons", f"{file}: {message} {advice}", (file,))
    without = values == ""
    if without.any():
        use = "not used" if description.background is None else "unlabelled, not background (leave them out by 'where')"
        message = f"{polygons.named(without)} without a value in {column}, {use}."
        yield Finding("warning" if without.mean() > 0.5 else "note", "polygons", f"{file}: {message}", (file,))
    if description.classes is None or description.value is not None:
        return
    known = {value for values in description.classes.values() for value in values}
    for name in sorted(set(values.tolist()) - {"", *known}) if ANY not in known else ():
        message = f"{polygons.named(values == name)} of {name!r}, which is not among the classes. List it, or "
        yield Finding("error", "classes", f"{file}: {message}correct the column.", (file,))


def _check_column(description: PolygonScenes, values: np.ndarray) -> Iterator[Finding]:
    """A column whose values are taken as classes, though most polygons have the same, or one that says little."""
    file, counts = description.labels, Counter(values[values != ""].tolist())
    if not counts or description.value is not None or description.classes is not None:
        return
    for name in sorted(counts):
        for like in get_close_matches(name, [other for other in counts if counts[other] > counts[name]], 1, ALIKE):
            message = (
                f"{name!r} ({counts[name]:,}) is spelt almost as {like!r} ({counts[like]:,}). If they are one class"
            )
            yield Finding("note", "classes", f"{file}: {message}, list both as its values in 'classes'.", (file,))
    (top, count), total = counts.most_common(1)[0], sum(counts.values())
    is_flag = len(counts) == 2 and {name.lower() for name in counts} in ({"yes", "no"}, {"true", "false"})
    says_little = top.lower() in SAYS_LITTLE and not is_flag
    if not says_little and (count < MOSTLY * total or len(counts) == 1):
        return
    others = [f"{name!r} {number:,}" for name, number in counts.most_common()[1:]]
    rest = f", the others {listed(others)}" if others else ""
    message = f"{count:,} of {total:,} polygons say {top!r} in {description.column[0]!r}{rest}: are these the classes?"
    advice = (
        'If all are one thing, give "value" in place of "column"; else list which values make a class in "classes".'
    )
    yield Finding("warning", "classes", f"{file}: {message} {advice}", (file,))


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


def _check_places(assigned: Assigned) -> Iterator[Finding]:
    """Polygons outside every scene, those of two splits that share ground, and how much of the scenes is labelled."""
    file, scenes = assigned.description.labels, assigned.scenes
    polygons, on_scene = scenes[0].polygons, np.any([scene.on_scene for scene in scenes], axis=0)
    outside = (scenes[0].values != "") & ~on_scene
    if outside.any():
        message = f"{polygons.named(outside)} outside every scene, not used. Add their scene, or check the CRS."
        yield Finding("warning", "polygons", f"{file}: {message}", (file,))
    yield from _check_overlaps(assigned)
    if assigned.background is None and (share := _share_covered(assigned)) < SPARSE:
        used = on_scene & (scenes[0].values != "")
        count, names = f"{int(used.sum()):,} polygons", listed(assigned.classes.names, 5)
        message = (
            f"{count} of {names} cover {100 * share:.2g} % of the scenes; the rest is unlabelled, and a model maps"
        )
        advice = 'all of it as one of them. If it is something else, name that class: "background", with "extent".'
        yield Finding("note", "coverage", f"{file}: {message} {advice}", (file,))


def _share_covered(assigned: Assigned) -> float:
    """The share of the scenes' pixels under polygons."""
    used = [scene.polygons.shapes[scene.on_scene & (scene.values != "")] for scene in assigned.scenes]
    covered = sum(shapely.area(shapes).sum() for shapes in used)
    return float(covered / sum(scene.grid.size[0] * scene.grid.size[1] for scene in assigned.scenes))


def _check_overlaps(assigned: Assigned) -> Iterator[Finding]:
    """Polygons of two splits that share ground."""
    file, polygons, split = assigned.description.labels, assigned.scenes[0].polygons, assigned.split
    first, second = shapely.STRtree(polygons.shapes).query(polygons.shapes, predicate="intersects")
    apart = (split[first] < split[second]) & (split[first] != "")
    first, second = first[apart], second[apart]
    areas = shapely.area(polygons.shapes)
    common = shapely.intersection(polygons.shapes[first], polygons.shapes[second])
    shared = shapely.area(common) / np.minimum(areas[first], areas[second])
    leaks = np.flatnonzero(shared > OVERLAP)
    if not leaks.size:
        return
    worst = leaks[shared[leaks].argmax()]
    names = [f"{polygons.id_name} {polygons.ids[index]} ({split[index]})" for index in (first[worst], second[worst])]
    overlap = f"{file}: {counted(leaks.size, 'pair')} of polygons of two splits overlap"
    share = f"{' and '.join(names)} share {100 * shared[worst]:.0f} % of the smaller"
    if assigned.description.split is None:
        message = f"{overlap}; {share}. Such ground counts for the later polygon's split alone."
        yield Finding("note", "overlap", message, (file,))
    else:
        message = f"{overlap}; {share}: scores would be inflated. Keep such polygons in one split."
        yield Finding("error", "leak", message, (file,))
