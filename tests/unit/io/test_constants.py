"""Edges and numbers that no other test would miss: what is summed in parts, centres, limits, resampling, marks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import UnreadableImage
from regard.files import check_writable
from regard.io.areas import class_areas
from regard.io.cog_writer import RasterWriter, label_layer, measure_layer
from regard.io.coverage import ROWS_SUMMED_AT_ONCE, Strip, regions
from regard.io.extent import reaching
from regard.io.gdal import CACHE_MB, Settings, check_dataset, is_lossy, rasterise
from regard.io.ground import Ground, ground_resolution
from regard.io.image import image_size, read_image
from regard.io.no_data import all_nodata, equal
from regard.io.polygons import write_polygons
from regard.io.raster import Box, Raster, open_raster
from regard.io.right_angles import plane_of
from regard.io.source import Source
from regard.io.vector_writer import names_in
from regard.options import PolygonRules
from support import save_image, write_tif

CLASSES = ClassMap.of(["land", "water", "road"])
DEGREES = Affine(0.5, 0, 10, 0, -0.5, 70)  # 80 rows reach from 70 to 30 degrees north
WGS84 = pyproj.Geod(ellps="WGS84")


def a_map(path: Path, labels: np.ndarray, crs: str = "EPSG:4326", transform: Affine = DEGREES) -> Path:
    with RasterWriter(path, label_layer(CLASSES, {}), labels.shape, crs=crs, transform=transform) as writer:
        writer.write(0, labels.astype(np.uint8))
    return path


def geodesic_area(west: float, south: float, east: float, north: float) -> float:
    along = shapely.get_coordinates(shapely.segmentize(shapely.box(west, south, east, north), 0.001))
    return abs(WGS84.polygon_area_perimeter(*along.T)[0])


def test_areas_of_a_map_that_is_higher_than_what_is_summed_at_once(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], 40)[:, None].repeat(6, axis=1)
    assert len(labels) > 2 * ROWS_SUMMED_AT_ONCE
    north, south, _ = class_areas(a_map(tmp_path / "map.tif", labels))
    assert north.area_m2 == pytest.approx(geodesic_area(10, 50, 13, 70), rel=1e-6)
    assert south.area_m2 == pytest.approx(geodesic_area(10, 30, 13, 50), rel=1e-6)


def test_sums_of_a_strip_that_is_higher_than_what_is_summed_at_once() -> None:
    labels = np.repeat([0, 1], 40).astype(np.uint8)[:, None].repeat(6, axis=1)
    values = np.arange(480, dtype=np.float64).reshape(80, 6)
    ground = Ground.of(rasterio.crs.CRS.from_epsg(4326), DEGREES)
    north, south = sorted((r for some in regions([Strip(0, labels, values)], ground=ground) for r in some),
                          key=lambda region: region.label)  # fmt: skip
    assert (north.pixels, north.total) == (240, values[:40].sum())
    assert (south.pixels, south.total) == (240, values[40:].sum())
    assert north.area == pytest.approx(geodesic_area(10, 50, 13, 70), rel=1e-6)
    assert south.area == pytest.approx(geodesic_area(10, 30, 13, 50), rel=1e-6)


def test_the_resolution_is_that_of_the_centre(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", np.zeros((1, 80, 6), np.uint8), crs="EPSG:4326", transform=DEGREES)
    with open_raster(path) as raster:
        expected = math.sqrt(geodesic_area(11.5, 49.5, 12, 50))
        assert ground_resolution(raster) == pytest.approx(expected, rel=1e-6)


def test_an_area_of_interest_holds_the_pixels_whose_centres_lie_in_it(tmp_path: Path) -> None:
    area = shapely.Polygon([(3.2, 1.4), (17.8, 4.6), (12.5, 15.5), (6.4, 11.2)])
    with open_raster(write_tif(tmp_path / "a.tif", np.ones((1, 20, 24), np.uint8))) as raster:
        raster.area = area
        for box in (Box(0, 0, 20, 24), Box(3, 5, 9, 11)):
            centres = np.meshgrid(np.arange(box.width) + box.left + 0.5, np.arange(box.height) + box.top + 0.5)
            expected = shapely.contains_xy(area, *centres)
            assert np.array_equal(raster.read(box).valid, expected) and 0 < expected.sum() < expected.size


def test_gdals_settings_are_ours_while_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    settings, path = Settings(), write_tif(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8))
    monkeypatch.setattr("regard.io.raster.SETTINGS", settings)  # of other files, no test knows whether they are open
    set_gdal_config("GDAL_CACHEMAX", 48_000_000)
    with open_raster(path), open_raster(path) as second:
        second.close()
        second.close()
        assert get_gdal_config("GDAL_CACHEMAX") == CACHE_MB * 1_000_000
    assert get_gdal_config("GDAL_CACHEMAX") == 48_000_000


@pytest.mark.parametrize(("count", "nodata", "dtype"), [(255, 255, "uint8"), (256, 65535, "uint16")])
def test_255_classes_fit_into_a_byte_beside_no_data(count: int, nodata: int, dtype: str) -> None:
    layer = label_layer(ClassMap.of([str(label) for label in range(count)]), {})
    assert (layer.nodata, layer.dtype) == (nodata, dtype)


def test_overviews_of_confidence_are_means(tmp_path: Path) -> None:
    values = np.full((1100, 1100), 40, np.uint8)
    values[::2] = 80
    path = tmp_path / "c.tif"
    with RasterWriter(path, measure_layer("confidence", {}), values.shape, crs="EPSG:32633", transform=DEGREES) as file:
        file.write(0, values)
    with rasterio.open(path) as raster:
        assert raster.overviews(1)[0] == 2
    with rasterio.open(path, overview_level=0) as half:
        assert (half.read(1) == 60).all()


def test_a_polygon_of_just_the_least_area_is_written(tmp_path: Path) -> None:
    labels = np.zeros((20, 20))
    labels[2:4, 2:4], labels[8:11, 8:11] = 1, 2
    path = a_map(tmp_path / "map.tif", labels, "EPSG:32633", Affine(2, 0, 500_000, 0, -2, 5_000_000))
    least = class_areas(path)[1].area_m2
    assert least == pytest.approx(16 / 0.9996**2, rel=1e-6)
    for limit, names in ((least * (1 - 1e-9), ["land", "road", "water"]), (least * (1 + 1e-9), ["land", "road"])):
        write_polygons(path, tmp_path / "p.gpkg", PolygonRules(minimum_area=limit))
        assert sorted(names_in(tmp_path / "p.gpkg")) == names
    one = sum(area.area_m2 or 0 for area in class_areas(a_map(tmp_path / "one.tif", np.zeros((4, 4)))))
    write_polygons(tmp_path / "one.tif", tmp_path / "p.gpkg", PolygonRules(minimum_area=one))
    assert names_in(tmp_path / "p.gpkg") == ["land"], "as large as the least"


@pytest.mark.parametrize(("crs", "wide"), [("EPSG:4326", math.cos(math.radians(50))), ("EPSG:32633", 1.0)])
def test_right_angles_are_those_of_the_ground(tmp_path: Path, crs: str, wide: float) -> None:
    """In degrees a pixel is as wide as the cosine of the latitude says; in metres as wide as it is."""
    path = write_tif(tmp_path / "a.tif", np.zeros((1, 80, 6), np.uint8), crs=crs, transform=DEGREES)
    with open_raster(path) as raster:
        plane = plane_of(raster)
    assert abs(plane.a / plane.e) == pytest.approx(wide)


def test_what_shows_through_a_little_is_data(tmp_path: Path) -> None:
    values = np.full((4, 6, 4), 90)
    values[..., 3] = np.array([0, 1, 60, 127, 128, 255])
    assert read_image(save_image(tmp_path / "a.png", values)).valid.tolist() == [[False, *[True] * 5]] * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image(tmp_path / "a.jpg", np.random.default_rng(1).integers(0, 255, (20, 30, 3)), exif=exif)
    size = (30, 20) if orientation > 4 else (20, 30)
    assert image_size(path) == read_image(path).values.shape[1:] == size


def test_a_file_that_changed_within_a_second_is_another(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8))
    told = set()
    for nanoseconds in (5, 6):
        os.utime(path, ns=(0, 10**18 + nanoseconds))
        told.add(Source.of(path).fingerprint())
    assert {when for _, _, when in told} == {10**18 + 5, 10**18 + 6}


def test_enlarged_between_the_pixels_and_shrunk_by_their_means(tmp_path: Path) -> None:
    values = np.zeros((1, 8, 8), np.float32)
    values[0, :, 4:] = 100
    values[0, 0, 0] = 64
    with open_raster(write_tif(tmp_path / "a.tif", values)) as raster:
        assert isinstance(raster, Raster)
        shrunk = raster.read_scaled((2, 2))
        np.testing.assert_allclose(shrunk[0], values[0].reshape(2, 4, 2, 4).mean(axis=(1, 3)))
        wide = raster.read_scaled((8, 32))[0, 4]
        assert (np.diff(wide) >= 0).all() and len(set(wide.tolist())) > 3, "rises in steps between two pixels"
        nearest = raster.read_scaled((8, 32), nearest=True)[0, 4]
        assert nearest.tolist() == [0.0] * 16 + [100.0] * 16


def test_shapes_that_only_touch_a_box_do_not_reach_into_it() -> None:
    sides = [(0, 0, 10, 10), (20, 10, 30, 20), (10, 20, 20, 30), (0, 12, 10, 15), (19, 19, 40, 40), (9, 9, 11, 11)]
    shapes = np.array([shapely.box(*side) for side in sides])
    assert reaching(shapes, Box(10, 10, 10, 10)).tolist() == [False] * 4 + [True] * 2


def test_pixels_get_the_label_of_a_polygon_by_their_centre_or_by_any_part() -> None:
    shapes = np.array([shapely.Polygon([(2.2, 1.3), (9.6, 3.1), (5.4, 8.7)]), shapely.box(7.6, 5.6, 11.4, 9.4)])
    box = Box(1, 2, 9, 11)
    rows, columns = np.mgrid[box.top : box.top + box.height, box.left : box.left + box.width]
    centres = np.full(rows.shape, 9)
    parts = centres.copy()
    for label, shape in enumerate(shapes):
        centres[shapely.contains_xy(shape, columns + 0.5, rows + 0.5)] = label
        cells = shapely.box(columns, rows, columns + 1, rows + 1)
        parts[shapely.area(shapely.intersection(cells, shape)) > 0] = label
    drawn, touched = (rasterise(shapes, np.arange(2), box, fill=9, touched=way) for way in (False, True))
    assert np.array_equal(drawn, centres) and np.array_equal(touched, parts) and (centres != parts).any()


@pytest.mark.parametrize(
    ("facts", "lossy"),
    [
        ({}, False),
        ({"COMPRESSION": "DEFLATE"}, False),
        ({"COMPRESSION": "YCbCr JPEG"}, True),
        ({"COMPRESSION": "LERC", "MAX_Z_ERROR": "0.5"}, False),  # whole numbers are kept
        ({"COMPRESSION": "LERC", "MAX_Z_ERROR": "1"}, True),
        ({"COMPRESSION": "WEBP", "COMPRESSION_REVERSIBILITY": "LOSSY"}, True),
        ({"COMPRESSION": "WEBP", "COMPRESSION_REVERSIBILITY": "LOSSLESS"}, False),
    ],
    ids=str,
)
def test_what_gdal_says_of_a_compression_tells_its_loss(facts: dict[str, str], lossy: bool) -> None:
    assert is_lossy(SimpleNamespace(driver="GTiff", tags=lambda ns: facts)) is lossy
    assert is_lossy(SimpleNamespace(driver="JPEG", tags=lambda ns: facts))


def test_a_block_of_more_than_a_gibibyte_is_refused() -> None:
    def asked(height: int, dtype: str) -> Any:
        names = SimpleNamespace(tags=lambda: {}, driver="GTiff", files=[], count=1)
        return SimpleNamespace(**vars(names), block_shapes=[(height, 2**15)], dtypes=[dtype])

    check_dataset(Source("a.tif"), asked(2**15, "uint8"))
    for height, dtype in ((2**15 + 1, "uint8"), (2**14 + 1, "uint16"), (2**12 + 1, "float64")):
        with pytest.raises(UnreadableImage, match="asks for a block of 1 GiB"):
            check_dataset(Source("a.tif"), asked(height, dtype))


def test_no_data_is_where_all_bands_hold_it_in_the_precision_that_they_are_stored_in() -> None:
    bands = np.array([[[0, 0, 5]], [[0, 7, 7]]], np.uint8)
    assert all_nodata(list(bands), [0.0, 0.0]).tolist() == [[True, False, False]]
    assert (
        all_nodata(list(bands), [0.0, 7.0]).tolist() == [[False, True, False]]
        and not all_nodata(list(bands), [0.0, None]).any()
    )
    stored = np.array([[-9999.9, 1.0, np.nan]], np.float32)
    assert equal(stored, -9999.9).tolist() == [[True, False, False]]
    assert equal(stored, math.nan).tolist() == [[False, False, True]] and not equal(stored, None).any()


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson"])
def test_polygons_whose_disk_is_gone_are_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="cannot be read again"):
        names_in(tmp_path / f"gone{suffix}")


def test_another_run_may_sweep_what_the_look_at_a_folder_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "touch", lambda path: None)  # made, and swept at once
    check_writable(tmp_path / "map.tif")
    assert not list(tmp_path.iterdir())
