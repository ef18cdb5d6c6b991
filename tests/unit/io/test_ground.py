"""Areas and lengths of pixels against pyproj's geodesic polygons and lines, in projections of every kind."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from regard.io.ground import Ground
from regard.io.raster import Box, to_map

WGS84 = pyproj.Geod(ellps="WGS84")
BANEPA = (85.52, 27.63)  # degrees
PLACES = [  # CRS, longitude and latitude of the upper left corner
    *[(crs, BANEPA) for crs in ("EPSG:3857", "EPSG:4326", "EPSG:32645", "EPSG:3395", "ESRI:54008")],
    ("EPSG:3857", (10.0, 69.6)),
    ("EPSG:4326", (10.0, 89.0)),
    ("EPSG:3413", (-45.0, 62.0)),
    ("EPSG:3413", (-45.0, 89.99)),  # the pole lies on it
    ("EPSG:32661", (30.0, 75.0)),
    ("EPSG:3035", (25.0, 60.0)),
    ("EPSG:32645", (97.0, 5.0)),  # ten degrees from the central meridian
    ("EPSG:32601", (180.0, 65.0)),  # on the antimeridian
    ("ESRI:54008", (170.0, 60.0)),
]


def placed(crs: str, at: tuple[float, float], side: float, angle: float = 0.0) -> Affine:
    """Pixels of ``side`` nominal metres that begin at a place."""
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(*at)
    size = np.degrees(side / 6_378_137) if crs == "EPSG:4326" else side
    return Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(size, -size)


def geodesic_area(crs: str, transform: Affine, row: int, column: int) -> float:
    points = to_map(
        shapely.get_coordinates(shapely.segmentize(shapely.box(column, row, column + 1, row + 1), 0.02)), transform
    )
    return abs(WGS84.polygon_area_perimeter(*to_degrees(crs, points))[0])


def to_degrees(crs: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(*points.T)


def ground_of(crs: str, transform: Affine) -> Ground:
    ground = Ground.of(rasterio.crs.CRS.from_string(crs), transform)
    assert ground is not None
    return ground


@pytest.mark.parametrize("side", [30.0, 3000.0])
@pytest.mark.parametrize("angle", [0, 25])
@pytest.mark.parametrize("crs, at", PLACES)
def test_a_pixel_has_its_geodesic_area(crs: str, at: tuple[float, float], angle: float, side: float) -> None:
    transform = placed(crs, at, side, angle)
    areas = ground_of(crs, transform).pixel_areas(Box(2, 3, 40, 33))
    assert areas.shape == (40, 33)
    for row, column in ((0, 0), (17, 8), (39, 32)):
        assert areas[row, column] == pytest.approx(geodesic_area(crs, transform, row + 2, column + 3), rel=1e-4)


@pytest.mark.parametrize("crs, at", PLACES)
def test_the_scale_is_interpolated_over_a_large_scene(crs: str, at: tuple[float, float]) -> None:
    transform = placed(crs, at, 100.0)
    areas = ground_of(crs, transform).pixel_areas(Box(0, 0, 32, 900))
    for row, column in ((0, 0), (16, 130), (31, 899)):
        assert areas[row, column] == pytest.approx(geodesic_area(crs, transform, row, column), rel=2e-5)


def test_web_mercator_is_28_percent_too_large_at_banepa() -> None:
    areas = ground_of("EPSG:3857", placed("EPSG:3857", BANEPA, 0.5)).pixel_areas(Box(0, 0, 1, 1))
    assert 0.25 / areas[0, 0] == pytest.approx(1.279, abs=1e-3)


def test_units_other_than_metres() -> None:
    """US survey feet; grads east of Paris."""
    feet = ground_of("EPSG:2264", Affine(2, 0, 1.5e6, 0, -2, 5.5e5)).pixel_areas(Box(0, 0, 1, 1))
    assert feet[0, 0] == pytest.approx(4 * 0.3048006096**2, rel=4e-4)
    grads = ground_of("EPSG:4807", Affine(0.001, 0, 0, 0, -0.001, 50)).pixel_areas(Box(0, 0, 1, 1))
    assert grads[0, 0] == pytest.approx(np.cos(np.pi / 4) * 100.1 * 100.0, rel=3e-3)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site grid",UNIT["metre",1]]', "EPSG:4978", "EPSG:5773"])
def test_a_crs_without_a_place_on_the_ellipsoid_gives_no_number(crs: str | None) -> None:
    given = None if crs is None else rasterio.crs.CRS.from_user_input(crs)
    assert Ground.of(given, Affine.scale(1, -1)) is None


def test_beyond_the_edge_of_the_earth_there_is_no_ground() -> None:
    disc = "+proj=laea +lat_0=90 +ellps=WGS84"  # 12,755 km around the pole
    areas = ground_of(disc, Affine(5e4, 0, 1.2e7, 0, -5e4, 0)).pixel_areas(Box(0, 0, 2, 40))
    assert areas[0, 0] == pytest.approx(25e8, rel=1e-3) and areas[0, -1] == 0
