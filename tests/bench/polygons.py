"""Polygons of a finished map, as they are and chosen among: valid, without overlaps and gaps, as large as their pixels?

python tests/bench/polygons.py MAP.tif [SIEVE] [SIMPLIFY, in pixels]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely

from regard.data.polygons import write_polygons


def measure(labels: Path, rules: dict[str, float]) -> str:
    """One row: how many, how many are valid, overlaps and gaps in pixels, largest difference of a class's area."""
    with rasterio.open(labels) as raster:
        pixels, cell = raster.read(1), abs(raster.transform.determinant)
        counts = np.bincount(pixels[pixels != raster.nodata])
    names = [f"class {label}" for label in range(len(counts))]
    with tempfile.TemporaryDirectory() as folder:
        write_polygons(labels, Path(folder) / "map.gpkg", classes=names, **rules)
        about, _, found, values = pyogrio.raw.read(Path(folder) / "map.gpkg")
    shapes, classes = shapely.from_wkb(found), dict(zip(about["fields"], values, strict=True))["class"]
    areas = np.bincount(classes, weights=shapely.area(shapes), minlength=len(counts)) / cell
    whole, summed = shapely.union_all(shapes).area / cell, areas.sum()
    worst = max(abs(area / count - 1) for area, count in zip(areas, counts, strict=True) if count)
    valid = 100 * shapely.is_valid(shapes).mean()
    return (
        f"| {', '.join(f'{name} {value:g}' for name, value in rules.items()) or 'as it is'} | {len(shapes):,} | "
        f"{valid:g} % | {summed - whole:.1e} | {counts.sum() - whole:.1e} | {100 * worst:.1e} % | "
        f"{shapely.get_num_coordinates(shapes).sum():,} |"
    )


if __name__ == "__main__":
    file, sieve, simplify = (
        Path(sys.argv[1]),
        *(float(text) for text in (sys.argv[2:] + ["20", "1.5"][len(sys.argv) - 2 :])),
    )
    print("| polygons | count | valid | overlaps, pixels | gaps, pixels | worst class area | points |")
    for rules in ({}, {"sieve": int(sieve)}, {"simplify": simplify}, {"sieve": int(sieve), "simplify": simplify}):
        print(measure(file, rules))
