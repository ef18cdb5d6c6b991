"""A finished map against a mask, a scene's mask and polygons: as scikit-learn counts, pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.transform import Affine
from sklearn.metrics import confusion_matrix as reference_matrix

from regard.classes import ClassMap
from regard.cli import main
from regard.errors import ClassMismatch, ConfigError, DatasetError
from regard.evaluation.finished import _same_grid, evaluate_map
from regard.io.cog_writer import RasterWriter, label_layer
from regard.io.raster import open_raster
from support import write_tif

CLASSES = ClassMap.of(["other", "building"])
FINER = ClassMap.of(["house", "shed", "land"])
SIZE = (96, 128)
PLACE = Affine(2, 0, 500_000, 0, -2, 5_000_000)
RNG = np.random.default_rng(6)
QUIET: dict[str, Any] = {"progress": False}


def write_map(path: Path, labels: np.ndarray, classes: ClassMap = CLASSES, **place: Any) -> Path:
    where = {"crs": "EPSG:32633", "transform": PLACE} | place
    with RasterWriter(path, label_layer(classes, {}), labels.shape, **where) as writer:
        writer.write(0, labels)
    return path


@pytest.fixture
def labels() -> np.ndarray:
    """A map's labels with a corner of no data."""
    found = RNG.integers(0, 2, SIZE).astype(np.uint8)
    found[:10, :20] = 255
    return found


def truth() -> np.ndarray:
    found = RNG.integers(0, 2, SIZE).astype(np.uint8)
    found[50:60] = 255
    return found


def counted(true: np.ndarray, made: np.ndarray) -> np.ndarray:
    known = (true != 255) & (made != 255)
    return reference_matrix(true[known], made[known], labels=[0, 1])


def test_a_mask_on_its_grid(labels: np.ndarray, tmp_path: Path):
    path, true = write_map(tmp_path / "map.tif", labels), truth()
    mask = write_tif(tmp_path / "mask.tif", true[None], transform=PLACE)
    scores, unmapped = evaluate_map(path, mask, **QUIET)
    np.testing.assert_array_equal(scores.confusion, counted(true, labels))
    assert unmapped == pytest.approx((labels[true != 255] == 255).mean()) and unmapped > 0.01
    elsewhere = write_tif(tmp_path / "shifted.tif", true[None], transform=PLACE @ Affine.translation(1, 0))
    with pytest.raises(DatasetError, match=r"0 of 1 image lie on the grid of map\.tif"):
        evaluate_map(path, elsewhere, **QUIET)
    with pytest.raises(DatasetError, match="0 of 1 image"):
        evaluate_map(path, write_tif(tmp_path / "utm34.tif", true[None], crs="EPSG:32634", transform=PLACE), **QUIET)
    with pytest.raises(DatasetError, match="0 of 1 image"):
        evaluate_map(path, write_tif(tmp_path / "small.tif", true[None, :-1], transform=PLACE), **QUIET)


def test_other_classes_by_a_map_of_names(tmp_path: Path):
    made, true = RNG.integers(0, 3, SIZE).astype(np.uint8), truth()
    path = write_map(tmp_path / "map.tif", made, FINER)
    mask = write_tif(tmp_path / "mask.tif", true[None], transform=PLACE)
    (tmp_path / "classes.json").write_text(json.dumps({"names": CLASSES.names}))
    with pytest.raises(ClassMismatch, match="2 classes"):
        evaluate_map(path, mask, **QUIET)
    scores, unmapped = evaluate_map(path, mask, map={"land": "other", "*": "building"}, **QUIET)
    np.testing.assert_array_equal(scores.confusion, counted(true, np.array([1, 1, 0])[made]))
    assert scores.classes.names == CLASSES.names and unmapped == 0


def test_a_scene_with_a_mask_by_split(labels: np.ndarray, tmp_path: Path):
    true = np.tile(truth(), (10, 8))
    made = np.tile(labels, (10, 8))
    codes = np.ones_like(true)
    codes[:450] = 0
    root = tmp_path / "scene"
    for name, values in (("image", np.stack([true] * 3)), ("mask", true[None]), ("split", codes[None])):
        write_tif(root / f"{name}.tif", values, transform=PLACE, photometric="minisblack")
    (root / "classes.json").write_text(json.dumps({"names": CLASSES.names}))
    path = write_map(tmp_path / "map.tif", made)
    scores, _ = evaluate_map(path, root, **QUIET)
    np.testing.assert_array_equal(scores.confusion, counted(true[450:], made[450:]))
    scores, _ = evaluate_map(path, root, split="all", **QUIET)
    np.testing.assert_array_equal(scores.confusion, counted(true, made))


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A scene with polygons of buildings; the rest of it is ground."""
    write_tif(tmp_path / "scene.tif", RNG.integers(0, 255, (3, *SIZE), dtype=np.uint8), transform=PLACE)
    shapes = [shapely.box(500_000 + 2 * x, 5_000_000 - 2 * y - 30, 500_000 + 2 * x + 40, 5_000_000 - 2 * y)
              for x, y in ((5.3, 7.3), (60.3, 40.3), (90.3, 70.3))]  # fmt: skip
    wkb = np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object)
    fields = {"geometry_type": "Polygon", "crs": "EPSG:32633", "fields": ["kind"]}
    pyogrio.raw.write(tmp_path / "roofs.gpkg", wkb, [np.array(["building"] * 3, dtype=object)], **fields)
    facts = {"images": ["scene.tif"], "labels": "roofs.gpkg", "column": "kind", "background": "other", "val": 0.0}
    (tmp_path / "data.json").write_text(json.dumps(facts))
    return tmp_path / "data.json"


def drawn(shapes: list[shapely.Geometry], shape: tuple[int, int], place: Affine) -> np.ndarray:
    return rasterio.features.rasterize([(one, 1) for one in shapes], shape, transform=place)


def roofs(described: Path) -> list[shapely.Geometry]:
    return list(shapely.from_wkb(pyogrio.raw.read(described.with_name("roofs.gpkg"))[2]))


def test_polygons_of_one_thing_and_the_ground(described: Path, labels: np.ndarray, tmp_path: Path):
    path = write_map(tmp_path / "map.tif", labels)
    scores, _ = evaluate_map(path, described, split="all", **QUIET)
    names = scores.classes.names
    order = [names.index("other"), names.index("building")]
    true = drawn(roofs(described), SIZE, PLACE)
    np.testing.assert_array_equal(scores.confusion[np.ix_(order, order)], counted(true, labels))
    assert scores.confusion.sum() == (labels != 255).sum()


def test_labels_at_another_resolution_meet_the_nearest_pixel_of_the_map(described: Path, tmp_path: Path):
    facts = json.loads(described.read_text())
    described.write_text(json.dumps({**facts, "gsd": 4.0}))
    coarse = RNG.integers(0, 2, (48, 64)).astype(np.uint8)
    path = write_map(tmp_path / "map.tif", np.kron(coarse, np.ones((2, 2), np.uint8)))
    scores, _ = evaluate_map(path, described, split="all", **QUIET)
    order = [scores.classes.names.index(name) for name in CLASSES.names]
    true = drawn(roofs(described), (48, 64), PLACE @ Affine.scale(2))
    np.testing.assert_array_equal(scores.confusion[np.ix_(order, order)], counted(true, coarse))


def test_what_cannot_be_compared_is_told(labels: np.ndarray, described: Path, set_folder: Path, tmp_path: Path):
    path = write_map(tmp_path / "map.tif", labels)
    with pytest.raises(ConfigError, match=r'roofs\.gpkg: .*"labels": "roofs\.gpkg"'):
        evaluate_map(path, described.with_name("roofs.gpkg"), **QUIET)
    bare = write_map(tmp_path / "bare.tif", np.zeros((40, 48), np.uint8), crs=None, transform=None)
    with pytest.raises(DatasetError, match="2 of 2 images lie on the grid"):
        evaluate_map(bare, set_folder, **QUIET)
    nothing = write_tif(tmp_path / "none.tif", np.full((1, *SIZE), 255, np.uint8), transform=PLACE)
    with pytest.raises(DatasetError, match=r"no labelled pixel .* is mapped in map\.tif"):
        evaluate_map(path, nothing, **QUIET)
    with pytest.raises(ClassMismatch, match="does not say which classes"):
        evaluate_map(nothing, nothing, **QUIET)


def test_the_command(labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, true = write_map(tmp_path / "map.tif", labels), truth()
    words = ["evaluate", str(path), str(write_tif(tmp_path / "mask.tif", true[None], transform=PLACE)), "--no-progress"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json", "--save", str(tmp_path / "scores.json")])
    facts = json.loads(capsys.readouterr().out)
    assert end.value.code == 0 and facts["confusion"] == counted(true, labels).tolist() and facts["unmapped"] > 0
    assert json.loads((tmp_path / "scores.json").read_text())["miou"] == facts["miou"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--flip"])
    assert end.value.code == 2 and "is a finished map" in capsys.readouterr().err


@pytest.mark.parametrize(("off", "same"), [(0.0, True), (0.09, True), (0.11, False), (1.0, False)])
def test_a_corner_may_be_a_tenth_of_a_pixel_off(off: float, same: bool, tmp_path: Path):
    """Also where the two grids begin alike and their pixels differ in size."""
    made = write_map(tmp_path / "map.tif", np.zeros(SIZE, np.uint8))
    places = [PLACE @ Affine.translation(off, 0), PLACE @ Affine.scale(1 + off / SIZE[1], 1)]
    for number, place in enumerate(places):
        image = write_tif(tmp_path / f"{number}.tif", np.zeros((1, *SIZE), np.uint8), transform=place)
        with open_raster(made) as raster:
            assert _same_grid(raster, image) is same
    other = write_tif(tmp_path / "other.tif", np.zeros((1, *SIZE), np.uint8), transform=PLACE, crs="EPSG:32634")
    with open_raster(made) as raster:
        assert not _same_grid(raster, other)
