"""Labels of a vector file as pixels, against what rasterio draws, and each fault of such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio.features
import shapely
from support_refine import SIZE, on_map, squares, write_labels, write_scene

from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, RegardError, UnreadableImage
from regard.io.raster import open_raster
from regard.refine.labels import MOST, Labels, read_labels
from support import NAMES

CLASSES = ClassMap.of(NAMES)
SHAPES = [
    shapely.box(10.2, 20.4, 19.7, 33.1),
    shapely.LineString([(40.5, 50.5), (60.5, 50.5), (60.5, 44.5)]),
    shapely.Point(100.9, 70.1),
    shapely.box(15, 25, 25, 30),
]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif")


def read(scene: Path, labels: str | Path, column: str = "class") -> Labels:
    with open_raster(scene) as raster:
        return read_labels(labels, raster, CLASSES, column)


def drawn(labels: Labels) -> np.ndarray:
    found = np.full(SIZE, 255)
    found[labels.rows, labels.columns] = labels.labels
    return found


@pytest.mark.parametrize("values", [[NAMES[0], NAMES[1], NAMES[2], NAMES[1]], [0, 1, 2, 1], [0.0, 1.0, 2.0, 1.0]])
def test_points_lines_and_polygons_label_the_pixels_that_rasterio_draws(tmp_path, scene: Path, values: Any) -> None:
    found = read(scene, write_labels(tmp_path / "labels.gpkg", SHAPES, values))
    wanted = rasterio.features.rasterize(zip(SHAPES, (0, 1, 2, 1), strict=True), SIZE, fill=255)
    assert np.array_equal(drawn(found), wanted)
    assert found.counts(CLASSES)[NAMES[1]] == (2, int((wanted == 1).sum()))
    assert len(found.rows) == (wanted != 255).sum()  # none twice


def test_labels_in_degrees_lie_where_they_are(tmp_path: Path, scene: Path) -> None:
    path = write_labels(tmp_path / "labels.gpkg", SHAPES, [0, 1, 2, 1])
    crs = rasterio.crs.CRS.from_epsg(32633)
    shapes = [
        rasterio.warp.transform_geom(crs, "EPSG:4326", shapely.geometry.mapping(on_map(shape))) for shape in SHAPES
    ]
    geometry = shapely.to_wkb([shapely.geometry.shape(shape) for shape in shapes])
    degrees = tmp_path / "degrees.gpkg"
    pyogrio.raw.write(degrees, geometry, [np.array([0, 1, 2, 1])], ["class"], geometry_type="Unknown", crs="EPSG:4326")
    assert np.array_equal(drawn(read(scene, degrees)), drawn(read(scene, path)))


def test_a_large_object_labels_some_of_its_pixels(tmp_path: Path, scene: Path) -> None:
    found = read(scene, write_labels(tmp_path / "labels.gpkg", [shapely.box(-50, 0, 999, 999)], [NAMES[1]]))
    assert len(found.rows) == MOST and np.ptp(found.rows) > 100 and np.ptp(found.columns) > 150


def test_objects_without_a_class_label_nothing(tmp_path: Path, scene: Path) -> None:
    path = write_labels(tmp_path / "labels.gpkg", SHAPES[:2], [NAMES[0], ""])
    assert set(read(scene, path).labels.tolist()) == {0}


FAULTS: dict[str, tuple[dict[str, Any], type[RegardError], str]] = {
    "no file": ({"name": "gone.gpkg"}, UnreadableImage, "does not exist"),
    "no column": ({"column": "kind"}, ConfigError, "has no column 'kind'; it has class"),
    "an unknown class": ({"values": [NAMES[0], "greenhouse"]}, ClassMismatch, "--add-class greenhouse"),
    "an unknown value": ({"values": [0, 3]}, ClassMismatch, "labels 1 object '3'; the classes are red thing"),
    "no CRS": ({"crs": None}, ConfigError, "has no CRS"),
    "elsewhere": ({"move": 5000}, ConfigError, "no label of labels.gpkg lies on scene.tif: it covers"),
}


@pytest.mark.filterwarnings("ignore:'crs' was not provided:UserWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_one_message(tmp_path: Path, scene: Path, fault: str) -> None:
    how, kind, message = FAULTS[fault]
    shapes = [shapely.transform(shape, lambda xy: xy + how.get("move", 0)) for shape in SHAPES[:2]]
    crs = how.get("crs", "EPSG:32633")
    write_labels(tmp_path / "labels.gpkg", shapes, how.get("values", [NAMES[0], NAMES[1]]), crs=crs)
    with pytest.raises(kind) as error:
        read(scene, tmp_path / how.get("name", "labels.gpkg"), how.get("column", "class"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_many_small_squares_are_all_read(tmp_path: Path, scene: Path) -> None:
    found = read(scene, write_labels(tmp_path / "labels.gpkg", *squares(4)))
    assert len(np.unique(found.objects)) == 35 and len(found.rows) == 35 * 16
