"""Polygons of a map: whether they are valid, without overlaps and gaps, and as large as their pixels.

    python -m benchmarks polygons MAP.tif --sieve 20 --simplify 1.5

For the polygons as they are, sieved, simplified, and both. No data counts as one more class here, so that gaps along
its border count too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely

from benchmarks import parser
from regard.io.polygons import write_polygons


def measure(labels: Path, counts: np.ndarray, rules: dict[str, float]) -> str:
    """One row: how many, how many are valid, overlaps and gaps in pixels, largest difference of a class's area."""
    target = labels.with_name("map.gpkg")
    write_polygons(labels, target, classes=[f"class {label}" for label in range(len(counts))], **rules)
    about, _, found, values = pyogrio.raw.read(target)
    shapes, classes = shapely.from_wkb(found), dict(zip(about["fields"], values, strict=True))["class"]
    with rasterio.open(labels) as raster:
        cell = abs(raster.transform.determinant)
    areas = np.bincount(classes, weights=shapely.area(shapes), minlength=len(counts)) / cell
    whole, valid = shapely.union_all(shapes).area / cell, 100 * shapely.is_valid(shapes).mean()
    worst = max(abs(area / count - 1) for area, count in zip(areas, counts, strict=True) if count)
    return (
        f"| {', '.join(f'{name} {value:g}' for name, value in rules.items()) or 'as it is'} | {len(shapes):,} | "
        f"{valid:g} % | {areas.sum() - whole:.1e} | {counts.sum() - whole:.1e} | {100 * worst:.1e} % | "
        f"{shapely.get_num_coordinates(shapes).sum():,} |"
    )


def main(arguments: list[str]) -> None:
    options = parser("polygons", __doc__)
    options.add_argument("map", type=Path)
    options.add_argument("--sieve", type=int, default=20, help="pixels")
    options.add_argument("--simplify", type=float, default=1.5, help="pixels")
    given = options.parse_args(arguments)
    compare(given.map, given.sieve, given.simplify)


def compare(path: Path, sieve: int, simplify: float) -> None:
    """Print one row for each way."""
    print("| polygons | count | valid | overlaps, pixels | gaps, pixels | worst class area | points |", flush=True)
    with tempfile.TemporaryDirectory() as folder, rasterio.open(path) as raster:
        labels, profile = raster.read(1), {**raster.profile, "nodata": None}
        labels[labels == raster.nodata] = labels[labels != raster.nodata].max() + 1
        with rasterio.open(Path(folder) / "map.tif", "w", **profile) as copy:
            copy.write(labels, 1)
        for rules in ({}, {"sieve": sieve}, {"simplify": simplify}, {"sieve": sieve, "simplify": simplify}):
            print(measure(Path(folder) / "map.tif", np.bincount(labels.ravel()), rules), flush=True)
