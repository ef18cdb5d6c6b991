"""Places on Earth of a scene's pixels, against pyproj and a published distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Geod, Transformer
from rasterio.transform import Affine

from regard.io.raster import open_raster
from regard.web.georeference import Placement
from support import write_tif


def placement(folder: Path, crs: Any, transform: Affine, size: tuple[int, int] = (60, 80)) -> Placement:
    path = write_tif(folder / "s.tif", np.ones((3, *size), np.uint8), crs=crs, transform=transform)
    with open_raster(path) as raster:
        return Placement(raster)


PLACES = {
    "UTM": ("EPSG:32645", Affine(10, 0, 331_000, 0, -10, 3_069_000)),
    "rotated": ("EPSG:32645", Affine(8, 6, 331_000, 6, -8, 3_069_000)),
    "across 180": ("EPSG:4326", Affine(0.1, 0, 176, 0, -0.1, -15)),
    "0 to 360": ("EPSG:4326", Affine(0.1, 0, 196, 0, -0.1, 40)),
    "at the pole": ("EPSG:3413", Affine(1000, 0, -40_000, 0, -1000, 30_000)),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_pixel_is_where_pyproj_says_and_is_found_again(tmp_path: Path, kind: str) -> None:
    crs, transform = PLACES[kind]
    place = placement(tmp_path, crs, transform)
    for column, row in ((0.5, 0.5), (40.25, 30.5), (79.5, 59.5)):
        longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
            *transform @ (column, row)
        )
        found = place.degrees(np.array([[column, row]]))[0]
        assert -180 <= found[0] < 180
        assert (found[0] - longitude + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)
        assert found[1] == pytest.approx(latitude)
        assert place.pixels(*map(float, found)) == pytest.approx((column, row), abs=1e-4)
    assert place.pixels(-100.0, 2.0) is None


def test_a_length_is_geodesic(tmp_path: Path) -> None:
    """One degree of the meridian at the equator is 110.574 km, of the equator 111.320 km (WGS 84)."""
    place = placement(tmp_path, "EPSG:4326", Affine(1, 0, 10, 0, -1, 1), (4, 4))
    assert place.measure(np.array([[0.0, 0.0], [0.0, 1.0]]))["metres"] == pytest.approx(110_574, abs=1)
    assert place.measure(np.array([[0.0, 1.0], [1.0, 1.0]]))["metres"] == pytest.approx(111_320, abs=1)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter([10, 11, 11, 10], [1, 1, 0, 0])
    assert place.measure(corners)["square_metres"] == pytest.approx(abs(area))


def test_without_a_place_on_earth_there_are_pixels_only(tmp_path: Path) -> None:
    assert placement(tmp_path, None, None).about() is None  # type: ignore[arg-type]
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    assert placement(tmp_path, local, Affine(1, 0, 5, 0, -1, 5)).about() is None


def test_the_page_knows_crs_and_pixel_size(tmp_path: Path) -> None:
    crs, transform = PLACES["UTM"]
    about = placement(tmp_path, crs, transform).about()
    assert about is not None and about["code"] == crs and about["transform"] == list(transform[:6])
    assert about["metres"] == pytest.approx(10, rel=1e-3) and not about["geographic"]
