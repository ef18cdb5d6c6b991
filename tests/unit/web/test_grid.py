"""Where tiles lie: against pyproj's and mercantile's formulas written out, and there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from regard.io.raster import Box
from regard.web.grid import HALF_EARTH, SIDE, Address, MercatorGrid, PixelGrid, Places, grid_of


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (257, 100), (3000, 1200)])
def test_pixel_tiles_halve_until_one_holds_all(size: tuple[int, int]) -> None:
    grid = PixelGrid(size)
    assert grid.step(grid.finest) == 1
    assert SIDE * grid.step(0) >= max(size) > (SIDE * grid.step(1) if grid.finest else 0)
    columns, rows = grid.places(grid.extent(Address(grid.finest, 1, 2)), (SIDE, SIDE))
    assert columns[5, 0] == 256.5 and rows[0, 5] == 512.5 and columns[0, 255] == 511.5


@pytest.mark.parametrize(("x", "y", "z"), [(0, 0, 0), (3, 5, 4), (8825, 5890, 14)])
def test_earth_tiles_have_the_usual_corners(x: int, y: int, z: int) -> None:
    """Longitude and latitude of a tile's corner as the OpenStreetMap wiki gives them."""
    grid = MercatorGrid((100, 100), CRS.from_epsg(4326), Affine(0.1, 0, 0, 0, -0.1, 10))
    left, top, _, _ = grid.extent(Address(z, x, y))
    assert left / HALF_EARTH * 180 == pytest.approx(x / 2**z * 360 - 180)
    expected = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**z))))
    assert math.degrees(math.atan(math.sinh(top / HALF_EARTH * math.pi))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("code", [4326, 3857, 32633, 3035])
def test_a_place_in_a_tile_is_the_pixel_that_lies_there(code: int) -> None:
    left, top, step = {4326: (12, 48, 1e-3), 3857: (1.3e6, 6e6, 50), 32633: (4e5, 5.3e6, 30), 3035: (4.5e6, 2.8e6, 30)}[
        code
    ]
    grid = grid_of((700, 900), CRS.from_epsg(code), Affine(step, 0, left, 0, -step, top))
    assert isinstance(grid, MercatorGrid)
    extent = grid.around(Box(0, 0, 700, 900))
    columns, rows = grid.places(extent, (40, 50))
    assert columns.min() < 30 and columns.max() > 870 and rows.min() < 30 and rows.max() > 670
    degrees = Transformer.from_crs(code, "EPSG:4326", always_xy=True)
    for down, across in ((0, 0), (20, 25), (39, 49)):
        x = extent[0] + (across + 0.5) / 50 * (extent[2] - extent[0])
        y = extent[1] + (down + 0.5) / 40 * (extent[3] - extent[1])
        longitude, latitude = degrees.transform(left + step * columns[down, across], top - step * rows[down, across])
        assert longitude == pytest.approx(x / HALF_EARTH * 180, abs=1e-6)
        assert latitude == pytest.approx(math.degrees(math.atan(math.sinh(y / HALF_EARTH * math.pi))), abs=1e-6)
    ratio = grid.step(grid.finest - 3) / grid.step(grid.finest)
    assert ratio == 8 and 0.5 < (columns[0, 1] - columns[0, 0]) * 50 / 900 < 2


def test_the_extent_of_a_curved_scene_is_that_of_rasterio() -> None:
    """All Europe: its northern edge reaches beyond both northern corners."""
    place, size = Affine(1000, 0, 2.5e6, 0, -1000, 5.4e6), (3900, 4000)
    grid = MercatorGrid(size, CRS.from_epsg(3035), place)
    west, south, east, north = transform_bounds("EPSG:3035", "EPSG:3857", 2.5e6, 1.5e6, 6.5e6, 5.4e6, densify_pts=500)
    assert grid.around(Box(0, 0, *size)) == pytest.approx((west, north, east, south), abs=2000)


@pytest.mark.parametrize(("zoom", "finest"), [(10.4, 10), (10.6, 11)])
def test_the_finest_zoom_is_the_nearest(zoom: float, finest: int) -> None:
    step = 2 * HALF_EARTH / SIDE / 2**zoom
    assert MercatorGrid((90, 90), CRS.from_epsg(3857), Affine(step, 0, 0, 0, -step, 0)).finest == finest


def test_what_lies_within_a_box() -> None:
    columns, rows = np.meshgrid([2.9, 3.0, 5.9, 6.0], [7.9, 8.0, 8.9, 9.0])
    inside, down, right = Places(columns, rows).within(Box(8, 3, 1, 3))
    assert (inside == np.outer([0, 1, 1, 0], [0, 1, 1, 0])).all()
    assert down.tolist() == [0, 0, 0, 0] and right.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')])
def test_without_a_place_on_earth_pixels_count(crs: CRS | None) -> None:
    assert isinstance(grid_of((10, 10), crs, Affine(2, 0, 5, 0, -2, 9)), PixelGrid)
