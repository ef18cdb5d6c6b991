"""Polygons as labels: drawn as gdal_rasterize draws them, split by ground, refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.polygon_scenes import blocks_for_val
from regard.errors import ClassMismatch, ConfigError, DatasetError, UnreadableImage
from regard.io.raster import Box
from support import write_tif

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared"))
LANDSAT = SHARED / "data" / "landsat7_nc"
CRS = "EPSG:32633"


def write_polygons(path: Path, shapes: list[Any], *, crs: str = CRS, **columns: list[Any]) -> Path:
    values = [np.array(column, dtype=object if isinstance(column[0], str) else None) for column in columns.values()]
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes)), values, list(columns), crs=crs, geometry_type="Polygon", driver="GPKG"
    )
    return path


def a_scene(place: Path, name: str = "scene", size: tuple[int, int] = (120, 160), count: int = 4) -> Path:
    values = np.random.default_rng(2).integers(1, 255, size=(count, *size), dtype=np.uint8)
    return write_tif(place / f"{name}.tif", values)


def some_polygons(count: int, size: tuple[int, int], seed: int) -> list[Any]:
    """Crooked polygons in the map's coordinates, some of them over the scene's edge and over each other."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        reach = rng.uniform(5, 25) * rng.uniform(0.5, 1, 7)
        x, y = rng.uniform(0, size[1]) + reach * np.cos(angles), rng.uniform(0, size[0]) + reach * np.sin(angles)
        made.append(shapely.Polygon(np.stack([500_000 + 10 * x, 5_000_000 - 10 * y], axis=1)))
    return made


def describe(place: Path, **told: Any) -> Path:
    path = place / "fields.json"
    path.write_text(json.dumps({"images": ["scene.tif"], "labels": "fields.gpkg", "column": "kind"} | told))
    return path


def whole(data: LabelledData, split: str, size: tuple[int, int]) -> np.ndarray:
    """The labels of a split on the whole scene, from its windows."""
    labels = np.full(size, data.classes.ignore_index)
    for pair in data.split(split):
        assert pair.box is not None
        top, left, height, width = pair.box
        labels[top : top + height, left : left + width] = data.read(pair).labels
    return labels


@pytest.mark.parametrize(("window", "touched"), [(32, False), (50, True), (1024, False)])
def test_windows_are_drawn_as_gdal_rasterize_draws_the_scene(tmp_path: Path, window: int, touched: bool):
    if shutil.which("gdal_rasterize") is None:
        pytest.skip("gdal_rasterize is not installed")
    size, kinds = (120, 160), ["oak", "ash", "elm"] * 8
    scene, shapes = a_scene(tmp_path, size=size), some_polygons(24, size, seed=window)
    codes = [["ash", "elm", "oak"].index(kind) for kind in kinds]
    write_polygons(tmp_path / "fields.gpkg", shapes, kind=kinds, code=codes, part=["train"] * 24)
    with rasterio.open(scene) as image:
        write_tif(tmp_path / "truth.tif", np.full((1, *image.shape), 255, np.uint8))
    burn = ["gdal_rasterize", "-q", "-a", "code", *(["-at"] if touched else [])]
    subprocess.run([*burn, tmp_path / "fields.gpkg", tmp_path / "truth.tif"], check=True)
    with rasterio.open(tmp_path / "truth.tif") as truth:
        expected = truth.read(1)
    data = folder(describe(tmp_path, window=window, split="part", touched=touched))
    assert data.classes.names == ("ash", "elm", "oak") and len(np.unique(expected)) == 4
    assert np.array_equal(whole(data, "train", size), expected)


@pytest.mark.skipif(not LANDSAT.is_dir(), reason="the shared data are not here")
def test_the_landsat_polygons_are_the_published_mask_and_no_polygon_is_in_two_splits(tmp_path: Path):
    classes = json.loads((LANDSAT / "classes.json").read_text())
    with rasterio.open(LANDSAT / "image.tif") as image, rasterio.open(LANDSAT / "mask.tif") as mask:
        crs, transform, published = image.crs.to_wkt(), image.transform, mask.read(1)
    features = json.loads((LANDSAT / "training_polygons.geojson").read_text())["features"]
    shapes = [shapely.from_geojson(json.dumps(one["geometry"])) for one in features]
    kinds = [one["properties"]["label"] for one in features]
    write_polygons(tmp_path / "fields.gpkg", shapes, crs=crs, kind=kinds)
    told = describe(tmp_path, images=[str(LANDSAT / "image.tif")], classes=classes["names"], touched=True)
    data = folder(told)
    (train,), (val,) = (data.split(split) for split in ("train", "val"))
    one, other = (pair.read_labels(data.classes) for pair in (train, val))
    assert not ((one != 255) & (other != 255)).any()
    assert np.array_equal(np.minimum(one, other), published)
    assert np.array_equal(data.read(val).labels == 255, (other == 255) | ~data.read(val).valid)
    burn = [(shape, number) for number, shape in enumerate(shapes)]
    numbers = rasterio.features.rasterize(burn, published.shape, fill=255, transform=transform)
    assert not set(numbers[one != 255]) & set(numbers[other != 255]) - {255}
    assert set(np.unique(one)) == {*range(7), 255} and set(np.unique(other)) == {0, 2, 3, 4, 5, 6, 255}
    assert data.band_names()[3] == "B4 NIR"


def test_polygons_in_another_crs_and_several_scenes(tmp_path: Path):
    a_scene(tmp_path)
    wide = {"transform": rasterio.Affine(20, 0, 500_000, 0, -20, 5_000_000)}
    write_tif(tmp_path / "coarse.tif", np.ones((4, 60, 80), np.uint8), **wide)
    shapes = [shapely.box(500_000 + 100 * i, 4_999_000, 500_060 + 100 * i, 4_999_500) for i in range(10)]
    kinds = ["a", "b"] * 5
    write_polygons(tmp_path / "plain.gpkg", shapes, kind=kinds)
    subprocess.run(
        ["ogr2ogr", "-q", "-t_srs", "EPSG:4326", tmp_path / "fields.gpkg", tmp_path / "plain.gpkg"], check=True
    ) if shutil.which("ogr2ogr") else pytest.skip("ogr2ogr is not installed")
    data = folder(describe(tmp_path, images=["scene.tif", "coarse.tif"]))
    pairs = [pair for split in data.splits.values() for pair in split]
    assert {pair.image.name for pair in pairs} == {"scene.tif", "coarse.tif"}
    labelled = {name: 0 for name in ("scene.tif", "coarse.tif")}
    for pair in pairs:
        labelled[pair.image.name] += int((data.read(pair).labels != 255).sum())
    assert labelled == {"scene.tif": 10 * 6 * 50, "coarse.tif": 10 * 3 * 25}
    ground = {split: set[int]() for split in data.splits}  # the scenes show the same: so do the splits
    for split, pairs in data.splits.items():
        for pair in pairs:
            columns = np.flatnonzero((data.read(pair).labels != 255).any(axis=0))
            ground[split] |= set((columns // (10 if pair.image.name == "scene.tif" else 5)).tolist())
    assert not ground["train"] & ground["val"] and ground["train"] | ground["val"] == set(range(10))


@given(
    arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(0, 100)),
    st.floats(0, 0.9),
)
def test_val_gets_its_share_and_leaves_each_class_something_to_learn(area: np.ndarray, share: float):
    area = np.where(area < 1, 0, area)
    val = blocks_for_val(area, share)
    total = area.sum(axis=0)
    for label in np.flatnonzero(total):
        rest, got = area[~val, label].sum(), area[val, label].sum()
        assert rest > 0
        if got < share * total[label]:  # then nothing more could be taken
            for block in np.flatnonzero(~val & (area[:, label] > 0)):
                left = area[~val].sum(axis=0) - area[block]
                assert ((left <= 1e-9 * total) & (area[block] > 0)).any()


def fields(place: Path, **columns: list[Any]) -> list[Any]:
    shapes = some_polygons(6, (120, 160), seed=1)
    a_scene(place)
    write_polygons(place / "fields.gpkg", shapes, **({"kind": ["a", "b"] * 3} | columns))
    return shapes


def test_a_value_that_is_missing_is_no_label(tmp_path: Path):
    fields(tmp_path, kind=[1.0, 2.0, float("nan")] * 2)
    data = folder(describe(tmp_path))
    assert data.classes.names == ("1", "2")


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        ({"column": "crop"}, ConfigError, "no column 'crop'; it has kind"),
        ({"classes": ["a", "c"]}, ClassMismatch, "3 polygons of 'b'; the classes are a, c"),
        ({"split": "kind"}, DatasetError, "column kind says 'a'; it may say train, val, test"),
        ({"labels": "lost.gpkg"}, UnreadableImage, r"lost\.gpkg does not exist"),
        ({"labels": "scene.tif"}, UnreadableImage, "cannot be read as vectors"),
        ({"images": []}, DatasetError, r"fields\.json: images: .*It needs"),
        ({"images": "scene.tif"}, DatasetError, r'images: Input should be a list in \[ \], got "scene\.tif"'),
        ({"gsd": -1}, DatasetError, r"gsd: Input should be greater than 0, got -1\."),
        ({"gdsd": 3}, DatasetError, r"no key 'gdsd'. Did you mean 'gsd'\?"),
        ({"colum": "x"}, DatasetError, r"no key 'colum'\. Did you mean 'column'\?"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, told: dict, kind: type[Exception], message: str):
    fields(tmp_path)
    with pytest.raises(kind, match=message):
        folder(describe(tmp_path, **told))


def test_polygons_elsewhere_and_wrong_coordinate_systems_are_refused(tmp_path: Path):
    shapes = fields(tmp_path)
    far = shapely.transform(np.array(shapes), lambda xy: xy + 50_000)
    (tmp_path / "fields.gpkg").unlink()
    write_polygons(tmp_path / "fields.gpkg", list(far), kind=["a", "b"] * 3)
    with pytest.raises(DatasetError, match=r"no polygon with a class on scene\.tif"):
        folder(describe(tmp_path))
    (tmp_path / "fields.gpkg").unlink()
    write_polygons(tmp_path / "fields.gpkg", shapes, crs="EPSG:4326", kind=["a", "b"] * 3)
    with pytest.raises(ConfigError, match=r"says that its CRS is EPSG:4326, but its coordinates .* ogr2ogr -a_srs"):
        folder(describe(tmp_path))


def test_pairs_are_told_apart(tmp_path: Path):
    """The loader keeps images by their pair: two windows must not be taken for one."""
    fields(tmp_path)
    data = folder(describe(tmp_path, window=40))
    pairs = [pair for split in data.splits.values() for pair in split]
    assert len(set(pairs)) == len(pairs) and all(isinstance(pair, Pair) and isinstance(pair.box, Box) for pair in pairs)
