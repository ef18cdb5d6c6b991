"""A finished map in strips, its stored classes, and its sieve, held against the arrays that were written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.errors import ClassMismatch, OutputError
from regard.inference.segmentation import Segmentation
from regard.io.class_map_file import open_label_map, sieved
from regard.io.cog_writer import RasterWriter, label_layer

CLASSES = ClassMap(names=("land", "water", "road"), palette=((10, 20, 30), (200, 0, 0), (0, 0, 250)))
PLACE = Affine(2, 0, 100, 0, -2, 900)


def a_map(path: Path, labels: np.ndarray, classes: ClassMap = CLASSES) -> Path:
    with RasterWriter(path, label_layer(classes, {}), labels.shape, crs="EPSG:32633", transform=PLACE) as writer:
        writer.write(0, labels)
    return path


def test_strips_are_the_whole_map(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, size=(23, 9), dtype=np.uint8)
    with open_label_map(a_map(tmp_path / "map.tif", labels)) as source:
        strips = list(source.strips(10))
        assert (source.size, source.transform, source.nodata) == ((23, 9), PLACE, 255)
    assert [(top, len(rows)) for top, rows in strips] == [(0, 10), (10, 10), (20, 3)]
    assert np.array_equal(np.concatenate([rows for _, rows in strips]), labels)


def test_names_and_colours_come_from_the_file(tmp_path: Path) -> None:
    path = a_map(tmp_path / "map.tif", np.zeros((2, 2), np.uint8))
    with open_label_map(path) as source:
        assert source.classes == CLASSES


def test_many_classes(tmp_path: Path) -> None:
    classes = ClassMap.of([f"class {index}" for index in range(300)])
    labels = np.array([[0, 299, 65535]], np.uint16)
    with open_label_map(a_map(tmp_path / "map.tif", labels, classes)) as source:
        assert source.classes.names == classes.names and source.nodata == 65535
        assert np.array_equal(source.read(0, 1), labels)


def test_a_raster_that_names_no_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint8", "transform": PLACE}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ClassMismatch, match="no tag regard_classes"), open_label_map(path):
        pass


def test_the_map_of_a_photograph_is_refused_with_what_can_be_had(tmp_path: Path) -> None:
    labels = np.zeros((2, 3), np.int64)
    path = Segmentation(labels, np.ones((2, 3), np.float32), CLASSES).save(tmp_path / "map.png")
    with pytest.raises(ClassMismatch, match=r"map\.png is a picture.*GeoTIFF.*to_polygons"), open_label_map(path):
        pass


@pytest.mark.parametrize("pixels", [0, 1, 2, 9, 1000])
def test_the_sieve_is_gdals(tmp_path: Path, pixels: int) -> None:
    labels = np.random.default_rng(1).integers(0, 3, size=(40, 30)).astype(np.uint8)
    labels[:9, :8] = labels[30:32, 3] = 255
    expected = rasterio.features.sieve(labels, max(1, pixels), mask=labels != 255)
    with open_label_map(a_map(tmp_path / "map.tif", labels)) as source:
        clean = sieved(source, pixels, tmp_path)
        assert np.array_equal(np.concatenate([rows for _, rows in clean.strips(7)]), expected)
    assert np.array_equal(expected == 255, labels == 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_map(tmp_path / "map.tif", np.zeros((9, 9), np.uint8))
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir, buffering: full.open("wb", buffering=buffering))
    with open_label_map(path) as source, pytest.raises(OutputError, match=r"for the sieve \(No space left"):
        sieved(source, 5, tmp_path)
