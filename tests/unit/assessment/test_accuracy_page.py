"""The steps of docs/accuracy.md, on a map of the bundled scene that needs no network: its footprints, displaced."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from rasterio.warp import transform_geom

import regard

ROOT = Path(__file__).parents[3]
SCENE = ROOT / "src" / "regard" / "bundled" / "banepa"
COARSER = 8  # pixels of the scene in one of the map


def write_displaced(folder: Path) -> np.ndarray:
    """A map whose buildings lie 3 pixels too far east; the true labels where all buildings are drawn, else 255."""
    with rasterio.open(SCENE / "ortho.tif") as ortho:
        crs, place = ortho.crs, ortho.transform @ ortho.transform.scale(COARSER)
        height, width = ortho.height // COARSER, ortho.width // COARSER
    drawn = {
        name: [
            transform_geom("EPSG:4326", crs, feature["geometry"])
            for feature in json.loads((SCENE / f"{name}.geojson").read_text())["features"]
        ]
        for name in ("buildings", "mapped")
    }
    truth = 1 - rasterize(drawn["buildings"], (height, width), transform=place, dtype="uint8")
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255}
    with rasterio.open(folder / "map.tif", "w", crs=crs, transform=place, **profile) as raster:
        raster.write(np.roll(truth, 3, axis=1), 1)
        raster.update_tags(regard_classes=json.dumps(["building", "other"]))
    known = rasterize(drawn["mapped"], (height, width), transform=place, dtype="uint8")
    return np.where(known == 1, truth, 255)


def test_the_page_leads_to_the_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("buildings", "mapped"):
        shutil.copy(SCENE / f"{name}.geojson", tmp_path)
    truth = write_displaced(tmp_path)
    monkeypatch.chdir(tmp_path)
    regard.sample("map.tif", "points.gpkg", points=200, aoi="mapped.geojson")
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "accuracy.md").read_text(), flags=re.DOTALL):
        exec(code, {})
    with rasterio.open("map.tif") as raster:
        mapped = raster.read(1)
    found = regard.accuracy("map.tif", "points.gpkg")
    right = float((mapped == truth)[truth < 255].mean())
    assert found.estimates.overall.low[0] < right < found.estimates.overall.high[0]
    assert (tmp_path / "accuracy.html").is_file()
