"""Cut a sample for the step-by-step page from Banepa's scene: image, footprints, outline and description.

    python -m experiments.buildings.sample DATA/banepa OUT [--rows 5632 7680] [--columns 5632 7168]

The default is src/regard/bundled/banepa: a part whose tiles were kept out of the training of buildings-s.
The outline is the part of it in which every building is drawn, which is where the scene's mask has labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import shapely.geometry
from rasterio.warp import transform_bounds
from rasterio.windows import Window, get_data_window

KEPT = ("osm_id", "building", "roof:material")
TAGS = {
    "TIFFTAG_IMAGEDESCRIPTION": "Banepa, Nepal: orthophoto of a drone, 0.13 m",
    "TIFFTAG_COPYRIGHT": "CC-BY-4.0; OpenAerialMap contributors, HOT",
}
DESCRIPTION = {
    "images": ["ortho.tif"],
    "labels": "buildings.geojson",
    "value": "building",
    "background": "other",
    "extent": "mapped.geojson",
    "block": 256,
    "window": 256,
}


def cut_image(scene: Path, target: Path, window: Window) -> None:
    """A part of the scene as tiled JPEG in a GeoTIFF."""
    with rasterio.open(scene) as source:
        pixels, transform = source.read(window=window), source.window_transform(window)
        profile = source.profile | {"width": window.width, "height": window.height, "transform": transform}
    with rasterio.open(target, "w", **profile, jpeg_quality=85) as image:
        image.write(pixels)
        image.update_tags(**TAGS)


def outline(mask: Path, window: Window) -> shapely.Polygon:
    """Longitudes and latitudes of the labelled rectangle within a window."""
    with rasterio.open(mask) as labels:
        inner = get_data_window(labels.read(1, window=window), nodata=255)
        there = Window(inner.col_off + window.col_off, inner.row_off + window.row_off, inner.width, inner.height)
        return shapely.box(*np.round(transform_bounds(labels.crs, "EPSG:4326", *labels.window_bounds(there)), 8))


def footprints(source: Path, area: shapely.Polygon) -> list[dict[str, Any]]:
    """The features that touch an area, with three of their tags."""
    features = json.loads(source.read_text(encoding="utf-8"))["features"]
    found = [one for one in features if shapely.geometry.shape(one["geometry"]).intersects(area)]
    return [feature(one["geometry"], {name: one["properties"].get(name) for name in KEPT}) for one in found]


def feature(geometry: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def write(path: Path, features: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in features)
    path.write_text(f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, nargs=2, default=(5632, 7680))
    parser.add_argument("--columns", type=int, nargs=2, default=(5632, 7168))
    given = parser.parse_args()
    window = Window.from_slices(tuple(given.rows), tuple(given.columns))
    given.out.mkdir(parents=True, exist_ok=True)
    cut_image(given.data / "scene.tif", given.out / "ortho.tif", window)
    mapped = outline(given.data / "scene_mask.tif", window)
    found = footprints(given.data / "osm_banepa.geojson", mapped)
    write(given.out / "buildings.geojson", found)
    note = {"note": "Every building here is drawn."}
    write(given.out / "mapped.geojson", [feature(shapely.geometry.mapping(mapped), note)])
    (given.out / "labels.json").write_text(json.dumps(DESCRIPTION, indent=2) + "\n", encoding="utf-8")
    print(f"{len(found)} footprints")


if __name__ == "__main__":
    main()
