"""What is written is read back by GDAL's own tools and by rio-cogeo, which we did not write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from regard.classes import ClassMap
from regard.errors import OutputError
from regard.io.cog_writer import RasterWriter, label_layer, measure_layer

CLASSES = ClassMap(names=("a & b", "<water>", "c"), palette=((10, 20, 30), (200, 0, 0), (0, 0, 250)))
PLACE = Affine(0.5, 0.1, 500_000, 0.1, -0.5, 4_000_000)


def written(path: Path, labels: np.ndarray) -> Path:
    with RasterWriter(
        path, label_layer(CLASSES, {"note": "x"}), labels.shape, crs="EPSG:32640", transform=PLACE
    ) as writer:
        for top in range(0, len(labels), 100):
            writer.write(top, labels[top : top + 100])
    return path


def plainly(path: Path) -> rasterio.DatasetReader:
    """A raster that has no place on Earth, opened without the warning that says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path)


@pytest.fixture
def labels() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 3, size=(700, 1100), dtype=np.uint8)
    values[:50] = 255
    return values


def test_every_pixel_and_the_place_on_earth_are_kept(tmp_path: Path, labels: np.ndarray) -> None:
    with rasterio.open(written(tmp_path / "map.tif", labels)) as raster:
        assert np.array_equal(raster.read(1), labels)
        assert raster.crs.to_epsg() == 32640 and raster.transform == PLACE
        assert raster.nodata == 255 and raster.descriptions == ("class",)
        assert raster.colormap(1)[1] == (200, 0, 0, 255) and raster.colormap(1)[255][3] == 0
        assert json.loads(raster.tags()["regard_classes"]) == list(CLASSES.names)
        assert raster.tags()["note"] == "x" and raster.overviews(1)


def test_it_is_a_cloud_optimised_geotiff(tmp_path: Path, labels: np.ndarray) -> None:
    valid, errors, _ = cog_validate(written(tmp_path / "map.tif", labels), strict=True)
    assert valid, errors


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="GDAL's command-line tools (gdal-bin) are not installed")
def test_gdalinfo_sees_classes_and_colours(tmp_path: Path, labels: np.ndarray) -> None:
    path = written(tmp_path / "map.tif", labels)
    text = subprocess.run(["gdalinfo", "-json", str(path)], capture_output=True, check=True, text=True).stdout
    band = json.loads(text)["bands"][0]
    assert band["noDataValue"] == 255 and band["overviews"]
    assert band["colorTable"]["entries"][2] == [0, 0, 250, 255]
    plain = subprocess.run(["gdalinfo", str(path)], capture_output=True, check=True, text=True).stdout
    assert "0: a & b" in plain and "1: <water>" in plain


def test_overviews_show_the_commonest_class(tmp_path: Path) -> None:
    labels = np.zeros((1200, 1200), dtype=np.uint8)
    labels[::2, ::2] = 2  # a quarter of each block
    with rasterio.open(written(tmp_path / "map.tif", labels)) as raster:
        assert set(np.unique(raster.read(1, out_shape=(300, 300)))) == {0}


def test_confidence_carries_its_scale(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "confidence.tif"
    with RasterWriter(path, measure_layer("confidence", {}), values.shape) as writer:
        writer.write(0, values)
    with plainly(path) as raster:
        assert raster.scales == (pytest.approx(1 / 255),) and raster.nodata == 0
        assert np.array_equal(raster.read(1), values)


def test_nothing_is_left_when_the_work_fails(tmp_path: Path, labels: np.ndarray) -> None:
    earlier = written(tmp_path / "map.tif", labels).read_bytes()
    with (
        pytest.raises(RuntimeError),
        RasterWriter(tmp_path / "map.tif", label_layer(CLASSES, {}), labels.shape) as writer,
    ):
        writer.write(0, labels[:10])
        raise RuntimeError("the model failed")
    assert (tmp_path / "map.tif").read_bytes() == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_many_classes_take_sixteen_bits(tmp_path: Path) -> None:
    classes = ClassMap.of([f"class {index}" for index in range(300)])
    layer = label_layer(classes, {})
    with RasterWriter(tmp_path / "map.tif", layer, (4, 300)) as writer:
        writer.write(0, np.tile(np.arange(300, dtype=np.uint16), (4, 1)))
    with plainly(tmp_path / "map.tif") as raster:
        assert raster.nodata == 65535 and raster.read(1)[0, 299] == 299


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        RasterWriter(tmp_path, label_layer(CLASSES, {}), (2, 2))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to"):
        RasterWriter(tmp_path / "file" / "map.tif", label_layer(CLASSES, {}), (2, 2))


def test_a_full_disk_is_told(tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """rasterio can report success on a full disk; what does not read back is not published."""
    import rasterio.shutil as shutil_of_rasterio

    copy = shutil_of_rasterio.copy

    def truncated(source: Path, target: Path, **options: object) -> None:
        copy(source, target, **options)
        content = Path(target).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])

    monkeypatch.setattr(shutil_of_rasterio, "copy", truncated)
    with pytest.raises(OutputError, match="Is the disk full"):
        written(tmp_path / "map.tif", labels)
    assert list(tmp_path.iterdir()) == []


FULL_AT_ANY_BYTE = """
import resource, sys
from pathlib import Path
import numpy as np
from regard.errors import OutputError
from regard.io.cog_writer import RasterWriter, measure_layer

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
rows = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
for room in range(0, 3000, 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with RasterWriter(Path(sys.argv[1]), measure_layer("confidence", {}), rows.shape) as writer:
            writer.write(0, rows)
    except OutputError as error:
        assert "Is the disk full" in str(error)
    else:
        raise AssertionError(room)
"""


def test_a_disk_full_at_any_byte_is_told_in_one_error(tmp_path: Path) -> None:
    """Without a whole header on the disk libtiff goes on with a wrong one: it complains again, and may crash."""
    command = [sys.executable, "-c", FULL_AT_ANY_BYTE, str(tmp_path / "map.tif")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "ERROR" in ended.stderr) == (0, False), ended.stderr
    assert list(tmp_path.iterdir()) == []
