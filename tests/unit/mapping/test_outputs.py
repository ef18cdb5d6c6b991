"""Polygons of a real map with patches chosen among, and whether they are made again."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.checkpoints.file import load
from regard.errors import ConfigError, OutputError
from regard.io.ground import ground_resolution
from regard.io.raster import open_raster
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import write_tif

VIEW = {"tile": 192, "overlap": 32}


@pytest.fixture(scope="module")
def globe() -> Segmenter:
    return load("globe-s")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mexico."""
    with rasterio.open(str(resources.files("regard") / "bundled/globe/americas_atlantic.tif")) as whole:
        window = Window(280, 540, 190, 150)
        place = {"transform": whole.transform @ Affine.translation(280, 540), "crs": whole.crs}
        return write_tif(tmp_path_factory.mktemp("globe") / "scene.tif", whole.read(window=window), **place)


def polygons_of(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    about, _, shapes, values = pyogrio.raw.read(path)
    return dict(zip(about["fields"], values, strict=True)), shapely.from_wkb(shapes)


def test_chosen_patches_of_a_real_map_fit_together(scene: Path, globe: Segmenter, tmp_path: Path) -> None:
    with open_raster(scene) as raster:
        metres = 1.5 * ground_resolution(raster)
    to, plain, smooth = tmp_path / "map.tif", tmp_path / "plain.gpkg", tmp_path / "smooth.gpkg"
    predict(globe, scene, to, polygons=plain, **VIEW)
    before = to.read_bytes()
    predict(globe, scene, to, polygons=smooth, sieve=12, simplify=metres, overwrite=True, **VIEW)
    with rasterio.open(to) as raster, rasterio.MemoryFile(before) as file, file.open() as unchanged:
        labels = raster.read(1)
        assert np.array_equal(labels, unchanged.read(1))
        sieved = rasterio.features.sieve(labels, 12, mask=labels != 255)
        cell = abs(raster.transform.determinant)
    columns, shapes = polygons_of(plain)
    for label in range(len(globe.classes)):
        expected = (labels == label).sum() * cell
        assert shapely.area(shapes[columns["class"] == label]).sum() == pytest.approx(expected, rel=1e-12)
    _, rounder = polygons_of(smooth)
    patches = sum(1 for _ in rasterio.features.shapes(sieved, labels != 255, connectivity=4))
    assert 5 < len(rounder) == patches < len(shapes)
    assert shapely.is_valid(rounder).all()
    assert shapely.coverage_is_valid(rounder)  # neighbours share every corner: no overlap, no gap between them
    assert shapely.area(rounder).sum() == pytest.approx(shapely.area(shapes).sum(), rel=1e-12)  # nor at the map's edge
    assert shapely.get_num_coordinates(rounder).sum() < 0.5 * shapely.get_num_coordinates(shapes).sum()


def test_other_patches_are_other_polygons(scene: Path, globe: Segmenter, tmp_path: Path) -> None:
    to, polygons = tmp_path / "map.tif", tmp_path / "map.gpkg"
    files = {"out": to, "polygons": polygons, **VIEW}
    predict(globe, scene, **files)
    made = polygons.stat().st_mtime_ns
    predict(globe, scene, **files)
    assert polygons.stat().st_mtime_ns == made
    with pytest.raises(OutputError, match="already exists"):
        predict(globe, scene, sieve=9, **files)
    os.utime(polygons, ns=(made, to.stat().st_mtime_ns - 1))  # of an earlier map, as a kill may leave them
    with pytest.raises(OutputError, match="already exists"):
        predict(globe, scene, **files)
    before = polygons_of(polygons)[0]["area_m2"]
    predict(globe, scene, minimum_area=1e9, overwrite=True, **files)
    kept = sorted(before[before >= 1e9])
    assert sorted(polygons_of(polygons)[0]["area_m2"]) == kept and 0 < len(kept) < len(before)


def test_impossible_patches_are_refused_before_the_work(scene: Path, globe: Segmenter, tmp_path: Path) -> None:
    to, polygons = tmp_path / "map.tif", tmp_path / "map.gpkg"
    with pytest.raises(ConfigError, match="Name their file"):
        predict(globe, scene, to, sieve=3)
    for name, value in {"sieve": -1, "minimum_area": -1.0, "simplify": -1.0}.items():
        with pytest.raises(ConfigError, match=f"{name} -1"):
            predict(globe, scene, to, polygons=polygons, **{name: value})
    nowhere = write_tif(tmp_path / "nowhere.tif", np.ones((3, 64, 64), np.uint8), crs=None, transform=None)
    for name in ("minimum_area", "simplify"):
        with pytest.raises(ConfigError, match=r"nowhere\.tif has no CRS"):
            predict(globe, nowhere, to, polygons=polygons, **{name: 1.0})
    assert not to.exists()
