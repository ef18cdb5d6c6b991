"""Polygons of vector files: the ground that GDAL fills, of the layer that is named; what lies elsewhere is told."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from regard.errors import ConfigError, UnreadableImage
from regard.io.even_odd import filled
from regard.io.gdal import inside
from regard.io.raster import Box, open_raster
from regard.io.vectors import area_of_interest, read_shapes
from support import write_tif

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared"))
CASES = SHARED / "cases" / "aoi_invalid_polygons"
SIDE = 40
WEST, NORTH = 500_000, 5_000_000
GRID = rasterio.Affine(10, 0, WEST, 0, -10, NORTH)
Polygon = shapely.Polygon

BOW = Polygon([(5, 5), (35, 35), (35, 5), (5, 35)])  # signed area 0
SQUARE = Polygon([(2, 2), (2, 20), (20, 20), (20, 2)])
ODD = {
    "bow-tie": BOW,
    "uneven bow-tie": Polygon([(5, 5), (35, 35), (35, 5), (5, 20)]),
    "star": Polygon([(20 + 15 * np.cos(a), 20 + 15 * np.sin(a)) for a in 2 * np.pi * np.arange(5) * 2 / 5]),
    "hole outside": Polygon(SQUARE.exterior, [[(22, 22), (38, 22), (38, 38), (22, 38)]]),
    "hole across the edge": Polygon(SQUARE.exterior, [[(10, 10), (30, 10), (30, 30), (10, 30)]]),
    "holes that overlap": Polygon(
        [(2, 2), (2, 38), (38, 38), (38, 2)],
        [[(5, 5), (20, 5), (20, 20), (5, 20)], [(10, 10), (25, 10), (25, 25), (10, 25)]],
    ),
    "ring that touches itself": Polygon([(2, 2), (20, 20), (38, 2), (38, 38), (20, 20), (2, 38)]),
    "spike": Polygon([(2, 2), (20, 2), (20, 20), (38, 38), (20, 20), (2, 20)]),
    "overlapping parts": shapely.MultiPolygon([SQUARE, shapely.box(10, 10, 30, 30)]),
    "ring drawn twice": Polygon([*SQUARE.exterior.coords[:-1]] * 2, [[(22, 22), (38, 22), (38, 38), (22, 38)]]),
    "bow-tie among parts": shapely.MultiPolygon([BOW, shapely.box(30, 30, 38, 38)]),
    "collection": shapely.GeometryCollection([SQUARE, shapely.MultiPolygon([shapely.box(25, 2, 35, 20)])]),
}


def on_map(shape: Any) -> Any:
    """A shape in pixels in the map's coordinates."""
    return shapely.transform(shape, lambda xy: np.array([WEST, NORTH]) + xy * [10, -10])


def write(path: Path, shapes: Any, *, crs: str | None = "EPSG:32633", layer: str | None = None) -> Path:
    kind = {"geometry_type": "Unknown", "crs": crs, "driver": "GPKG", "layer": layer}
    geometry = np.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], object)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        pyogrio.raw.write(path, geometry, [], [], **kind)
    return path


def covered(source: Any, scene: Path) -> np.ndarray:
    """The pixels of an area of interest."""
    with open_raster(scene) as raster:
        return inside(area_of_interest(source, raster), Box(0, 0, *raster.size))


@pytest.fixture
def empty_scene(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "scene.tif", np.zeros((1, SIDE, SIDE), np.uint8), transform=GRID)


@pytest.mark.parametrize("name", ["x;y.gpkg", "x!y.gpkg", "x?y.gpkg", "s3:/x.gpkg", "x%3By.gpkg", "x#y.gpkg"])
def test_any_name_of_a_file_is_that_file(tmp_path: Path, empty_scene: Path, name: str) -> None:
    plain = write(tmp_path / "plain.gpkg", [on_map(SQUARE)], layer="fields")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    plain.rename(path)
    assert covered(path, empty_scene).sum() == covered(f"{path}|layername=fields", empty_scene).sum() == 18 * 18
    with pytest.raises(ConfigError, match=r"has no column 'kind'"):
        read_shapes(path, ["kind"])
    with pytest.raises(ConfigError, match="is not a condition"):
        read_shapes(path, where="=")


@pytest.mark.parametrize("name", ODD)
def test_an_invalid_polygon_covers_what_gdal_rasterises(tmp_path: Path, empty_scene: Path, name: str) -> None:
    shape, other = on_map(ODD[name]), on_map(shapely.box(1, 36, 4, 39))
    expected = rasterio.features.rasterize([shape, other], (SIDE, SIDE), transform=GRID) == 1
    assert 100 < expected.sum() < SIDE**2
    assert np.array_equal(covered(write(tmp_path / "a.gpkg", [shape, other]), empty_scene), expected)
    found = read_shapes(tmp_path / "a.gpkg")
    assert shapely.is_valid(found.shapes).all() and found.faults.astype(bool).tolist() == [
        not shapely.is_valid(shape),
        False,
    ]


@given(st.integers(1, 3).flatmap(lambda n: arrays(np.float64, (n, 6, 2), elements=st.floats(1, SIDE - 1, width=32))))
def test_any_rings_cover_what_gdal_rasterises(rings: np.ndarray) -> None:
    """But at pixels whose centre lies on an edge, where a rounded crossing may decide."""
    shape = Polygon(rings[0], list(rings[1:]))
    ours, (made,) = np.zeros((SIDE, SIDE), bool), filled(np.array([shape], object))
    expected = rasterio.features.rasterize([shape], (SIDE, SIDE)) == 1
    if not made.is_empty:
        ours = rasterio.features.rasterize([made], (SIDE, SIDE)) == 1
    rows, columns = np.nonzero(ours != expected)
    centres = shapely.points(columns + 0.5, rows + 0.5)
    edges = shapely.union_all([shapely.LineString(np.vstack([ring, ring[:1]])) for ring in rings])
    assert (shapely.distance(centres, edges) < 1e-6).all()


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(("name", "pixels"), [("bow", 2400), ("bow_and_square", 2800)])
def test_the_reported_areas_of_interest(name: str, pixels: int) -> None:
    assert covered(CASES / f"{name}.geojson", CASES / "base.tif").sum() == pixels


def test_features_without_a_polygon_are_counted_and_the_others_read(tmp_path: Path, empty_scene: Path) -> None:
    flat, thick = shapely.LineString([(0, 0), (9, 9)]), shapely.force_3d(on_map(SQUARE), 7)
    unclosed = b"\x01" + np.array([3, 1, 3], "<u4").tobytes() + np.array([5, 30, 15, 30, 15, 38], "<f8").tobytes()
    shapes = [None, Polygon(), flat, shapely.Point(3, 3), Polygon([(1, 1), (5, 5), (3, 3)]), thick]
    path = write(tmp_path / "a.gpkg", shapes)
    found = read_shapes(path)
    assert found.others == 5 and found.ids.tolist() == [6] and not shapely.has_z(found.shapes).any()
    assert covered(path, empty_scene).sum() == 18 * 18
    (made,) = filled(shapely.from_wkb(np.array([unclosed], object), on_invalid="fix"))
    assert made.area == 40
    write(tmp_path / "b.gpkg", shapes[:4])
    with pytest.raises(ConfigError, match=r"b\.gpkg has no polygon among 4 features\."):
        read_shapes(tmp_path / "b.gpkg")


@pytest.mark.parametrize(
    ("wkt", "area"),
    [
        ("CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0))", np.pi),
        ("MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0)))", np.pi),
        ("POLYGON M((0 0 9,4 0 9,4 4 9,0 0 9))", 8),
        ("POLYGON ZM((0 0 9 1,4 0 9 1,4 4 9 1,0 0 9 1))", 8),
        ("TIN Z(((0 0 0,0 1 0,1 1 0,0 0 0)))", None),
        ("POLYHEDRALSURFACE Z(((0 0 0,0 1 0,1 1 0,0 0 0)))", None),
    ],
)
def test_curves_and_further_dimensions(tmp_path: Path, wkt: str, area: float | None) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'WKT,kind\n"{wkt}",a\n')
    if area is None:
        with pytest.raises(ConfigError, match=r"a\.csv has no polygon among 1 feature\."):
            read_shapes(path)
    else:
        assert shapely.area(read_shapes(path, ["kind"]).shapes) == pytest.approx(area, rel=1e-3)


def test_the_layer_is_named_as_qgis_does(tmp_path: Path, empty_scene: Path) -> None:
    path = write(tmp_path / "t.gpkg", [on_map(SQUARE)], layer="fields")
    style = np.array(["<qgis/>"], object)
    pyogrio.raw.write(
        path, None, [style], ["styleQML"], layer="layer_styles", driver="GPKG", crs=None, geometry_type=None
    )
    line = on_map(shapely.LineString([(0, 0), (9, 9)]))
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array([line])), [], [], layer="roads", driver="GPKG", crs="EPSG:32633",
        geometry_type="LineString",
    )  # fmt: skip
    assert len(pyogrio.list_layers(path)) == 3 and covered(path, empty_scene).sum() == 18 * 18
    write(path, [on_map(shapely.box(0, 0, 3, 3))], layer="other")
    with pytest.raises(
        ConfigError, match=r"2 layers \(fields, other\)\. Name one of them: t\.gpkg\|layername=fields\."
    ):
        covered(path, empty_scene)
    for source, pixels in ((f"{path}|layername=fields", 18 * 18), (Path(f"{path}|layername=other"), 9)):
        assert covered(source, empty_scene).sum() == pixels
    with pytest.raises(ConfigError, match=r"t\.gpkg has no layer 'field'; it has .*fields, .*other"):
        covered(f"{path}|layername=field", empty_scene)
    with pytest.raises(ConfigError, match=r"only one layer can be named: .*t\.gpkg\|layername=NAME"):
        covered(f"{path}|layername=fields|subset=a = 1", empty_scene)
    with pytest.raises(UnreadableImage, match=r"no\.gpkg does not exist"):
        covered(f"{tmp_path / 'no.gpkg'}|layername=fields", empty_scene)


def geojson(path: Path, shape: Any, crs: str | None = None) -> Path:
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **named}))
    return path


def test_coordinates_that_are_exchanged_or_of_another_system_are_explained(tmp_path: Path, empty_scene: Path) -> None:
    with rasterio.open(empty_scene) as scene:
        degrees = rasterio.warp.transform_bounds(scene.crs, "EPSG:4326", *scene.bounds)
    right = shapely.box(*degrees)
    assert covered(geojson(tmp_path / "a.geojson", right), empty_scene).all()
    swapped = geojson(tmp_path / "b.geojson", shapely.transform(right, lambda xy: xy[:, ::-1]))
    with pytest.raises(ConfigError, match=r"misses scene\.tif: it covers 45\..*Latitude and longitude are exchanged"):
        covered(swapped, empty_scene)
    far = geojson(tmp_path / "c.geojson", shapely.transform(right, lambda xy: xy + 3))
    with pytest.raises(ConfigError, match=r"misses scene\.tif: .*in EPSG:4326, scene\.tif 500000, .* in EPSG:32633\.$"):
        covered(far, empty_scene)
    metres = geojson(tmp_path / "d.geojson", on_map(SQUARE))
    with pytest.raises(ConfigError, match=r"says that its CRS is EPSG:4326, but its coordinates .*ogr2ogr -a_srs"):
        covered(metres, empty_scene)
    bare = write(tmp_path / "bare.gpkg", [on_map(SQUARE)], crs=None)
    with pytest.raises(ConfigError, match=r"bare\.gpkg has no CRS"):
        covered(bare, empty_scene)


def test_the_condition_and_the_ids_of_geojson(tmp_path: Path) -> None:
    path = tmp_path / "osm.geojson"
    features: list[dict[str, Any]] = [
        {"type": "Feature", "properties": {"roof:material": roof}, "geometry": shapely.geometry.mapping(SQUARE)}
        for roof in ("tin", None, "clay", "tin")
    ]

    def found(where: str | None = None) -> tuple[str, list[Any]]:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        polygons = read_shapes(path, ["roof:material"], where)
        return polygons.id_name, polygons.ids.tolist()

    assert found() == ("FID", [0, 1, 2, 3]) and found("\"roof:material\" = 'tin'") == ("FID", [0, 3])
    for number, feature in enumerate(features):
        feature["id"] = 70 + number
    assert found('"roof:material" IS NULL') == ("FID", [71])
    for number, feature in enumerate(features):
        feature["id"] = f"way/{number}"
    assert found() == ("id", [f"way/{number}" for number in range(4)])
    features[1]["properties"]["osm_id"] = 8  # of one alone
    for feature in features:
        del feature["id"]
    assert found()[0] == "FID"
    with pytest.raises(ConfigError, match=r"where 'roof = 1' is not a condition; .* Columns: roof:material, osm_id\."):
        found("roof = 1")
    with pytest.raises(ConfigError, match=r"no polygon among 0 features where \"roof:material\" = 'gold'\."):
        found("\"roof:material\" = 'gold'")


def test_a_local_system_meets_itself_alone(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    scene = write_tif(tmp_path / "scene.tif", np.zeros((1, SIDE, SIDE), np.uint8), transform=GRID, crs=local)
    assert covered(write(tmp_path / "a.gpkg", [on_map(SQUARE)], crs=local), scene).sum() == 18 * 18
    with pytest.raises(
        ConfigError, match="nothing leads from the polygons' CRS, WGS 84 / UTM zone 33N, to the scene's"
    ):
        covered(write(tmp_path / "b.gpkg", [on_map(SQUARE)]), scene)
