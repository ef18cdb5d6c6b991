"""Footprints of rasters all over the Earth: valid, holding every pixel's centre, with the box that pyproj gives."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from regard.io.footprint import footprint
from regard.io.raster import open_raster

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared"))
CASES = SHARED / "cases" / "stac_footprint"
MERCATOR = 20_037_508.342789244
MARS = 'GEOGCS["M",DATUM["M",SPHEROID["M",3396190,169.89]],PRIMEM["M",0],UNIT["Degree",0.0174532925199433]]'
WHOLE = (-180, -90, 180, 90)

# name: CRS, transform, size, and what of the box is known by hand (west, south, east, north)
PLACES: dict[str, tuple[str, Affine, tuple[int, int], tuple[float | None, ...]]] = {
    "0 to 360": ("EPSG:4326", Affine(10, 0, 0, 0, -10, 90), (18, 36), WHOLE),
    "centres on the poles": ("EPSG:4326", Affine(10, 0, -185, 0, -10, 95), (19, 36), WHOLE),
    "a column twice": ("EPSG:4326", Affine(10, 0, -5, 0, -10, 95), (19, 37), WHOLE),
    "south up": ("EPSG:4326", Affine(1, 0, 10, 0, 1, -10), (10, 20), (10, -10, 30, 0)),
    "170 to 190": ("EPSG:4326", Affine(1, 0, 170, 0, -1, 10), (10, 20), (170, 0, -170, 10)),
    "-190 to -170": ("EPSG:4326", Affine(1, 0, -190, 0, -1, 10), (10, 20), (170, 0, -170, 10)),
    "190 to 200": ("EPSG:4326", Affine(1, 0, 190, 0, -1, 10), (10, 10), (-170, 0, -160, 10)),
    "from 180": ("EPSG:4326", Affine(1, 0, 180, 0, -1, 10), (10, 10), (-180, 0, -170, 10)),
    "to 180": ("EPSG:4326", Affine(1, 0, 170, 0, -1, 10), (10, 10), (170, 0, 180, 10)),
    "web mercator": (
        "EPSG:3857",
        Affine(MERCATOR / 32, 0, -MERCATOR, 0, -MERCATOR / 32, MERCATOR),
        (64, 64),
        (-180, None, 180, None),
    ),
    "beyond web mercator": ("EPSG:3857", Affine(1e3, 0, MERCATOR - 2e4, 0, -1e3, 2e6), (40, 40), (None,) * 4),
    "centred on 150": ("EPSG:3832", Affine(1e5, 0, -1.5e7, 0, -1e5, 1e7), (200, 300), (None,) * 4),
    "UTM across 180": ("EPSG:32601", Affine(1e3, 0, 280_000, 0, -1e3, 6e6), (70, 90), (None,) * 4),
    "north pole": ("EPSG:3413", Affine(1e5, 0, -3.85e6, 0, -1e5, 5.85e6), (112, 76), (-180, None, 180, 90)),
    "south pole": ("EPSG:3031", Affine(1e5, 0, -3.95e6, 0, -1e5, 4.35e6), (83, 79), (-180, -90, 180, None)),
    "a corner at the pole": ("EPSG:3413", Affine(1e3, 0, 0, 0, -1e3, 0), (90, 90), (-45, None, 45, 90)),
    "a side at the pole": ("EPSG:3413", Affine(1e3, 0, -5e4, 0, -1e3, 0), (90, 100), (-135, None, 45, 90)),
    "a side beyond the pole": ("EPSG:3413", Affine(1e3, 0, -5e4, 0, -1e3, 10), (90, 100), (-180, None, 180, 90)),
    "a side before the pole": ("EPSG:3413", Affine(1e3, 0, -5e4, 0, -1e3, -10), (90, 100), (None, None, None, 90)),
    "half the Earth": ("EPSG:6931", Affine(1e5, 0, -9e6, 0, -1e5, 9e6), (180, 180), (-180, None, 180, 90)),
    "all but a pixel": (
        "EPSG:6933",
        Affine(72_064, 0, -17_367_530, 0, -72_064, 7e6),
        (194, 482),
        (-180, None, 180, None),
    ),
    "rotated": (
        "EPSG:32660",
        Affine.translation(8.2e5, 5e6) @ Affine.rotation(30) @ Affine.scale(1e3, -1e3),
        (50, 90),
        (None,) * 4,
    ),
    "with heights": ("EPSG:5555", Affine(10, 0, 5e5, 0, -10, 5.7e6), (30, 30), (None,) * 4),
    "a centimetre a pixel": ("EPSG:32633", Affine(0.01, 0, 5e5, 0, -0.01, 5e6), (60, 60), (None,) * 4),
}  # fmt: skip


def a_raster(path: Path, crs: str | None, transform: Affine, size: tuple[int, int]) -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": size[0], "width": size[1], "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, sparse_ok=True):
        return path


def check(path: Path) -> list[float]:
    """The box, after every pixel's centre was looked for in the geometry and in the box."""
    with open_raster(path) as raster:
        found, size, transform = footprint(raster), raster.size, raster.transform
        crs = pyproj.CRS.from_wkt(raster.crs.to_wkt()).to_2d()
    shape = shapely.geometry.shape(json.loads(json.dumps(found["geometry"])))
    assert shape.is_valid and shape.geom_type in ("Polygon", "MultiPolygon")
    assert all(shapely.is_ccw(part.exterior) for part in shapely.get_parts(shape))
    columns, rows = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    x, y = transform @ (columns.ravel(), rows.ravel())
    longitude, latitude = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    longitude, latitude = (longitude + 180) % 360 - 180, latitude.clip(-90, 90)
    assert shapely.intersects_xy(shape, longitude, latitude).all()
    west, south, east, north = found["bbox"]
    beside = (longitude >= west) & (longitude <= east) if west < east else (longitude >= west) | (longitude <= east)
    assert (beside & (latitude >= south) & (latitude <= north)).all()
    far = max(np.ptp(np.unwrap(longitude, period=360)), np.ptp(latitude)) / 4  # the box holds little else
    assert north - south <= np.ptp(latitude) + far
    return found["bbox"]


@pytest.mark.parametrize("name", PLACES)
def test_every_pixel_lies_in_the_footprint(tmp_path: Path, name: str) -> None:
    crs, transform, size, known = PLACES[name]
    box = check(a_raster(tmp_path / "scene.tif", crs, transform, size))
    expected = [value if right is None else right for value, right in zip(box, known, strict=True)]
    assert box == pytest.approx(expected, abs=5e-3)


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    "name, right",
    [
        ("across_180_epsg3832", (179.982, 17.76, -179.982, 17.79)),
        ("east_of_180_epsg3857", (179.8, None, -179.8, None)),
        ("global_0_360", WHOLE),
        ("global_cell_centred", WHOLE),
    ],
)
def test_the_shared_cases(name: str, right: tuple[float | None, ...]) -> None:
    box = check(CASES / f"{name}.tif")
    assert box == pytest.approx([b if r is None else r for b, r in zip(box, right, strict=True)], abs=0.03)
    assert (box[0] > box[2]) == (right[0] is not None and right[2] is not None and right[0] > right[2])


@pytest.mark.parametrize(
    "crs",
    [None, MARS, 'LOCAL_CS["site",UNIT["metre",1]]', "EPSG:4978", "+proj=geos +h=35786023 +lon_0=-75 +sweep=x"],
    ids=["none", "Mars", "local", "geocentric", "corners in space"],
)
def test_what_has_no_place_has_no_footprint(tmp_path: Path, crs: str | None) -> None:
    transform = Affine(5e5, 0, -5.5e6, 0, -5e5, 5.5e6) if crs and "geos" in crs else Affine(0.5, 0, 10, 0, -0.5, 7)
    with open_raster(a_raster(tmp_path / "scene.tif", crs, transform, (22, 22))) as raster:
        assert footprint(raster) == {"geometry": None}


def test_few_points_hold_a_large_scene(tmp_path: Path) -> None:
    path = a_raster(tmp_path / "scene.tif", "EPSG:32633", Affine(10, 0, 3e5, 0, -10, 8e6), (10_980, 10_980))
    with open_raster(path) as raster:
        shape = shapely.geometry.shape(footprint(raster)["geometry"])
    assert shapely.get_num_coordinates(shape) < 200
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)
    assert area == pytest.approx(109_800**2, rel=2e-3)
