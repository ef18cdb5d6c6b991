"""Polygons with right angles, held against the pixels that they were made from and against shapely."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio.features
import shapely
from PIL import Image
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ConfigError, UnknownName
from regard.io.cog_writer import RasterWriter, label_layer
from regard.io.polygons import write_polygons
from regard.io.right_angles import right_angled
from regard.options import PolygonRules

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared"))
MASKS = SHARED / "data" / "oam_buildings" / "masks"
CLASSES = ClassMap.of(["background", "building"])
PIXEL = 0.5
SQUARES = Affine(PIXEL, 0, 5e5, 0, -PIXEL, 5e6)
L_SHAPE = [(0, 0), (30, 0), (30, 12), (14, 12), (14, 26), (0, 26)]
COURT = shapely.Polygon([(0, 0), (30, 0), (30, 30), (0, 30)], [[(9, 9), (21, 9), (21, 21), (9, 21)]])
BUILDINGS = [shapely.Polygon(L_SHAPE), shapely.box(0, 0, 24, 14), shapely.box(0, 0, 11, 9), COURT]


def a_map(path: Path, labels: np.ndarray, crs: str = "EPSG:32633", transform: Affine = SQUARES) -> Path:
    with RasterWriter(path, label_layer(CLASSES, {}), labels.shape, crs=crs, transform=transform) as writer:
        writer.write(0, labels)
    return path


def town(seed: int = 0) -> np.ndarray:
    """Buildings in all directions, a pixel of noise at their borders."""
    rng, placed = np.random.default_rng(seed), []
    for number in range(24):
        turned = shapely.affinity.rotate(BUILDINGS[number % 4], rng.uniform(0, 90))
        placed.append(shapely.affinity.translate(turned, 15 + 45 * (number % 6), 15 + 48 * (number // 6)))
    labels = rasterio.features.rasterize(placed, (200, 290)).astype(np.uint8)
    border = labels != np.roll(labels, 1, 0)
    return np.where(border & (rng.random(labels.shape) < 0.3), 1 - labels, labels).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    return shapely.from_wkb(pyogrio.raw.read(path)[2])


def corners_of(shape: shapely.Polygon) -> np.ndarray:
    """The angles of all rings in degrees, modulo 180."""
    angles = []
    for ring in (shape.exterior, *shape.interiors):
        sides = np.diff(shapely.get_coordinates(ring), axis=0) @ [1, 1j]
        angles.append(np.degrees(np.angle(np.roll(sides, -1) / sides)) % 180)
    return np.concatenate(angles)


def overlap(shapes: np.ndarray) -> float:
    return shapely.area(shapes).sum() - shapely.union_all(shapes).area


def test_buildings_get_right_angles_and_keep_their_area(tmp_path: Path) -> None:
    labels = town()
    path = a_map(tmp_path / "map.tif", labels)
    rules = PolygonRules(sieve=9, only=("building",))
    write_polygons(path, tmp_path / "plain.gpkg", rules)
    write_polygons(path, tmp_path / "square.gpkg", PolygonRules(sieve=9, regularise=("building",)))
    plain, square = read(tmp_path / "plain.gpkg"), read(tmp_path / "square.gpkg")
    assert len(plain) == len(square) == 24 and shapely.is_valid(square).all()
    assert shapely.area(square) == pytest.approx(shapely.area(plain), rel=1e-6)
    for shape in square:
        assert corners_of(shape) == pytest.approx(90, abs=1e-4)
    assert shapely.get_num_coordinates(square).sum() < 0.2 * shapely.get_num_coordinates(plain).sum()
    both = shapely.area(shapely.intersection(plain, square))
    assert (both / (shapely.area(plain) + shapely.area(square) - both) >= 0.9).all()
    assert overlap(square) < 1e-6
    points = np.sort(shapely.get_num_coordinates(square))  # 5 of a rectangle, 7 of an L, 10 with a court
    assert points[: len(points) // 2].max() <= 7, "half are as simple as what was drawn"


@pytest.mark.skipif(not MASKS.is_dir(), reason="the shared data are not here")
def test_real_buildings_against_their_pixels(tmp_path: Path) -> None:
    tiles = [np.array(Image.open(path)) == 1 for path in sorted(MASKS.iterdir())[:4]]
    labels = np.block([tiles[:2], tiles[2:]]).astype(np.uint8)
    path = a_map(tmp_path / "map.tif", labels)
    write_polygons(path, tmp_path / "plain.gpkg", PolygonRules(only=("building",)))
    write_polygons(path, tmp_path / "square.gpkg", PolygonRules(regularise=("building",)))
    plain, square = read(tmp_path / "plain.gpkg"), read(tmp_path / "square.gpkg")
    assert len(plain) == len(square) > 20
    assert np.abs(shapely.area(square) / shapely.area(plain) - 1).max() <= 0.02
    assert shapely.is_valid(square).all() and overlap(square) < 1e-6
    burnt = rasterio.features.rasterize(square, labels.shape, transform=SQUARES)
    assert (burnt & labels).sum() / (burnt | labels).sum() >= 0.9
    changed = [not a.equals(b) for a, b in zip(plain, square, strict=True) if a.area > 100 * PIXEL**2]
    assert np.mean(changed) > 0.7


def test_neighbours_do_not_overlap() -> None:
    """Houses that touch at corners, or lie a pixel apart, in every direction."""
    for angle in (0, 20, 45):
        houses = [shapely.box(x, y, x + 12.4, y + 9.4) for x in (0, 13.4, 26.8) for y in (0, 10.4, 20.8)]
        turned = shapely.affinity.rotate(shapely.MultiPolygon(houses), angle, origin=(0, 0))
        labels = rasterio.features.rasterize([turned], (70, 70), transform=Affine.translation(-25, -5)).astype(np.uint8)
        found = [s for s, value in rasterio.features.shapes(labels, connectivity=4) if value]
        shapes = right_angled(np.array([shapely.geometry.shape(s) for s in found], object), Affine.scale(1, -1))
        assert overlap(shapes) < 1e-6 and shapely.is_valid(shapes).all()


def test_a_tooth_of_one_house_in_another_stays() -> None:
    """Both without the tooth, and with their areas, would overlap by 1.6 pixels."""
    tooth = [(30, 12), (26, 12), (26, 8), (30, 8)]
    left = shapely.Polygon([(0, 0), (30, 0), *tooth[::-1], (30, 20), (0, 20)])
    right = shapely.Polygon([(30, 4), (60, 4), (60, 16), (30, 16), *tooth])
    shapes = right_angled(np.array([left, right], object), Affine.scale(1, -1))
    assert overlap(shapes) == 0 and shapely.equals(shapes, [left, right]).all()


def test_in_degrees_angles_are_right_on_the_ground(tmp_path: Path) -> None:
    step = 5e-6
    pixel = Affine(step / np.cos(np.radians(60)), 0, 12.0, 0, -step, 60.0)
    labels = rasterio.features.rasterize(
        [shapely.affinity.translate(shapely.affinity.rotate(shapely.box(0, 0, 50, 25), 30), 20, 20)], (90, 90)
    )
    path = a_map(tmp_path / "map.tif", labels.astype(np.uint8), "EPSG:4326", pixel)
    write_polygons(path, tmp_path / "square.gpkg", PolygonRules(regularise=("building",)))
    change = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    (square,) = shapely.transform(read(tmp_path / "square.gpkg"), lambda xy: np.stack(change.transform(*xy.T), 1))
    assert len(square.exterior.coords) == 5 and corners_of(square) == pytest.approx(90, abs=0.3)


def test_classes_that_would_overlap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="road would overlap building"):
        PolygonRules(only=("building", "road"), regularise=("building",))
    path = a_map(tmp_path / "map.tif", town())
    with pytest.raises(UnknownName, match="Did you mean 'building'"):
        write_polygons(path, tmp_path / "map.gpkg", PolygonRules(regularise=("buildings",)))
    assert [path.name for path in tmp_path.glob("*map.gpkg*")] == []
