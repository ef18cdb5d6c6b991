"""From a scene of six bands and polygons over it to a map, by the commands; other bands are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely

import regard.cli as cli
from support import write_tif

BANDS = ("B1 blue", "B2 green", "B3 red", "B4 NIR", "B5 SWIR1", "B7 SWIR2")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict]:
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments), "--json"])
    return int(stop.value.code or 0), json.loads(capsys.readouterr().out)


def write_scene(path: Path, *, bands: int = 6) -> np.ndarray:
    """Stripes of three kinds of ground, each bright in two bands; returns them."""
    kinds = np.tile(np.arange(96) // 32, (64, 1))
    noise = np.random.default_rng(0).integers(0, 60, size=(6, 64, 96))
    values = (noise + 150 * (np.arange(6)[:, None, None] // 2 == kinds)).astype(np.uint8)
    write_tif(path, values[:bands])
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = BANDS[:bands]
    return kinds


@pytest.mark.slow
def test_polygons_train_a_map_of_the_same_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = write_scene(tmp_path / "scene.tif")
    corners = [(left, top) for left in range(0, 96, 16) for top in (4, 36)]
    shapes = [
        shapely.box(500_030 + 10 * x, 5_000_000 - 10 * y - 200, 500_130 + 10 * x, 5_000_000 - 10 * y)
        for x, y in corners
    ]
    names = np.array([("corn", "rye", "oats")[kinds[0, x]] for x, _ in corners], dtype=object)
    where = {"crs": "EPSG:32633", "geometry_type": "Polygon", "driver": "GPKG"}
    pyogrio.raw.write(tmp_path / "fields.gpkg", shapely.to_wkb(np.array(shapes)), [names], ["crop"], **where)
    told = {"images": ["scene.tif"], "labels": "fields.gpkg", "column": "crop", "block": 24}
    (tmp_path / "fields.json").write_text(json.dumps(told))
    network = ["--backbone", "test_resnet", "--config.width", 16, "--config.output-stride", 8, "--backbone-rate", 1]
    steps = ["--steps", 30, "--batch", 4, "--crop", 32, "--workers", 0, "--evaluate-every", 30, "--warmup", 2]
    how = ["--balance", 1, "--scale", 1, 1, "--learning-rate", 1e-2, "--ema", 0.5, "--colour", 0]
    data = tmp_path / "fields.json"
    code, facts = run(capsys, "train", data, "-o", tmp_path / "run", *network, *steps, *how)
    assert code == 0 and set(facts["scores"]["iou"]) == {"corn", "oats", "rye"} and facts["scores"]["miou"] > 0.4
    best = facts["best"]
    code, again = run(capsys, "evaluate", best, data, "--window", 32)  # val is cut from a scene: as large as the crops
    assert code == 0 and again["miou"] == pytest.approx(facts["scores"]["miou"])
    code, facts = run(capsys, "predict", best, tmp_path / "scene.tif", "-o", tmp_path / "map.tif")
    assert code == 0, facts
    with rasterio.open(tmp_path / "map.tif") as made:
        found = made.read(1)
    assert (found == np.array([0, 2, 1])[kinds]).mean() > 0.5
    write_scene(tmp_path / "three.tif", bands=3)
    code, facts = run(capsys, "predict", best, tmp_path / "three.tif", "-o", tmp_path / "no.tif")
    said = facts["error"]["message"]
    assert code == 1 and facts["error"]["kind"] == "BandMismatch" and "B4 NIR" in said and "has 3 bands" in said
    assert not (tmp_path / "no.tif").exists()
