"""Areas of classes against naive counts and against pyproj's geodesic polygons."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ClassMismatch
from regard.io.areas import class_areas, write_areas
from regard.io.cog_writer import RasterWriter, label_layer
from regard.io.ground import Ground
from regard.io.raster import Box, to_map

CLASSES = ClassMap.of(["land", "water, salt", "road"])
DEGREES = Affine(0.01, 0, 12.0, 0, -0.02, 62.0)


def a_map(
    path: Path,
    crs: str | None,
    transform: Affine | None,
    classes: ClassMap = CLASSES,
    size: tuple[int, int] = (40, 30),
) -> np.ndarray:
    labels = np.random.default_rng(3).integers(0, 3, size=size).astype(np.uint8)
    labels[:4, 5:] = 255
    with RasterWriter(path, label_layer(classes, {}), labels.shape, crs=crs, transform=transform) as writer:
        writer.write(0, labels)
    return labels


def geodesic_cell(row: int, column: int, transform: Affine) -> float:
    """A pixel's area by pyproj, its sides cut into many so that they follow the parallels."""
    cell = shapely.segmentize(shapely.box(column, row, column + 1, row + 1), 0.002)
    points = to_map(shapely.get_coordinates(cell), transform)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(points[:, 0], points[:, 1])
    return abs(area)


@pytest.mark.parametrize(
    "crs, transform",
    [
        ("EPSG:32633", Affine(0.5, 0.1, 5e5, 0.2, -0.5, 4e6)),
        ("EPSG:3857", Affine(300, 0, 9.52e6, 0, -300, 3.2e6)),
        ("EPSG:3413", Affine(3000, 0, -6e4, 0, -3000, 6e4)),
    ],
)
def test_in_a_projection_areas_are_the_sums_of_the_pixels(tmp_path: Path, crs: str, transform: Affine) -> None:
    labels = a_map(tmp_path / "map.tif", crs, transform)
    ground = Ground.of(rasterio.crs.CRS.from_string(crs), transform)
    assert ground is not None
    areas = ground.pixel_areas(Box(0, 0, *labels.shape))
    for row in class_areas(tmp_path / "map.tif"):
        own = labels == row.label
        assert (row.name, row.pixels) == (CLASSES.names[row.label], own.sum())
        assert row.area_m2 == pytest.approx(areas[own].sum(), rel=1e-5)
        assert row.hectares == pytest.approx(row.area_m2 / 10_000)
        assert row.share == pytest.approx(areas[own].sum() / areas[labels < 3].sum(), rel=1e-5)


def test_web_mercator_is_not_taken_for_the_ground(tmp_path: Path) -> None:
    """At the latitude of Banepa, 27.6 degrees, it shows areas 1.279 times as large as they are."""
    labels = a_map(tmp_path / "map.tif", "EPSG:3857", Affine(0.5, 0, 9.5204e6, 0, -0.5, 3.2e6))
    mapped = sum(row.hectares or 0 for row in class_areas(tmp_path / "map.tif"))
    assert (labels < 3).sum() * 0.25 / 10_000 / mapped == pytest.approx(1.279, abs=1e-3)


@pytest.mark.parametrize("transform", [DEGREES, DEGREES @ Affine.rotation(20)], ids=["north up", "rotated"])
def test_on_the_ellipsoid_pixels_shrink_towards_the_pole(tmp_path: Path, transform: Affine) -> None:
    labels = a_map(tmp_path / "map.tif", "EPSG:4326", transform, size=(9, 7))
    areas = class_areas(tmp_path / "map.tif")
    for row in areas:
        where = np.argwhere(labels == row.label)
        assert row.area_m2 == pytest.approx(sum(geodesic_cell(*map(int, at), transform) for at in where), rel=1e-6)
    assert sum(row.share for row in areas) == pytest.approx(1)


def test_the_whole_earth(tmp_path: Path) -> None:
    with RasterWriter(
        tmp_path / "earth.tif",
        label_layer(CLASSES, {}),
        (18, 36),
        crs="EPSG:4326",
        transform=Affine(10, 0, -180, 0, -10, 90),
    ) as writer:
        writer.write(0, np.ones((18, 36), np.uint8))
    areas = class_areas(tmp_path / "earth.tif")
    assert areas[1].area_m2 == pytest.approx(510_065_621.724e6, rel=1e-9)  # WGS 84 (GeographicLib's constant)
    assert [row.share for row in areas] == [0, 1, 0]


def test_a_sphere_has_its_own_area() -> None:
    ground = Ground.of(rasterio.crs.CRS.from_proj4("+proj=longlat +R=2"), Affine(1, 0, 0, 0, -1, 90))
    assert ground is not None and ground.pixel_areas(Box(0, 0, 180, 360)).sum() == pytest.approx(4 * np.pi * 4)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site grid",UNIT["metre",1]]'])
def test_without_a_place_on_earth_there_are_only_pixels(tmp_path: Path, crs: str | None) -> None:
    labels = a_map(tmp_path / "map.tif", crs, None if crs is None else Affine(0.5, 0, 0, 0, -0.5, 0))
    areas = class_areas(tmp_path / "map.tif")
    assert {(row.area_m2, row.hectares) for row in areas} == {(None, None)}
    assert [row.pixels for row in areas] == [(labels == label).sum() for label in range(3)]
    assert sum(row.share for row in areas) == pytest.approx(1)


def test_the_table_is_read_back(tmp_path: Path) -> None:
    a_map(tmp_path / "map.tif", "EPSG:4326", DEGREES)
    areas = class_areas(tmp_path / "map.tif")
    with write_areas(areas, tmp_path / "new" / "areas.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(CLASSES.names)
    assert [float(row["area_m2"]) for row in rows] == [area.area_m2 for area in areas]
    assert [float(row["share"]) for row in rows] == [round(area.share, 6) for area in areas]
    assert list(rows[0]) == ["class", "name", "pixels", "area_m2", "hectares", "share"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["areas.csv"]


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    a_map(tmp_path / "map.tif", "EPSG:4326", DEGREES, ClassMap.of(["a", "b"]))
    with pytest.raises(ClassMismatch, match="has the label 2, but 2 classes"):
        class_areas(tmp_path / "map.tif")


def test_a_map_of_nothing_has_no_shares(tmp_path: Path) -> None:
    with RasterWriter(
        tmp_path / "map.tif", label_layer(CLASSES, {}), (3, 3), crs="EPSG:32633", transform=DEGREES
    ) as writer:
        writer.write(0, np.full((3, 3), 255, np.uint8))
    assert {(row.pixels, row.area_m2, row.share) for row in class_areas(tmp_path / "map.tif")} == {(0, 0.0, 0.0)}
