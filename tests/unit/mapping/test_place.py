"""Where a map lies is where its source lies, whatever says so: a transform, control points, RPCs, a world file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from regard.errors import ConfigError, SceneWarning
from regard.io.image import is_placed
from regard.mapping.batch import predict_many
from regard.mapping.predict import predict
from regard.mapping.sources import listed, targets_of
from regard.models import Segmenter
from regard.options import Outputs
from support import map_options, save_image, write_tif

SMALL: dict[str, Any] = {"tile": 64, "overlap": 0, "progress": False}
PIXELS = np.random.default_rng(9).integers(1, 250, (3, 40, 48), dtype=np.uint8)
WORLD = "0.5\n0\n0\n-0.5\n300000.25\n2779999.75\n"  # the centre of the first pixel
PLACE = Affine(0.5, 0, 300_000, 0, -0.5, 2_780_000)
POINTS = [GroundControlPoint(row, column, 55 + column / 100, 25 - row / 100) for row in (0, 40) for column in (0, 48)]
TERMS = [1.0, *[0.001] * 19]
SENSOR = RPC(50, 10, 25, 0.1, TERMS, TERMS, 20, 20, 55, 0.1, TERMS, TERMS, 24, 24, err_bias=1.0, err_rand=0.5)


def placed_by(path: Path, **how: Any) -> Path:
    write_tif(path, PIXELS, crs=None, transform=None)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        for name, value in how.items():
            setattr(file, name, value)
    return path


def points(file: Any) -> list[tuple[float, ...]]:
    return [(point.row, point.col, point.x, point.y) for point in file.gcps[0]]


def test_control_points_are_those_of_the_map(tiny_model: Segmenter, tmp_path: Path):
    path = placed_by(tmp_path / "scene.tif", gcps=(POINTS, rasterio.crs.CRS.from_epsg(4326)))
    predict(tiny_model, path, tmp_path / "map.tif", confidence=tmp_path / "conf.tif", **SMALL)
    for name in ("map.tif", "conf.tif"):
        with rasterio.open(tmp_path / name) as made:
            assert made.gcps[1].to_epsg() == 4326
            assert points(made) == [(point.row, point.col, point.x, point.y) for point in POINTS]


def test_control_points_without_a_crs_are_those_of_the_map(tiny_model: Segmenter, tmp_path: Path):
    path = placed_by(tmp_path / "scene.tif", gcps=(POINTS, rasterio.crs.CRS()))
    predict(tiny_model, path, tmp_path / "map.tif", **SMALL)
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(path) as source:
        assert points(made) == points(source) and len(points(made)) == 4 and not made.gcps[1]


def test_the_rpcs_are_those_of_the_map(tiny_model: Segmenter, tmp_path: Path):
    path = placed_by(tmp_path / "scene.tif", rpcs=SENSOR)
    predict(tiny_model, path, tmp_path / "map.tif", **SMALL)
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(path) as source:
        assert made.rpcs is not None and made.rpcs.to_gdal() == source.rpcs.to_gdal()


@pytest.mark.parametrize(
    ("how", "asked", "told"),
    [
        (
            {"gcps": (POINTS, rasterio.crs.CRS.from_epsg(4326))},
            {"areas": "a.csv"},
            "by 4 ground control points.*areas n",
        ),
        ({"rpcs": SENSOR}, {"polygons": "p.gpkg", "areas": "a.csv"}, "by RPCs.*polygons and areas need.*gdalwarp -rpc"),
        ({"rpcs": SENSOR}, {"gsd": 1.0}, "by RPCs.*gsd needs"),
    ],
)
def test_what_needs_a_grid_is_refused_with_the_command_that_makes_one(
    how: Any, asked: dict[str, Any], told: str, tiny_model: Segmenter, tmp_path: Path
):
    path = placed_by(tmp_path / "scene.tif", **how)
    files = {name: tmp_path / value if isinstance(value, str) else value for name, value in asked.items()}
    with pytest.raises(ConfigError, match=told):
        predict(tiny_model, path, tmp_path / "map.tif", **files, **SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def georeferenced(path: Path, world: str) -> Path:
    """A photograph with a world file and, in .aux.xml, a CRS, both as GDAL writes and reads them."""
    save_image(path, PIXELS.transpose(1, 2, 0))
    path.with_suffix(world).write_text(WORLD)
    wkt = rasterio.crs.CRS.from_epsg(32640).to_wkt()
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset><SRS>{wkt}</SRS></PAMDataset>")
    return path


@pytest.mark.parametrize(
    ("name", "world"), [("a.jpg", ".jgw"), ("a.jpg", ".wld"), ("a.jpeg", ".jgw"), ("a.png", ".pgw"), ("a.png", ".wld")]
)
def test_a_photograph_on_a_map_is_mapped_on_its_grid(name: str, world: str, tiny_model: Segmenter, tmp_path: Path):
    path = georeferenced(tmp_path / name, world)
    predict(tiny_model, path, tmp_path / "map.tif", **SMALL)
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(path) as source:
        assert made.crs.to_epsg() == 32640 and made.transform.almost_equals(PLACE, 1e-9)
        assert (made.crs, made.transform) == (source.crs, source.transform) and made.shape == source.shape
    found = predict(tiny_model, path, **SMALL)
    assert found.crs.to_epsg() == 32640 and found.transform.almost_equals(PLACE, 1e-9)


def test_another_world_file_makes_another_map(tiny_model: Segmenter, tmp_path: Path):
    path = georeferenced(tmp_path / "a.jpg", ".jgw")
    predict(tiny_model, path, tmp_path / "map.tif", **SMALL)
    path.with_suffix(".jgw").write_text(WORLD.replace("300000.25", "300010.25"))
    predict(tiny_model, path, tmp_path / "map.tif", overwrite=True, **SMALL)
    assert rasterio.open(tmp_path / "map.tif").transform.c == 300_010


def test_a_picture_of_it_is_told_to_leave_the_place_out(tiny_model: Segmenter, tmp_path: Path):
    path = georeferenced(tmp_path / "a.png", ".pgw")
    with pytest.warns(SceneWarning, match=r"place of a\.png .* name the map m\.tif"):
        predict(tiny_model, path, tmp_path / "m.png")
    other = save_image(tmp_path / "b.bmp", PIXELS.transpose(1, 2, 0))
    other.with_suffix(".bpw").write_text(WORLD)
    with pytest.warns(SceneWarning, match=r"gdal_translate b\.bmp b\.tif"):
        predict(tiny_model, other, tmp_path / "n.png")


def test_a_photograph_without_a_place_is_one_still(tiny_model: Segmenter, tmp_path: Path):
    path = save_image(tmp_path / "a.png", PIXELS.transpose(1, 2, 0))
    assert not is_placed(path)
    path.with_name("a.png.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MINIMUM">0</MDI></Metadata>'
        "</PAMRasterBand></PAMDataset>"
    )
    assert not is_placed(path)
    predict(tiny_model, path, tmp_path / "m.png")
    assert (tmp_path / "m.png").is_file()


def test_several_photographs_on_a_map_become_rasters(tmp_path: Path):
    georeferenced(tmp_path / "a.jpg", ".jgw")
    save_image(tmp_path / "b.jpg", PIXELS.transpose(1, 2, 0))
    targets = targets_of([str(tmp_path / "*.jpg")], Outputs(tmp_path / "maps"))
    assert [target.name for target in targets.values() if target] == ["a.tif", "b.png"]
    assert len(listed([str(tmp_path / "*.jpg")])) == 2
    facts = predict_many("dubai-s", [str(tmp_path / "*.jpg")], map_options(tmp_path / "maps", tile=64, overlap=0))
    assert rasterio.open(facts["files"][0]).crs.to_epsg() == 32640
