"""Files made from a finished map alone, without the network: polygons, areas, STAC item, style, preview."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from regard.errors import OutputError, UnreadableImage
from regard.files import check_targets, refuse_to_replace, write_bytes
from regard.io.areas import ClassArea, class_areas, counted, has_counts, write_areas
from regard.io.class_map_file import open_label_map
from regard.io.cog_writer import opacities, style_path, write_style
from regard.io.polygons import are_of, check_rules, write_polygons
from regard.io.vector_writer import check_vector_target
from regard.mapping.stac import write_item
from regard.options import Outputs, PolygonRules

PREVIEW = 1024  # pixels of its longer side, at most
NO_RULES = PolygonRules()


def polygons(
    map: str | Path,
    out: str | Path,
    *,
    confidence: str | Path | None = None,
    areas: str | Path | None = None,
    sieve: int = PolygonRules.sieve,
    simplify: float = PolygonRules.simplify,
    only: Sequence[str] = PolygonRules.only,
    minimum_hole: float = PolygonRules.minimum_hole,
    regularise: Sequence[str] = PolygonRules.regularise,
    minimum_area: float = PolygonRules.minimum_area,
    overwrite: bool = False,
) -> Path:
    """Write the polygons of a finished class map, without the network: the bytes that ``regard.predict(...,
    polygons=out)`` writes with the map.

    ``confidence`` is the raster that was written with the map: it gives each polygon its mean. ``areas`` is a table
    (.csv) of the area and the number of polygons of each class. The other options are those of
    :class:`regard.options.PolygonRules`.

    Raises:
        UnreadableImage, ClassMismatch, SizeMismatch: the map or its confidence is none, or they do not belong together.
        ConfigError, UnknownName, MissingExtra: a rule or a format that is not possible.
        OutputError: a file cannot be written, or exists and ``overwrite`` is not given.
    """
    rules = PolygonRules(sieve, simplify, tuple(only), minimum_hole, tuple(regularise), minimum_area)
    outputs = Outputs(Path(map), _path(confidence), polygons=Path(out), areas=_path(areas))
    write_sides(outputs, rules, overwrite=overwrite)
    return Path(out)


def areas(map: str | Path, out: str | Path | None = None, *, overwrite: bool = False) -> list[ClassArea]:
    """How many pixels and how much ground each class of a finished map has; also written to ``out`` (.csv).

    Raises:
        UnreadableImage, ClassMismatch: the map is missing, broken, or none of regard.
        OutputError: the file cannot be written, or exists and ``overwrite`` is not given.
    """
    outputs = Outputs(Path(map), areas=_path(out))
    _check(outputs.sides, outputs, overwrite)
    table = class_areas(Path(map))
    if outputs.areas is not None:
        write_areas(table, outputs.areas)
    return table


def style(map: str | Path, out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write the style for QGIS of a finished map, by default next to it: ``map.qml``.

    Raises:
        UnreadableImage, ClassMismatch: the map is missing, broken, or none of regard.
        OutputError: the file cannot be written, or exists and ``overwrite`` is not given.
    """
    target = _path(out) or style_path(Path(map))
    _check([target], Outputs(Path(map)), overwrite)
    with open_label_map(Path(map)) as source:
        return write_style(Path(map), source.classes, target)


def item(outputs: Outputs, *, overwrite: bool = False) -> Path:
    """Write the STAC item ``outputs.stac`` of a finished map; the other files that are named are its assets.

    Raises:
        UnreadableImage, ClassMismatch: the map or an asset is missing, broken, or none of regard.
        OutputError: the file cannot be written, or exists and ``overwrite`` is not given.
    """
    assert outputs.out is not None and outputs.stac is not None
    missing = [path for path in outputs.files if path != outputs.stac and not path.is_file()]
    if missing:
        raise UnreadableImage(f"{missing[0]} does not exist. Make it first, or leave it out of the item.")
    check_sides(outputs)
    _check([outputs.stac], Outputs(outputs.out), overwrite)
    return write_item(outputs, outputs.stac)


def write_sides(outputs: Outputs, rules: PolygonRules = NO_RULES, *, overwrite: bool = False) -> None:
    """Write the files besides the rasters that are named, from the finished map ``outputs.out``.

    Raises:
        UnreadableImage, ClassMismatch, SizeMismatch, ConfigError, UnknownName, MissingExtra: see :func:`polygons`.
        OutputError: a file cannot be written, or exists and ``overwrite`` is not given.
    """
    assert outputs.out is not None
    check_sides(outputs)
    wanted = outputs.sides
    lacks_areas = outputs.areas is not None and not outputs.areas.exists()
    if lacks_areas and not overwrite and outputs.out.is_file():
        wanted = missing_sides(outputs, rules)  # not the polygons, of a run that was killed when it had them
    _check(wanted, outputs, overwrite)
    with open_label_map(outputs.out) as source:
        check_rules(rules, source.raster, source.classes)
    add_sides(outputs, rules, wanted, confidence=outputs.confidence)


def add_sides(outputs: Outputs, rules: PolygonRules, wanted: Sequence[Path], *, confidence: Path | None) -> None:
    """Write those of the side files that are ``wanted``; polygons have their confidence from a raster of it."""
    assert outputs.out is not None
    if outputs.polygons is not None and outputs.polygons in wanted:
        write_polygons(outputs.out, outputs.polygons, rules, confidence=confidence)
    if outputs.areas is not None and outputs.areas in wanted:
        table = class_areas(outputs.out)
        write_areas(table if outputs.polygons is None else counted(table, outputs.polygons, rules), outputs.areas)
    if outputs.preview is not None and outputs.preview in wanted:
        write_preview(outputs.out, outputs.preview)
    if outputs.stac is not None and outputs.stac in wanted:
        write_item(outputs, outputs.stac)
    made = outputs.out.stat().st_mtime_ns
    for path in wanted:
        if path.stat().st_mtime_ns < made:  # the clock was set back
            os.utime(path, ns=(made, made))


def missing_sides(outputs: Outputs, rules: PolygonRules) -> list[Path]:
    """The side files that are not there, are older than the map, or were made from another map or by other rules."""
    assert outputs.out is not None
    made, missing = outputs.out.stat().st_mtime_ns, []
    for path in outputs.sides:
        is_right = path.is_file() and path.stat().st_mtime_ns >= made
        if is_right and path == outputs.polygons:
            is_right = are_of(path, outputs.out, rules)
        if is_right and path == outputs.areas:
            is_right = has_counts(path) == (outputs.polygons is not None)
        if not is_right:
            missing.append(path)
    return missing


def check_sides(outputs: Outputs) -> None:
    """Check before any work is done that the side files have names of their formats.

    Raises:
        OutputError: another suffix, or a folder that cannot be written to.
        ConfigError, MissingExtra: the suffix of the polygons is not a vector format, or needs pyarrow.
    """
    for path, suffix, what in ((outputs.stac, ".json", "a STAC item"), (outputs.preview, ".png", "a preview")):
        if path is not None and path.suffix.lower() != suffix:
            raise OutputError(f"{what} is a {suffix}; got {path.name}. Name it {path.stem}{suffix}.")
    if outputs.polygons is not None:
        check_vector_target(outputs.polygons)


def write_preview(labels: Path, target: Path) -> Path:
    """Write a class map as a picture (.png) of at most 1,024 pixels a side, in the colours of its style.

    Raises:
        UnreadableImage, ClassMismatch: the map is missing, broken, or none of regard.
        OutputError: the file cannot be written.
    """
    with open_label_map(labels) as source:
        scale, classes = min(1.0, PREVIEW / max(source.size)), source.classes
        height, width = (max(1, round(length * scale)) for length in source.size)
        shown = source.raster.read_scaled((height, width), nearest=True)[0].astype(np.int64)
    colours = [(*colour, opacity) for colour, opacity in zip(classes.palette, opacities(classes), strict=True)]
    table, buffer = np.array([*colours, (0, 0, 0, 0)], np.uint8), io.BytesIO()
    Image.fromarray(table[np.minimum(shown, len(classes))]).save(buffer, "PNG")
    return write_bytes(target, buffer.getvalue())


def _check(files: Sequence[Path], outputs: Outputs, overwrite: bool) -> None:
    """Whether some files can be written next to the rasters, before they are made."""
    check_targets(files, list(outputs.rasters.values()))
    if not overwrite:
        refuse_to_replace(files, "")


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)
