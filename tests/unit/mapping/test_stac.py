"""The catalog's item of a map: by the specification's own validators where they are installed, and by hand."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely

from regard.errors import OutputError
from regard.io.polygons import MODIFIED_TAG
from regard.mapping.predict import predict
from regard.mapping.stac import _taken
from regard.models import Segmenter
from support import tiny, write_tif

VIEW = {"tile": 64, "overlap": 32}


def item_of(model: Segmenter, folder: Path, **profile: Any) -> dict[str, Any]:
    values = np.random.default_rng(2).integers(0, 256, size=(3, 70, 90), dtype=np.uint8)
    scene = write_tif(folder / "scene.tif", values, **profile)
    with rasterio.open(scene, "r+") as raster:
        raster.update_tags(TIFFTAG_DATETIME="2023:04:05 06:07:08")
    names = {"confidence": "maps/sure.tif", "polygons": "map.gpkg", "stac": "items/map.json"}
    predict(model, scene, folder / "maps" / "map.tif", **{name: folder / path for name, path in names.items()}, **VIEW)
    return json.loads((folder / "items" / "map.json").read_text())


def test_the_item_tells_where_the_map_lies_and_what_made_it(tiny_model: Segmenter, tmp_path: Path) -> None:
    item = item_of(tiny_model, tmp_path)
    assert (item["type"], item["stac_version"], item["id"], item["links"]) == ("Feature", "1.1.0", "map", [])
    about, assets = item["properties"], item["assets"]
    assert about["datetime"] == "2023-04-05T06:07:08Z" and about["proj:code"] == "EPSG:32633"
    with rasterio.open(tmp_path / "maps" / "map.tif") as raster:
        box = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds, densify_pts=15)
        assert item["bbox"] == pytest.approx(box, abs=1e-6)
        assert about["proj:shape"] == list(raster.shape) and about["proj:transform"] == list(raster.transform)[:6]
        assert about["regard:weights_sha256"] == raster.tags()["regard_weights_sha256"]
        labels = assets["labels"]
        assert labels["bands"][0] == {"name": "class", "data_type": "uint8", "nodata": raster.nodata}
        colours = [f"{red:02X}{green:02X}{blue:02X}" for red, green, blue, _ in map(raster.colormap(1).get, range(3))]
    classes = labels["classification:classes"]
    assert [entry["color_hint"] for entry in classes] == colours
    assert [entry["description"] for entry in classes] == list(tiny_model.classes.names)
    assert all(re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"]) for entry in classes)
    assert shapely.geometry.shape(item["geometry"]).bounds == tuple(item["bbox"])
    for name in ("labels", "confidence", "polygons"):
        assert (tmp_path / "items" / assets[name]["href"]).is_file() and assets[name]["type"]
    with rasterio.open(tmp_path / "items" / assets["confidence"]["href"]) as raster:
        assert assets["confidence"]["bands"][0]["raster:scale"] == pytest.approx(raster.scales[0])


def test_the_fields_that_the_mlm_extension_asks_for(tiny_model: Segmenter, tmp_path: Path) -> None:
    item = item_of(tiny_model, tmp_path)
    about = item["properties"]
    assert any("/mlm/v1." in name for name in item["stac_extensions"])
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", about["mlm:name"])
    assert about["mlm:architecture"] == "danet_ocr" and about["mlm:tasks"] == ["semantic-segmentation"]
    assert about["mlm:framework"] == "PyTorch" and re.match(r"\d+\.\d+\.\d+", about["mlm:framework_version"])
    (taken,), (given,), card = about["mlm:input"], about["mlm:output"], tiny_model.card
    assert taken["bands"] == [band["name"] for band in about["bands"]] == list(card.bands)
    raw = np.array([10.0, 100.0, 200.0])
    scaled = [(v - one["mean"]) / one["stddev"] for v, one in zip(raw, taken["value_scaling"], strict=True)]
    assert scaled == pytest.approx((raw / card.divisor - card.mean) / card.std)
    for structure in (taken["input"], given["result"]):
        assert len(structure["shape"]) == len(structure["dim_order"]) and structure["data_type"]
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert len(models) == 1 and models[0]["mlm:artifact_type"] and about["regard:weights_sha256"] in models[0]["href"]
    assert sum("mlm:artifact_type" in asset for asset in item["assets"].values()) == 1


def test_the_specifications_own_validators_take_it(tiny_model: Segmenter, tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="pystac is not installed")
    schema = pytest.importorskip("stac_model.schema", reason="stac-model is not installed")
    item = item_of(tiny_model, tmp_path)
    parsed = schema.MLModelProperties(**item["properties"])
    assert parsed.architecture == "danet_ocr" and len(parsed.output[0].classes) == 3
    core = pystac.Item.from_dict({**item, "stac_extensions": []})  # the extensions' schemas lie on the network
    core.validate()
    assert pystac.Item.from_dict(item).ext.proj.epsg == 32633


def test_without_a_place_or_a_date(tiny_model: Segmenter, tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "scene.tif", np.ones((3, 40, 40), np.uint8), crs=None, transform=None)
    predict(tiny(), scene, tmp_path / "map.tif", stac=tmp_path / "map.json", **VIEW)
    item = json.loads((tmp_path / "map.json").read_text())
    assert item["geometry"] is None and "bbox" not in item and item["properties"]["proj:code"] is None
    taken = datetime.strptime(item["properties"]["datetime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - taken) < timedelta(hours=1)
    with pytest.raises(OutputError, match=r"a STAC item is a \.json"):
        predict(tiny_model, scene, tmp_path / "map.tif", stac=tmp_path / "map.txt", **VIEW)


def test_when_a_scene_was_modified_is_told_in_utc() -> None:
    """Where its own date is missing or none."""
    modified = {MODIFIED_TAG: "2024-02-03T23:30:00-05:00"}
    assert _taken(modified) == _taken({**modified, "TIFFTAG_DATETIME": "yesterday"}) == "2024-02-04T04:30:00Z"
    assert _taken({**modified, "TIFFTAG_DATETIME": "2020:01:02 03:04:05"}) == "2020-01-02T03:04:05Z"


def test_a_scene_across_the_180th_meridian_has_a_part_on_either_side(tiny_model: Segmenter, tmp_path: Path) -> None:
    side = 1000.0
    item = item_of(tiny_model, tmp_path, crs="EPSG:32601", transform=rasterio.Affine(side, 0, 280_000, 0, -side, 6e6))
    shape = shapely.geometry.shape(item["geometry"])
    assert shape.geom_type == "MultiPolygon" and shape.is_valid
    west, _, east, _ = item["bbox"]
    assert west > 179 > 0 > east > -180, "the box begins in the east and ends in the west"
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)
    assert area == pytest.approx(70 * 90 * side**2, rel=0.01)
