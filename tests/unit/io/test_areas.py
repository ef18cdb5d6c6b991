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
from regard.io.areas import Ground, class_areas, to_map, write_areas
from regard.io.cog_writer import RasterWriter, label_layer

CLASSES = ClassMap.of(["land", "water, salt", "road"])
DEGREES = Affine(0.01, 0, 12.0, 0, -0.02, 62.0)


def a_map(path: Path, crs: str | None, transform: Affine | None, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    labels = np.random.default_rng(3).integers(0, 3, size=size).astype(np.uint8)
    labels[:4, 5:] = 255
    with RasterWriter(path, label_layer(CLASSES, {}), labels.shape, crs=crs, transform=transform) as writer:
        writer.write(0, labels)
    return labels


def geodesic_cell(row: int, column: int, transform: Affine) -> float:
    """A pixel's area by pyproj, its sides cut into many so that they follow the parallels."""
    cell = shapely.segmentize(shapely.box(column, row, column + 1, row + 1), 0.002)
    points = to_map(shapely.get_coordinates(cell), transform)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(points[:, 0], points[:, 1])
    return abs(area)


@pytest.mark.parametrize("unit, crs", [(1.0, "EPSG:32633"), (0.3048006096012192, "EPSG:2264")])
def test_on_a_plane_each_pixel_counts_the_same(tmp_path: Path, unit: float, crs: str) -> None:
    labels = a_map(tmp_path / "map.tif", crs, Affine(0.5, 0.1, 5e5, 0.2, -0.5, 4e6))
    for row in class_areas(tmp_path / "map.tif"):
        pixels = int((labels == row.label).sum())
        assert (row.name, row.pixels) == (CLASSES.names[row.label], pixels)
        assert row.area_m2 == pytest.approx(pixels * (0.5 * 0.5 + 0.1 * 0.2) * unit**2, rel=1e-12)
        assert row.hectares == pytest.approx(row.area_m2 / 10_000)
        assert row.share == pytest.approx(pixels / (labels < 3).sum())


@pytest.mark.parametrize("transform", [DEGREES, DEGREES @ Affine.rotation(20)], ids=["north up", "rotated"])
def test_on_the_ellipsoid_pixels_shrink_towards_the_pole(tmp_path: Path, transform: Affine) -> None:
    labels = a_map(tmp_path / "map.tif", "EPSG:4326", transform, (9, 7))
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
    ground = Ground(np.pi / 180, pyproj.Geod(a=2.0, b=2.0))
    cells = ground.cells(Affine(1, 0, 0, 0, -1, 90), 0, 180, 360)
    assert cells.shape == (180, 1) and cells.sum() * 360 == pytest.approx(4 * np.pi * 4)


def test_polygons_and_cells_measure_alike() -> None:
    ground = Ground.of(rasterio.crs.CRS.from_epsg(4326))
    assert ground is not None
    cells = ground.cells(DEGREES, 5, 3, 4)
    assert ground.area(np.array([shapely.box(0, 5, 4, 8)]), DEGREES) == pytest.approx(4 * cells.sum(), rel=1e-9)


def test_without_a_crs_there_are_only_pixels(tmp_path: Path) -> None:
    labels = a_map(tmp_path / "map.tif", None, None)
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
    a_map(tmp_path / "map.tif", "EPSG:4326", DEGREES)
    with pytest.raises(ClassMismatch, match="has the label 2, but 2 classes"):
        class_areas(tmp_path / "map.tif", ["a", "b"])


def test_a_map_of_nothing_has_no_shares(tmp_path: Path) -> None:
    with RasterWriter(
        tmp_path / "map.tif", label_layer(CLASSES, {}), (3, 3), crs="EPSG:32633", transform=DEGREES
    ) as writer:
        writer.write(0, np.full((3, 3), 255, np.uint8))
    assert {(row.pixels, row.area_m2, row.share) for row in class_areas(tmp_path / "map.tif")} == {(0, 0.0, 0.0)}
