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
import pyproj
import pytest
import rasterio
import rasterio.crs
import rasterio.features
import rasterio.vrt
import rasterio.warp
import rasterio.windows
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.transform import Affine

from regard.datasets.blocks import blocks_for_val, blocks_over, split_by_centres
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import ClassMismatch, ConfigError, DatasetError, UnreadableImage
from regard.io.extent import Grid
from regard.io.raster import Box
from support import write_tif

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared"))
LANDSAT = SHARED / "data" / "landsat7_nc"
BANEPA = SHARED / "data" / "banepa"
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
    change = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform
    degrees = [shapely.transform(shape, lambda xy: np.stack(change(*xy.T), axis=1)) for shape in shapes]
    write_polygons(tmp_path / "fields.gpkg", degrees, crs="EPSG:4326", kind=kinds)
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


def test_the_classes_of_fewest_blocks_choose_first() -> None:
    """One class is everywhere, one in the last two blocks, of which one holds enough of both."""
    assert blocks_for_val(np.array([[1, 0], [1, 0], [1, 1], [1, 1.0]]), 0.25).tolist() == [False, False, True, False]


def test_shares_of_val_are_of_ground_not_of_polygons() -> None:
    """Three blocks of 100: one polygon of 600, three of 100 each, one of 100."""
    boxes = [(0, 0, 30, 20), (110, 10, 120, 20), (130, 10, 140, 20), (150, 10, 160, 20), (210, 10, 220, 20)]
    shapes = shapely.box(*np.array(boxes, float).T)
    assert split_by_centres(shapes, np.zeros(5, int), 100, 0.3).tolist() == [False, True, True, True, False]


def test_ground_of_two_scenes_is_in_one_block() -> None:
    first = Grid(rasterio.crs.CRS.from_string(CRS), Affine(10, 0, 5e5, 0, -10, 5e6), (90, 120))
    moved = first._replace(transform=first.transform @ Affine.translation(40, 0))
    blocks = blocks_over([first, moved], 30)
    assert len(blocks) == 3 * 6 and shapely.union_all(blocks).area == pytest.approx(shapely.area(blocks).sum())


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
        ({"gsd": -1}, DatasetError, r"gsd: Input should be greater than or equal to 0.0001, got -1\."),
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


def burnt(shapes: list[Any], codes: list[int], size: tuple[int, int], *, fill: int) -> np.ndarray:
    """GDAL's labels of the whole scene."""
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    return rasterio.features.rasterize(zip(shapes, codes, strict=True), size, fill=fill, transform=place)


def both(data: LabelledData, size: tuple[int, int]) -> np.ndarray:
    """The labels of train and val on the whole scene; no pixel has one in both."""
    one, other = (whole(data, split, size) for split in ("train", "val"))
    assert not ((one != 255) & (other != 255)).any()
    assert (one != 255).any() and (other != 255).any()
    return np.minimum(one, other)


def an_extent(place: Path, kind: str, size: tuple[int, int]) -> tuple[Any, np.ndarray]:
    """What was labelled, in one of the forms that a description takes, and which pixels that are."""
    wide = (500_102, 4_998_998, 501_402, 4_999_801)  # between centres of pixels
    inside = burnt([shapely.box(*wide)], [1], size, fill=0) == 1
    if kind == "bounds":
        return {"bounds": wide, "crs": CRS}, inside
    if kind == "polygons":
        hole = shapely.box(500_300, 4_999_300, 500_500, 4_999_500)
        write_polygons(place / "extent.gpkg", [shapely.box(*wide).difference(hole)])
        return "extent.gpkg|layername=extent", inside & (burnt([hole], [1], size, fill=0) == 0)
    grid = {"transform": rasterio.Affine(20, 0, 500_000, 0, -20, 5_000_000), "nodata": 255}
    values = np.random.default_rng(4).choice(np.array([0, 1, 255], np.uint8), size=(1, size[0] // 2, size[1] // 2))
    write_tif(place / "extent.tif", values, **grid)
    return "extent.tif", (values[0] != 255).repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("gsd", [20.0, 7.0])
def test_an_extent_at_another_resolution(tmp_path: Path, gsd: float):
    size = (120, 160)
    a_scene(tmp_path, size=size, count=3)
    shapes = some_polygons(20, size, seed=3)
    write_polygons(tmp_path / "fields.gpkg", shapes)
    extent, _ = an_extent(tmp_path, "raster", size)
    told = {"column": [], "value": "tree", "background": "grass", "extent": extent, "gsd": gsd}
    data = folder(describe(tmp_path, **told))
    shape = tuple(round(length * 10 / gsd) for length in size)
    place = rasterio.Affine(1600 / shape[1], 0, 500_000, 0, -1200 / shape[0], 5_000_000)
    with rasterio.open(tmp_path / "extent.tif") as mask:
        known = np.full(shape, 255, np.uint8)
        grids = {"src_transform": mask.transform, "dst_transform": place, "src_crs": mask.crs, "dst_crs": mask.crs}
        rasterio.warp.reproject(mask.read(1), known, **grids)
    drawn = rasterio.features.rasterize(shapes, shape, transform=place)
    assert np.array_equal(both(data, shape), np.where(known != 255, drawn, 255))


@pytest.mark.parametrize("kind", ["bounds", "polygons", "raster"])
@pytest.mark.parametrize(("window", "block"), [(1024, 40), (33, None)])
def test_ground_without_a_polygon_is_background_within_the_extent(
    tmp_path: Path, kind: str, window: int, block: int | None
):
    size = (120, 160)
    a_scene(tmp_path, size=size)
    shapes = some_polygons(20, size, seed=window)
    write_polygons(tmp_path / "fields.gpkg", shapes)
    extent, labelled = an_extent(tmp_path, kind, size)
    told = {"column": [], "value": "building", "background": "other", "extent": extent, "block": block}
    data = folder(describe(tmp_path, window=window, **told))
    assert data.classes.names == ("other", "building")
    expected = np.where(labelled, burnt(shapes, [1] * 20, size, fill=0), 255)
    assert np.array_equal(both(data, size), expected) and set(np.unique(expected)) == {0, 1, 255}
    val, side = whole(data, "val", size), block or 20
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            cut = np.s_[top : top + side, left : left + side]
            assert np.array_equal(val[cut], expected[cut]) or (val[cut] == 255).all()  # a block is in one split
    for label in (0, 1):
        assert 0.2 < (val == label).sum() / (expected == label).sum() < 0.5
    for pairs in data.splits.values():
        assert all((pair.read_labels(data.classes) != 255).any() for pair in pairs)


def test_the_ground_of_scenes_of_other_grids_is_split_alike(tmp_path: Path):
    size = (120, 160)
    a_scene(tmp_path, size=size)
    with rasterio.open(tmp_path / "scene.tif") as scene, rasterio.vrt.WarpedVRT(scene, crs="EPSG:4326") as warped:
        grid = {"crs": warped.crs, "transform": warped.transform}
        write_tif(tmp_path / "degrees.tif", np.ones((4, *warped.shape), np.uint8), **grid)
    write_polygons(tmp_path / "fields.gpkg", some_polygons(20, size, seed=8))
    told = {"column": [], "value": "tree", "background": "grass", "images": ["scene.tif", "degrees.tif"]}
    data = folder(describe(tmp_path, **told))
    splits = []
    for name in ("scene", "degrees"):
        with rasterio.open(tmp_path / f"{name}.tif") as scene:
            labels = np.full(scene.shape, 255, np.uint8)
            for code, split in enumerate(("train", "val")):
                for pair in data.split(split):
                    if pair.image.stem == name:
                        labels[pair.read_labels(data.classes) != 255] = code
            splits.append(labels)
            profile = {"src_crs": scene.crs, "src_transform": scene.transform, "src_nodata": 255, "dst_nodata": 255}
    with rasterio.open(tmp_path / "scene.tif") as scene:
        there = np.full(size, 255, np.uint8)
        rasterio.warp.reproject(splits[1], there, dst_crs=scene.crs, dst_transform=scene.transform, **profile)
    known = (there != 255) & (splits[0] != 255)
    assert known.mean() > 0.97 and (there == splits[0])[known].mean() > 0.97  # but at the edges of blocks


def test_a_column_of_the_extent_gives_the_split_of_the_ground(tmp_path: Path):
    size = (120, 160)
    a_scene(tmp_path, size=size)
    shapes = some_polygons(20, size, seed=5)
    write_polygons(tmp_path / "fields.gpkg", shapes)
    parts = [shapely.box(500_000 + x, 4_998_900, 500_000 + x + 450, 4_999_900) for x in (0, 400, 1000)]
    write_polygons(tmp_path / "tiles.gpkg", parts, part=["train", "val", "test"])
    told = {"column": [], "value": "tree", "background": "grass", "extent": "tiles.gpkg", "split": "part"}
    data = folder(describe(tmp_path, **told))
    everywhere = burnt(shapes, [1] * 20, size, fill=0)
    parts[0] = parts[0].difference(parts[1])  # where both were named, the ground is not trained on
    for part, split in zip(parts, ("train", "val", "test"), strict=True):
        expected = np.where(burnt([part], [1], size, fill=0) == 1, everywhere, 255)
        assert np.array_equal(whole(data, split, size), expected)
    with pytest.raises(DatasetError, match=r"'extent' of polygons with the column 'part', or no 'split'"):
        folder(describe(tmp_path, **told | {"extent": None}))


@pytest.mark.parametrize("split", [None, "part"])
def test_where_polygons_of_two_splits_overlap_the_later_alone_counts(tmp_path: Path, split: str | None):
    size, kinds = (120, 160), ["oak", "ash", "elm"] * 8
    a_scene(tmp_path, size=size)
    shapes = some_polygons(24, size, seed=11)
    write_polygons(tmp_path / "fields.gpkg", shapes, kind=kinds, part=["train", "val"] * 12)
    expected = burnt(shapes, [["ash", "elm", "oak"].index(kind) for kind in kinds], size, fill=255)
    assert np.array_equal(both(folder(describe(tmp_path, split=split, window=64)), size), expected)


def test_values_of_several_columns_and_several_values_of_a_class(tmp_path: Path):
    size = (120, 160)
    a_scene(tmp_path, size=size)
    shapes = [shapely.box(500_000 + 100 * i, 4_999_000, 500_080 + 100 * i, 4_999_900) for i in range(8)]
    shapes[7] = shapely.box(500_640, 4_999_400, 500_790, 4_999_900)  # without a value, half over another
    building = np.array(["yes", "school", None, None, "", "yes", "ruins", None], object)
    amenity = np.array(["cafe", None, "pond", "fuel", "pond", None, None, None], object)
    path = tmp_path / "fields.gpkg"
    columns = ([building, amenity], ["building", "amenity"])
    pyogrio.raw.write(path, shapely.to_wkb(np.array(shapes)), *columns, crs=CRS, geometry_type="Polygon", driver="GPKG")
    classes = {"house": ["yes", "school"], "water": "pond", "else": ["*"]}
    told = {"column": ["building", "amenity"], "classes": classes, "background": "ground", "block": 10}
    data = folder(describe(tmp_path, **told))
    assert data.classes.names == ("ground", "house", "water", "else")
    expected = burnt([shapes[7], *shapes[:7]], [255, 1, 1, 2, 3, 2, 1, 3], size, fill=0)
    assert np.array_equal(both(data, size), expected)
    told["where"] = "building IS NOT NULL AND building <> '' OR amenity = 'pond'"
    other = {"geometry_type": "Polygon", "driver": "GPKG", "layer": "other", "crs": CRS}
    pyogrio.raw.write(path, shapely.to_wkb(np.array(shapes)), [], [], **other)
    with pytest.raises(ConfigError, match=r"2 layers \(fields, other\)\. Name one of them"):
        folder(describe(tmp_path, **told))
    told["layer"] = "fields"
    data = folder(describe(tmp_path, **told))
    expected = burnt([shapes[i] for i in (0, 1, 2, 4, 5, 6)], [1, 1, 2, 2, 1, 3], size, fill=0)
    assert np.array_equal(both(data, size), expected)
    del classes["else"]
    with pytest.raises(ClassMismatch, match="1 polygon of 'ruins'; the classes are ground, house, water"):
        folder(describe(tmp_path, **told))
    with pytest.raises(ConfigError, match=r"where 'buildin = 3' is not a condition; .* Columns: building, amenity"):
        folder(describe(tmp_path, **told | {"where": "buildin = 3"}))


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        ({"value": "tree"}, DatasetError, 'need either "column", .* or "value"'),
        ({"column": [], "value": "tree", "classes": ["a", "b"]}, DatasetError, "'tree' is not among the classes a"),
        ({"column": [], "value": "tree"}, ClassMismatch, '6 polygons of .tree. and no other class; .*"background"'),
        ({"classes": {"x": ["a"], "y": ["a", "b"]}}, DatasetError, "classes: 'a' stands twice"),
        ({"extent": [1, 2, 3, 4]}, DatasetError, r"extent: got \[1, 2, 3, 4\]; need a file, or .*\"crs\": "),
        ({"extent": {"bounds": [3, 2, 1, 4], "crs": CRS}}, DatasetError, "extent: got .*; need a file"),
        ({"extent": {"bounds": [1, 2, 3, 4], "crs": "EPSG:0"}}, DatasetError, "extent: got .*; need a file"),
        ({"extent": "bare.tif", "background": "c"}, ConfigError, r"bare\.tif says of no pixel that it is unlabelled"),
        ({"layer": "roads"}, ConfigError, r"fields\.gpkg has no layer 'roads'; it has fields\."),
        (
            {"extent": {"bounds": [1, 2, 3, 4], "crs": CRS}, "background": "c"},
            DatasetError,
            "nothing is labelled on the scenes",
        ),
    ],
)
def test_a_description_of_background_and_extent_is_refused_with_what_it_needs(
    tmp_path: Path, told: dict, kind: type[Exception], message: str
):
    fields(tmp_path)
    write_tif(tmp_path / "bare.tif", np.ones((1, 120, 160), np.uint8))
    with pytest.raises(kind, match=message):
        folder(describe(tmp_path, **told))


def test_a_vector_file_alone_leads_to_a_description(tmp_path: Path):
    fields(tmp_path)
    with pytest.raises(DatasetError, match=r'fields\.gpkg has polygons but no scene\. .*"labels": "fields\.gpkg"'):
        folder(tmp_path / "fields.gpkg")
    (tmp_path / "osm.json").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DatasetError, match=r'osm\.json has polygons but no scene\. .*"background": "other"'):
        folder(tmp_path / "osm.json")
    with pytest.raises(DatasetError, match=r"no\.json does not exist"):
        folder(tmp_path / "no.json")


@pytest.mark.skipif(not BANEPA.is_dir(), reason="the shared data are not here")
def test_footprints_of_osm_are_the_published_mask(tmp_path: Path):
    with rasterio.open(BANEPA / "scene_mask.tif") as mask:
        rows = np.flatnonzero((mask.read(1, out_shape=(mask.height // 64, mask.width // 64)) != 255).any(axis=1)) * 64
        window = rasterio.windows.Window(0, int(rows[0]), mask.width, 1024)
        truth, place, crs = (
            mask.read(1, window=window),
            mask.transform @ rasterio.Affine.translation(0, int(rows[0])),
            mask.crs,
        )
    columns = np.flatnonzero((truth != 255).any(axis=0))
    cut = slice(columns[0], columns[0] + 1500)
    truth, grid = truth[:, cut], {"crs": crs, "transform": place @ rasterio.Affine.translation(columns[0], 0)}
    write_tif(tmp_path / "scene.tif", np.ones((3, *truth.shape), np.uint8), **grid)
    write_tif(tmp_path / "mask.tif", truth[None], **grid, nodata=255)
    told = {"labels": str(BANEPA / "osm_banepa.geojson"), "column": [], "value": "building", "background": "other"}
    data = folder(describe(tmp_path, **told, extent="mask.tif"))
    assert np.array_equal(both(data, truth.shape), truth) and (truth == 1).sum() > 50_000
