"""What is amiss with polygons that are labels, and with how they lie on their scenes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyproj
import shapely
from jaxtyping import Bool

from regard.datasets.polygon_scenes import Assigned, Scenes, assign, text_of
from regard.doctor.inventory import Finding
from regard.errors import RegardError
from regard.io.raster import open_raster
from regard.io.vectors import Polygons, read_shapes

SHARED = 0.01  # of the smaller of two polygons
NAMED = 5  # polygons in one message


def look_at_polygons(path: Path) -> list[Finding]:
    """The faults of the polygons that a .json describes; what keeps them from being read is found elsewhere."""
    try:
        told = Scenes.read(path)
        found = read_shapes(path.parent / told.labels, [told.column])
    except RegardError:
        return []
    findings = [*_look_at_file(told, found), *_look_at_systems(path, told, found)]
    with suppress(RegardError):
        findings += _look_at_places(assign(path), found)
    return findings


def _look_at_file(told: Scenes, found: Polygons) -> Iterator[Finding]:
    """Features that are no polygons, invalid ones, those without a value or of a class that is not listed."""
    if found.others:
        what = f"{told.labels}: {found.others} features are no polygons (points, lines, no place) and label nothing."
        yield Finding("note", "polygons", what, (told.labels,))
    broken = ~shapely.is_valid(found.shapes)
    if broken.any():
        reason = shapely.is_valid_reason(found.shapes[broken][0]).split("[")[0]
        what = f"{_named(told, found, broken)} invalid ({reason}, ...): what they label is doubtful. Repair them: "
        yield Finding("warning", "polygons", f"{what}ogr2ogr -makevalid.", (told.labels,))
    kinds = np.array([text_of(value) for value in found.values[0]])
    if (kinds == "").any():
        what = f"{_named(told, found, kinds == '')} without a value in {told.column!r} and label nothing."
        yield Finding("note", "polygons", what, (told.labels,))
    for strange in sorted(set(kinds.tolist()) - {"", *(told.classes or kinds.tolist())}):
        what = f"{_named(told, found, kinds == strange)} of {strange!r}, which is not among the classes. List it, or "
        yield Finding("error", "classes", f"{what}correct the column.", (told.labels,))


def _look_at_systems(path: Path, told: Scenes, found: Polygons) -> Iterator[Finding]:
    """Scenes in another coordinate system than the polygons."""
    for name in told.images:
        try:
            with open_raster(path.parent / name) as raster:
                crs = raster.crs
        except RegardError:
            continue
        if crs is not None and found.crs is not None and not _same(crs.to_wkt(), found.crs):
            what = f"{told.labels} is in {found.crs[:60]}, {name} in {crs.to_string()[:60]}; polygons are carried over."
            yield Finding("note", "coordinates", what, (name,))


def _same(one: str, other: str) -> bool:
    return pyproj.CRS.from_user_input(one).equals(pyproj.CRS.from_user_input(other), ignore_axis_order=True)


def _look_at_places(assigned: Assigned, found: Polygons) -> Iterator[Finding]:
    """Polygons outside every scene, and those of two splits that share ground."""
    told, over = assigned.told, assigned.over
    outside = (over[0].values[0] != "") & ~np.any([scene.here for scene in over], axis=0)
    if outside.any():
        what = f"{_named(told, found, outside)} outside every scene and not used. Add their scene, or look at the CRS."
        yield Finding("warning", "polygons", what, (told.labels,))
    shapes = shapely.make_valid(over[0].shapes)
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    apart = (assigned.part[one] < assigned.part[other]) & (assigned.part[one] != "")
    one, other = one[apart], other[apart]
    areas = shapely.area(shapes)
    shared = shapely.area(shapely.intersection(shapes[one], shapes[other])) / np.minimum(areas[one], areas[other])
    leaks = np.flatnonzero(shared > SHARED)
    if leaks.size:
        worst = leaks[shared[leaks].argmax()]
        pair = [f"{found.numbers[index]} ({assigned.part[index]})" for index in (one[worst], other[worst])]
        what = (
            f"{told.labels}: {leaks.size} pairs of polygons of two splits overlap; {' and '.join(pair)} share "
            f"{100 * shared[worst]:.0f} % of the smaller: scores would lie. Keep such polygons in one split."
        )
        yield Finding("error", "leak", what, (told.labels,))


def _named(told: Scenes, found: Polygons, chosen: Bool[np.ndarray, " n"]) -> str:
    """Some polygons by number, as the beginning of a sentence."""
    numbers = found.numbers[chosen].tolist()
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{told.labels}: {len(numbers)} polygons ({', '.join(map(str, numbers[:NAMED]))}{more}) are"
