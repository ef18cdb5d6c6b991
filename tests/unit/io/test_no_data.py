"""Which pixels hold data: every way of saying so counts, also where a file has several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from regard.errors import BandMismatch
from regard.io.ground import at_gsd
from regard.io.image import read_image
from regard.io.mosaic import mosaic
from regard.io.raster import Box, open_raster
from support import write_tif

SIZE = (24, 32)


def values_of(dtype: str = "uint8", bands: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(1, 250, (bands, *SIZE)).astype(dtype)


def alpha_and_nodata(path: Path) -> Path:
    """Alpha is 0 in the first 5 columns, all colours are nodata (0) in the last 4."""
    values = values_of(bands=4)
    values[:3, :, -4:] = 0
    values[3] = 255
    values[3, :, :5] = 0
    write_tif(path, values, nodata=0, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


def test_alpha_and_nodata_both_count_and_no_warning_is_given(tmp_path: Path):
    path = alpha_and_nodata(tmp_path / "both.tif")  # any warning is an error in these tests
    expected = np.ones(SIZE, bool)
    expected[:, :5] = expected[:, -4:] = False
    np.testing.assert_array_equal(read_image(path).valid, expected)
    with open_raster(path) as raster:
        assert raster.missing_data == ("alpha", "nodata")
        np.testing.assert_array_equal(raster.valid((0, 0, *SIZE), (12, 16)).sum(axis=0)[[0, 1, 5, 13, 14, 15]] > 0,
                                      [False, False, True, True, False, False])  # fmt: skip
        with at_gsd(raster, 10.0) as same:
            np.testing.assert_array_equal(same.read(Box(0, 0, *SIZE)).valid, expected)


def test_a_mask_and_nodata_both_count(tmp_path: Path):
    values = values_of()
    values[:, 3] = 0
    path = write_tif(tmp_path / "both.tif", values, nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        mask = np.ones(SIZE, bool)
        mask[7] = False
        file.write_mask(mask)
    expected = mask.copy()
    expected[3] = False
    np.testing.assert_array_equal(read_image(path).valid, expected)


def test_a_mosaic_of_files_with_two_ways_is_refused_with_advice(tmp_path: Path):
    with pytest.raises(BandMismatch, match=r"by alpha and nodata.*gdalwarp -dstalpha both\.tif"):
        mosaic([alpha_and_nodata(tmp_path / "both.tif")])


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", 3.4028234663852886e38), ("float32", -3.4028234663852886e38), ("float64", 1e30), ("uint16", 65535),
        ("int16", 32767), ("int16", -9999), ("uint32", 4294967295), ("float32", -9999.9),
    ],
)  # fmt: skip
def test_a_nodata_that_no_picture_holds_counts_in_one_band_alone(tmp_path: Path, dtype: str, nodata: float):
    values = values_of(dtype)
    values[0, :10, :10] = nodata
    path = write_tif(tmp_path / "scene.tif", values, nodata=nodata)
    valid = read_image(path).valid
    assert not valid[:10, :10].any() and valid.sum() == valid.size - 100
    assert read_image(path, bands=(2, 3)).valid.all()


@pytest.mark.parametrize("nodata", [0, 255])
def test_a_nodata_that_a_picture_may_hold_counts_in_all_bands_together(tmp_path: Path, nodata: int):
    values = values_of()
    values[0, :10] = nodata  # a dark or a bright pixel
    values[:, 20:22] = nodata
    valid = read_image(write_tif(tmp_path / "scene.tif", values, nodata=nodata)).valid
    assert valid[:20].all() and not valid[20:22].any() and valid[22:].all()


@pytest.mark.parametrize("given", [255.0, -9999.0])
def test_a_value_that_is_given_counts_like_the_files_own(tmp_path: Path, given: float):
    values = values_of("float32")
    values[0, :10] = given
    values[:, 20:22] = given
    with open_raster(write_tif(tmp_path / "scene.tif", values)) as raster:
        assert raster.read(Box(0, 0, *SIZE)).valid.all()
        raster.no_data = given
        valid = raster.read(Box(0, 0, *SIZE)).valid
    assert valid[:10].all() == (given > 0) and not valid[20:22].any() and valid[10:20].all() and valid[22:].all()
