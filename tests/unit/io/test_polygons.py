"""Polygons of a map file, read back by pyogrio and ogrinfo and held against its pixels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, MissingExtra, OutputError, SizeMismatch, UnreadableImage
from regard.io import polygons
from regard.io import vector_writer as vector_file
from regard.io.areas import class_areas
from regard.io.cog_writer import RasterWriter, label_layer, measure_layer
from regard.io.polygons import MODIFIED_TAG, write_polygons
from regard.io.raster import to_map
from regard.options import PolygonRules

CLASSES = ClassMap.of(["land", "water & salt", "road"])
TURNED = Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
CENTRAL_SCALE = 0.9996  # of UTM on its central meridian, where the maps lie
DEGREES = Affine(0.001, 0, 12.0, 0, -0.001, 62.0)
FORMATS = [".gpkg", ".geojson", ".fgb"]


def patches(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, size=(height // 4 + 1, width // 4 + 1)).repeat(4, axis=0).repeat(4, axis=1)
    labels = np.where(
        rng.random((height, width)) < 0.05, rng.integers(0, 3, size=(height, width)), coarse[:height, :width]
    )
    labels[: height // 8, : width // 2] = 255
    return labels.astype(np.uint8)


def a_map(path: Path, labels: np.ndarray, crs: str | None = "EPSG:32633", transform: Affine | None = TURNED) -> Path:
    with RasterWriter(path, label_layer(CLASSES, {}), labels.shape, crs=crs, transform=transform) as writer:
        writer.write(0, labels)
    return path


def read(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, dict]:
    about, _, geometry, values = pyogrio.raw.read(path)
    shapes = shapely.from_wkb(geometry)
    if path.suffix == ".geojson" and shapely.total_bounds(shapes)[2] > 10:  # longitude and latitude
        assert "crs" not in json.loads(path.read_text()) and about["crs"] == "EPSG:4326"
        back = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True)
        shapes, about["crs"] = (
            shapely.transform(shapes, lambda xy: on_corners(np.stack(back.transform(*xy.T), 1))),
            32633,
        )
    return dict(zip(about["fields"], values, strict=True)), shapes, about


def on_corners(xy: np.ndarray) -> np.ndarray:
    """Corners of pixels, which were rounded to a tenth of a millimetre."""
    corners = to_map(xy, ~TURNED).round()
    assert np.abs(to_map(corners, TURNED) - xy).max() < 2e-4
    return to_map(corners, TURNED)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_polygons_are_the_pixels_of_each_class(tmp_path: Path, suffix: str) -> None:
    labels = patches(0, 60, 50)
    target = tmp_path / f"map{suffix}"
    count = write_polygons(a_map(tmp_path / "map.tif", labels), target)
    columns, shapes, about = read(target)
    assert count == len(shapes) == sum(value != 255 for _, value in rasterio.features.shapes(labels, connectivity=4))
    assert pyproj.CRS(about["crs"]).to_epsg() == 32633 and about["geometry_type"] == "Polygon"
    assert shapely.is_valid(shapes).all() and (shapely.get_type_id(shapes) == 3).all()
    assert (shapely.is_ccw(shapely.get_exterior_ring(shapes))).all()
    assert shapely.union_all(shapes).area == pytest.approx(shapes_area := shapely.area(shapes).sum(), rel=1e-9)
    assert shapes_area == pytest.approx((labels < 3).sum() * 0.25)
    for label, name in enumerate(CLASSES.names):
        own = columns["class"] == label
        assert shapely.area(shapes[own]).sum() == pytest.approx((labels == label).sum() * 0.25)
        assert columns["area_m2"][own] == pytest.approx(shapely.area(shapes[own]) / CENTRAL_SCALE**2, rel=1e-6)
        assert set(columns["name"][own]) == {name}


def test_burnt_back_they_are_the_map(tmp_path: Path) -> None:
    labels = patches(1, 530, 20)  # more than one strip
    write_polygons(a_map(tmp_path / "map.tif", labels), tmp_path / "map.gpkg")
    columns, shapes, _ = read(tmp_path / "map.gpkg")
    pairs = zip(shapes, columns["class"], strict=True)
    assert np.array_equal(rasterio.features.rasterize(pairs, labels.shape, fill=255, transform=TURNED), labels)
    assert shapely.coverage_is_valid(shapes)
    assert len(shapes) == sum(value != 255 for _, value in rasterio.features.shapes(labels, connectivity=4))


@pytest.mark.parametrize(
    "crs, transform",
    [
        ("EPSG:4326", DEGREES),
        ("EPSG:3857", Affine(30, 0, 9.52e6, 0, -30, 3.2e6)),
        ("EPSG:3413", Affine.translation(2e5, -2e6) @ Affine.rotation(30) @ Affine.scale(100, -100)),
    ],
)
def test_areas_are_geodesic_and_those_of_the_table(tmp_path: Path, crs: str, transform: Affine) -> None:
    path = a_map(tmp_path / "map.tif", patches(2, 40, 30), crs, transform)
    write_polygons(path, tmp_path / "map.gpkg")
    columns, shapes, _ = read(tmp_path / "map.gpkg")
    for row in class_areas(path):
        assert columns["area_m2"][columns["class"] == row.label].sum() == pytest.approx(row.area_m2, rel=1e-9)
    change = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    fine = shapely.segmentize(shapes, abs(transform.a) / 10)
    degrees = shapely.transform(fine, lambda xy: np.stack(change.transform(*xy.T), axis=1))
    geodesic = [pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)[0] for shape in degrees]
    assert columns["area_m2"] == pytest.approx(geodesic, rel=2e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_a_crs_they_lie_on_the_pixels_and_have_no_area(tmp_path: Path, suffix: str) -> None:
    labels = np.array([[0, 0, 1], [2, 2, 2]], np.uint8)
    target = tmp_path / f"map{suffix}"
    write_polygons(a_map(tmp_path / "photo.tif", labels, None, None), target)
    columns, shapes, _ = read(target)
    assert list(columns) == ["class", "name"]
    boxes = {0: (0, -1, 2, 0), 1: (2, -1, 3, 0), 2: (0, -2, 3, -1)}  # y downwards is negative, as in QGIS
    assert {int(label): shape.bounds for label, shape in zip(columns["class"], shapes, strict=True)} == boxes


def test_the_confidence_of_a_patch_is_its_pixels_mean(tmp_path: Path) -> None:
    labels, sure = patches(3, 40, 30), np.random.default_rng(3).integers(1, 256, size=(40, 30), dtype=np.uint8)
    path = a_map(tmp_path / "map.tif", labels)
    with RasterWriter(
        tmp_path / "sure.tif", measure_layer("confidence", {}), sure.shape, crs="EPSG:32633", transform=TURNED
    ) as writer:
        writer.write(0, sure)
    write_polygons(path, tmp_path / "map.fgb", confidence=tmp_path / "sure.tif")
    columns, shapes, _ = read(tmp_path / "map.fgb")
    for value, shape in zip(columns["confidence"], shapes, strict=True):
        inside = rasterio.features.geometry_mask([shape], labels.shape, TURNED, invert=True)
        assert value == pytest.approx(sure[inside].mean() / 255)


def test_the_sieve_gives_specks_to_their_neighbours(tmp_path: Path) -> None:
    labels = patches(4, 60, 50)
    write_polygons(a_map(tmp_path / "map.tif", labels), tmp_path / "map.gpkg", PolygonRules(sieve=10))
    columns, shapes, _ = read(tmp_path / "map.gpkg")
    sieved = rasterio.features.sieve(labels, 10, mask=labels != 255)
    pairs = zip(shapes, columns["class"], strict=True)
    assert np.array_equal(rasterio.features.rasterize(pairs, labels.shape, fill=255, transform=TURNED), sieved)
    assert not np.array_equal(labels, sieved) and np.array_equal(labels == 255, sieved == 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.gpkg", "map.tif", "map.tif.aux.xml"]


def test_simplified_they_are_fewer_points_without_gaps(tmp_path: Path) -> None:
    labels = patches(5, 60, 50)
    path = a_map(tmp_path / "map.tif", labels)
    write_polygons(path, tmp_path / "plain.gpkg")
    write_polygons(path, tmp_path / "map.gpkg", PolygonRules(simplify=0.75))
    (_, plain, _), (columns, shapes, _) = read(tmp_path / "plain.gpkg"), read(tmp_path / "map.gpkg")
    assert len(shapes) == len(plain)
    assert shapely.get_num_coordinates(shapes).sum() < 0.8 * shapely.get_num_coordinates(plain).sum()
    assert shapely.is_valid(shapes).all() and shapely.coverage_is_valid(shapes)
    assert columns["area_m2"] == pytest.approx(shapely.area(shapes) / CENTRAL_SCALE**2, rel=1e-6)


def test_small_polygons_can_be_left_out(tmp_path: Path) -> None:
    path = a_map(tmp_path / "map.tif", patches(6, 60, 50))
    write_polygons(path, tmp_path / "all.gpkg")
    count = write_polygons(path, tmp_path / "map.gpkg", PolygonRules(minimum_area=2.0))
    (every, *_), (large, *_) = read(tmp_path / "all.gpkg"), read(tmp_path / "map.gpkg")
    assert 0 < count < len(every["area_m2"])
    assert sorted(large["area_m2"]) == sorted(every["area_m2"][every["area_m2"] >= 2.0])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_map_of_nothing_has_no_polygons(tmp_path: Path, suffix: str) -> None:
    path = a_map(tmp_path / "map.tif", np.full((3, 4), 255, np.uint8))
    assert write_polygons(path, tmp_path / f"map{suffix}") == 0
    assert pyogrio.read_info(tmp_path / f"map{suffix}", force_feature_count=True)["features"] == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_batches_are_appended(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "BATCH", 7)
    labels = patches(7, 1100, 6)  # three strips
    count = write_polygons(a_map(tmp_path / "map.tif", labels), tmp_path / f"map{suffix}")
    columns, shapes, _ = read(tmp_path / f"map{suffix}")
    assert count == len(shapes) and shapely.coverage_is_valid(shapes)
    assert columns["area_m2"].sum() == pytest.approx((labels != 255).sum() * 0.25 / CENTRAL_SCALE**2)


@pytest.mark.parametrize("rules", [PolygonRules(), PolygonRules(minimum_hole=30.0, only=("land", "road"))])
def test_however_many_are_held_the_file_is_the_same(
    tmp_path: Path, rules: PolygonRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_map(tmp_path / "map.tif", patches(11, 300, 40))  # two strips
    once, again = (tmp_path / name / "map.fgb" for name in ("once", "again"))
    count = write_polygons(path, once, rules)
    monkeypatch.setattr(polygons, "PIECES", 1)
    monkeypatch.setattr(vector_file, "BATCH_BYTES", 5_000)
    assert write_polygons(path, again, rules) == count > 50
    assert once.read_bytes() == again.read_bytes()


def test_strips_of_a_wide_map_are_as_low_as_its_blocks_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = a_map(tmp_path / "map.tif", patches(12, 530, 40)), []
    monkeypatch.setattr(polygons, "STRIP_PIXELS", 40 * 300)
    monkeypatch.setattr(polygons, "regions", lambda strips, *_: seen.extend(strips) or [])
    write_polygons(path, tmp_path / "map.gpkg")
    assert [(strip.top, len(strip.labels)) for strip in seen] == [(0, 256), (256, 256), (512, 18)]


def test_a_geopackage_has_the_date_of_its_scene_and_the_same_bytes(tmp_path: Path) -> None:
    labels, path = patches(7, 60, 50), tmp_path / "map.tif"
    layer = label_layer(CLASSES, {MODIFIED_TAG: "2001-09-09T01:46:40+00:00"})
    with RasterWriter(path, layer, labels.shape, crs="EPSG:32633", transform=TURNED) as writer:
        writer.write(0, labels)
    once, again = (tmp_path / name / "map.gpkg" for name in ("once", "again"))
    write_polygons(path, once)
    os.utime(path, (1, 1))
    write_polygons(path, again)
    assert once.read_bytes() == again.read_bytes()
    assert b"2001-09-09T01:46:40.000Z" in once.read_bytes()


def test_the_settings_of_gdal_stay_as_the_caller_has_them(tmp_path: Path) -> None:
    pyogrio.set_gdal_config_options({"OGR_SQLITE_JOURNAL": "TRUNCATE"})
    try:
        write_polygons(a_map(tmp_path / "map.tif", patches(13, 8, 8)), tmp_path / "map.gpkg")
        assert pyogrio.get_gdal_config_option("OGR_SQLITE_JOURNAL") == "TRUNCATE"
    finally:
        pyogrio.set_gdal_config_options({"OGR_SQLITE_JOURNAL": None})


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="GDAL's command-line tools (gdal-bin) are not installed")
@pytest.mark.parametrize("suffix", FORMATS)
def test_ogrinfo_opens_it(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"map{suffix}"
    count = write_polygons(a_map(tmp_path / "map.tif", patches(8, 30, 30)), target)
    text = subprocess.run(["ogrinfo", "-so", "-al", str(target)], capture_output=True, check=True, text=True).stdout
    assert "Layer name: map" in text and "Geometry: Polygon" in text and f"Feature Count: {count}" in text
    assert ("WGS 84" if suffix == ".geojson" else "WGS 84 / UTM zone 33N") in text
    for column in ("class: Integer", "name: String", "area_m2: Real"):
        assert column in text


def test_geoparquet_says_what_its_geometry_is(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = a_map(tmp_path / "map.tif", patches(9, 30, 30))
    count = write_polygons(path, tmp_path / "map.parquet")
    write_polygons(path, tmp_path / "map.gpkg")
    table, (columns, shapes, _) = parquet.read_table(tmp_path / "map.parquet"), read(tmp_path / "map.gpkg")
    about = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert pyproj.CRS.from_json_dict(about["crs"]).to_epsg() == 32633 and about["encoding"] == "WKB"
    assert about["bbox"] == list(shapely.total_bounds(shapes)) and table.num_rows == count
    assert shapely.from_wkb(table["geometry"].to_pylist()).tolist() == shapes.tolist()
    assert table["area_m2"].to_pylist() == columns["area_m2"].tolist()


def test_geoparquet_without_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install pyarrow"):
        write_polygons(tmp_path / "map.tif", tmp_path / "map.parquet")


@pytest.mark.parametrize("rule", ["minimum_area", "simplify"])
@pytest.mark.parametrize("crs, transform", [(None, None), ('LOCAL_CS["site",UNIT["metre",1]]', TURNED)])
def test_metres_need_a_crs_on_earth(tmp_path: Path, rule: str, crs: str | None, transform: Affine | None) -> None:
    path = a_map(tmp_path / "map.tif", np.zeros((3, 3), np.uint8), crs, transform)
    with pytest.raises(ConfigError, match="has no CRS on Earth"):
        write_polygons(path, tmp_path / "map.gpkg", PolygonRules(**{rule: 1.0}))


def test_in_a_local_crs_polygons_have_no_area(tmp_path: Path) -> None:
    path = a_map(tmp_path / "map.tif", np.zeros((3, 3), np.uint8), 'LOCAL_CS["site",UNIT["metre",1]]')
    write_polygons(path, tmp_path / "map.gpkg")
    assert list(read(tmp_path / "map.gpkg")[0]) == ["class", "name"]


@pytest.mark.parametrize("rule", [{"sieve": -1}, {"simplify": float("nan")}, {"minimum_area": -2.0}])
def test_impossible_rules_are_refused(rule: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(rule))} .* must be 0"):
        PolygonRules(**rule)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = a_map(tmp_path / "map.tif", np.full((3, 3), 2, np.uint8))
    small = a_map(tmp_path / "small.tif", np.zeros((2, 3), np.uint8))
    scores = tmp_path / "scores.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 3, "width": 3, "dtype": "float32"}
    with rasterio.open(scores, "w", **profile, crs="EPSG:32633", transform=TURNED) as file:
        file.write(np.zeros((1, 3, 3), np.float32))
    with pytest.raises(ConfigError, match=r"got map\.shp. Name it map\.gpkg"):
        write_polygons(path, tmp_path / "map.shp")
    other = tmp_path / "other.tif"
    with RasterWriter(
        other, label_layer(ClassMap.of(["a", "b"]), {}), (3, 3), crs="EPSG:32633", transform=TURNED
    ) as writer:
        writer.write(0, np.full((3, 3), 2, np.uint8))
    with pytest.raises(ClassMismatch, match="the label 2, but 2 classes"):
        write_polygons(other, tmp_path / "map.gpkg")
    with pytest.raises(ClassMismatch, match="holds float32"):
        write_polygons(scores, tmp_path / "map.gpkg")
    with pytest.raises(SizeMismatch, match=r"small\.tif has 3 x 2 pixels"):
        write_polygons(path, tmp_path / "map.gpkg", confidence=small)
    with pytest.raises(UnreadableImage, match="does not exist"):
        write_polygons(tmp_path / "none.tif", tmp_path / "map.gpkg")
    with pytest.raises(OutputError, match="is a folder"):
        (tmp_path / "folder.gpkg").mkdir()
        write_polygons(path, tmp_path / "folder.gpkg")
    assert not list(tmp_path.glob("*map.gpkg*"))


def test_a_full_disk_is_told_and_the_earlier_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_map(tmp_path / "map.tif", patches(10, 30, 30))
    (tmp_path / "map.fgb").write_text("earlier")
    write = pyogrio.raw.write_arrow

    def truncated(stream: object, target: Path, **options: object) -> None:
        write(stream, target, **options)
        target.write_bytes(target.read_bytes()[:100])

    monkeypatch.setattr(pyogrio.raw, "write_arrow", truncated)
    with pytest.raises(OutputError, match="Is the disk full"):
        write_polygons(path, tmp_path / "map.fgb")
    assert (tmp_path / "map.fgb").read_text() == "earlier"
    assert not list(tmp_path.glob(".*"))


def test_the_map_lies_where_its_polygons_do() -> None:
    corners = np.array([[0.0, 0.0], [10.0, 0.0], [3.0, 7.0]])
    expected = [rasterio.transform.xy(TURNED, row, column, offset="ul") for column, row in corners]
    assert np.allclose(to_map(corners, TURNED), expected, rtol=1e-12)


def test_geojson_of_a_local_system_stays_in_its_coordinates(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    path = a_map(tmp_path / "map.tif", np.array([[0, 0, 1], [2, 2, 2]], np.uint8), local, Affine(1, 0, 5, 0, -1, 9))
    assert write_polygons(path, tmp_path / "map.geojson") == 3
    assert shapely.total_bounds(read(tmp_path / "map.geojson")[1]).tolist() == [5, 7, 8, 9]
