"""How large the classes of a map are on the ground, and how many polygons they have."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regard.files import write_text
from regard.io.class_map_file import open_label_map
from regard.io.coverage import ROWS_SUMMED_AT_ONCE
from regard.io.ground import Ground
from regard.io.raster import Box
from regard.io.vector_writer import names_in
from regard.options import PolygonRules

SQUARE_METRES_PER_HECTARE = 10_000.0


class ClassArea(NamedTuple):
    """One row of the table: ``share`` is of the mapped ground, or of the pixels where the ground is unknown;
    ``polygons`` is how many were written, if any were.
    """

    label: int
    name: str
    pixels: int
    area_m2: float | None
    hectares: float | None
    share: float
    polygons: int | None = None


def class_areas(labels: Path) -> list[ClassArea]:
    """Pixels and ground of every class of a finished map, in the order of the labels that the map names.

    Areas are those on the ellipsoid, in any projection; None where the CRS is missing or local.

    Raises:
        UnreadableImage: the map is missing or broken.
        ClassMismatch: it names no classes, or has labels beyond them.
    """
    with open_label_map(labels) as source:
        ground, count = Ground.of(source.crs, source.transform), len(source.classes)
        pixels, square_metres = np.zeros(count, np.int64), np.zeros(count)
        for top, rows in source.strips():
            for first in range(0, len(rows), ROWS_SUMMED_AT_ONCE):
                part = rows[first : first + ROWS_SUMMED_AT_ONCE]
                pixels += np.bincount(part.ravel(), minlength=count)[:count]
                if ground is not None:
                    areas = ground.pixel_areas(Box(top + first, 0, *part.shape))
                    square_metres += np.bincount(part.ravel(), areas.ravel(), count)[:count]
        return _table(source.classes.names, pixels, square_metres if ground else None)


def _table(names: Sequence[str], pixels: np.ndarray, square_metres: np.ndarray | None) -> list[ClassArea]:
    size = pixels if square_metres is None else square_metres
    shares = size / max(size.sum(), np.finfo(float).tiny)
    table = []
    for label, (name, count, share) in enumerate(zip(names, pixels.tolist(), shares.tolist(), strict=True)):
        area = None if square_metres is None else float(square_metres[label])
        hectares = None if area is None else area / SQUARE_METRES_PER_HECTARE
        table.append(ClassArea(label, name, count, area, hectares, share))
    return table


def counted(areas: Sequence[ClassArea], polygons: Path, rules: PolygonRules) -> list[ClassArea]:
    """The table with the number of polygons in a file that was written by ``rules``; none of classes left out."""
    counts, written = Counter(names_in(polygons)), rules.written
    return [
        area._replace(polygons=None if written and area.name not in written else counts[area.name]) for area in areas
    ]


def write_areas(areas: Sequence[ClassArea], target: Path) -> Path:
    """The table as CSV (class, name, pixels, area_m2, hectares, share, and polygons where they were counted); what is
    unknown is empty.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_text(target, as_csv(areas))


def as_csv(areas: Sequence[ClassArea]) -> str:
    """The text of :func:`write_areas`."""
    text, columns = io.StringIO(), ["class", *ClassArea._fields[1:]]
    shown = columns if any(area.polygons is not None for area in areas) else columns[:-1]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(shown)
    table.writerows(area._replace(share=round(area.share, 6))[: len(shown)] for area in areas)
    return text.getvalue()


def has_counts(path: Path) -> bool:
    """Whether a table that :func:`write_areas` wrote has the column of polygons."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip().endswith(f",{ClassArea._fields[-1]}")
