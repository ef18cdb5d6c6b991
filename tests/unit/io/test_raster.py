"""GeoTIFFs of any band count and type, their windows, bands, nodata and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from regard.errors import BandMismatch, UnreadableImage
from regard.io.bands import spectral
from regard.io.image import read_image
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import Source
from support import write_tif

RNG = np.random.default_rng(1)


def values_of(dtype: str, bands: int, size: tuple[int, int] = (21, 33)) -> np.ndarray:
    return (RNG.random((bands, *size)) * 250).astype(dtype)


@pytest.mark.parametrize("bands", [1, 3, 4, 6])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_values_size_and_place_are_those_written(tmp_path: Path, dtype: str, bands: int):
    values = values_of(dtype, bands)
    with open_raster(write_tif(tmp_path / "scene.tif", values, photometric="MINISBLACK")) as raster:
        assert raster.size == (21, 33) and raster.bands == tuple(range(1, bands + 1))
        assert raster.crs.to_epsg() == 32633 and raster.transform.e == -10 and raster.is_georeferenced
        pixels, valid = raster.read(Box(0, 0, 21, 33))
        np.testing.assert_array_equal(pixels, values)
        assert pixels.dtype == dtype and valid.all()
        part, inside = raster.read(Box(5, 30, 16, 3))
        np.testing.assert_array_equal(part, values[:, 5:, 30:])
        assert inside.shape == (16, 3)


def test_a_raster_without_a_place_is_read_too(tmp_path: Path):
    path = write_tif(tmp_path / "flat.tif", values_of("uint8", 3), crs=None, transform=None)
    with open_raster(path) as raster:
        assert not raster.is_georeferenced and raster.crs is None


@pytest.mark.parametrize(
    "options", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "lzw"}, {"BIGTIFF": "YES"}]
)
def test_inner_layout_does_not_matter(tmp_path: Path, options: dict):
    values = values_of("uint16", 3)
    np.testing.assert_array_equal(read_image(write_tif(tmp_path / "scene.tif", values, **options)).values, values)


def test_nodata_in_all_bands_is_not_valid(tmp_path: Path):
    values = values_of("uint8", 3)
    values[values == 0] = 1
    values[:, 3:5, 7] = 0
    values[0, 9, 9] = 0  # black in one band only: a colour
    valid = read_image(write_tif(tmp_path / "scene.tif", values, nodata=0)).valid
    assert not valid[3:5, 7].any() and valid.sum() == valid.size - 2


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_negative_nodata_in_one_chosen_band_is_not_valid(tmp_path: Path, dtype: str):
    """-9999 in one band is no reading, whatever the other bands hold; the network must not see it."""
    values = values_of(dtype, 4)
    values[1, 2, 3] = -9999
    values[3, 5, 6] = -9999
    path = write_tif(tmp_path / "scene.tif", values, nodata=-9999)
    valid = read_image(path).valid
    assert not valid[2, 3] and not valid[5, 6] and valid.sum() == valid.size - 2
    valid = read_image(path, bands=(1, 2, 3)).valid
    assert not valid[2, 3] and valid[5, 6]  # band 4 was not asked for


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_not_valid(tmp_path: Path, bad: float):
    values = values_of("float32", 3)
    values[1, 2, 3] = bad
    valid = read_image(write_tif(tmp_path / "scene.tif", values)).valid
    assert not valid[2, 3] and valid.sum() == valid.size - 1


def test_nodata_may_be_not_a_number(tmp_path: Path):
    values = values_of("float32", 3)
    values[:, 2, 3] = np.nan
    valid = read_image(write_tif(tmp_path / "scene.tif", values, nodata=np.nan)).valid
    assert not valid[2, 3] and valid.sum() == valid.size - 1


def test_alpha_is_a_mask_and_no_band(tmp_path: Path):
    values = values_of("uint8", 4)
    values[3] = RNG.choice([0, 255], size=values.shape[1:])
    path = write_tif(tmp_path / "scene.tif", values, photometric="RGB", alpha="YES")
    pixels, valid = read_image(path, expected=("red", "green", "blue"))
    np.testing.assert_array_equal(pixels, values[:3])
    np.testing.assert_array_equal(valid, values[3] > 0)


def test_an_alpha_band_that_is_asked_for_is_data(tmp_path: Path):
    """Four-band aerial images often carry near infrared in a band marked alpha; its 0 is dark, not void."""
    values = values_of("uint8", 4)
    values[3, :5] = 0
    path = write_tif(tmp_path / "scene.tif", values, photometric="RGB", alpha="YES")
    pixels, valid = read_image(path, bands=(1, 2, 3, 4))
    np.testing.assert_array_equal(pixels, values)
    assert valid.all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_inside_the_file_or_beside_it_is_honoured(tmp_path: Path, inside: bool):
    values, mask = values_of("uint8", 3), RNG.random((21, 33)) > 0.3
    path = write_tif(tmp_path / "scene.tif", values)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as raster:
        raster.write_mask(mask)
    assert (tmp_path / "scene.tif.msk").exists() is not inside
    np.testing.assert_array_equal(read_image(path).valid, mask)


def named(path: Path) -> Path:
    write_tif(path, values_of("uint16", 4))
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = ("blue", "green", "red", "nir")
    return path


@pytest.mark.parametrize(
    ("bands", "expected", "chosen"),
    [
        ((4, 3, 2), None, (4, 3, 2)),
        (("nir", "red"), None, (4, 3)),
        (("nir", "1"), None, (4, 1)),
        (None, ("nir", "red", "green", "blue"), (4, 3, 2, 1)),  # the model's order, by name
        (None, ("a", "b", "c", "d"), (1, 2, 3, 4)),  # names unknown: as many, in the file's order
        ((1, 2, 3), ("red", "green", "blue"), (1, 2, 3)),  # what is asked for goes before names
    ],
)
def test_bands_are_chosen_by_number_by_name_or_as_the_model_needs(tmp_path: Path, bands, expected, chosen):
    path = named(tmp_path / "scene.tif")
    with open_raster(path, bands=bands, expected=expected) as raster, rasterio.open(path) as plain:
        assert raster.bands == chosen
        np.testing.assert_array_equal(raster.read(Box(0, 0, 21, 33))[0], plain.read(chosen))


def test_colours_name_bands_without_descriptions(tmp_path: Path):
    path = write_tif(tmp_path / "scene.tif", values_of("uint8", 3))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    with open_raster(path, expected=("red", "green", "blue")) as raster:
        assert raster.bands == (3, 2, 1)


NAMED = [
    (("Blue", "GREEN", " red "), (3, 2, 1)),
    (("Band 2 (Blue)", "B4: red", "green_10m"), (2, 3, 1)),
    (("B02", "B03", "B04"), (1, 2, 3)),  # they tell nothing
    (("red", "", "green"), (1, 2, 3)),  # one of them tells nothing
]


@pytest.mark.parametrize(("names", "chosen"), NAMED)
def test_names_of_colours_give_the_order_however_they_are_written(
    tmp_path: Path, names: tuple[str, ...], chosen: tuple[int, ...]
):
    path = write_tif(tmp_path / "scene.tif", values_of("uint8", 3), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
    with open_raster(path, expected=("red", "green", "blue")) as raster:
        assert raster.bands == chosen


@pytest.mark.parametrize("names", [("NIR", "Red", "Green"), ("red", "green", "Red edge"), ("Blue", "Green", "Pan")])
def test_as_many_bands_of_other_colours_are_refused(tmp_path: Path, names: tuple[str, ...]):
    path = write_tif(tmp_path / "scene.tif", values_of("uint8", 3))
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
    with pytest.raises(BandMismatch, match=rf"has the bands {', '.join(names)}; .* on red, green, blue.*--bands 1,2,3"):
        open_raster(path, expected=("red", "green", "blue"))
    with open_raster(path, bands=(1, 2, 3), expected=("red", "green", "blue")) as raster:
        assert raster.bands == (1, 2, 3)
    with open_raster(path, expected=names) as raster:
        assert raster.bands == (1, 2, 3)


WORDS = {
    "Red Edge 1": "rededge",
    "Band 8 (Near infrared)": "nir",
    "Short-wave infrared": "swir",
    "blue-green": "blue-green",
}


@pytest.mark.parametrize("name", WORDS)
def test_the_part_of_the_spectrum_is_the_longest_phrase(name: str):
    assert spectral(name) == WORDS[name]


def test_several_bands_of_one_name_are_taken_as_they_are(tmp_path: Path):
    path = write_tif(tmp_path / "scene.tif", values_of("uint8", 3))
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = ("swir 2", "swir 1", "red")
    with open_raster(path, expected=("swir1", "swir2", "red")) as raster:
        assert raster.bands == (1, 2, 3)


def test_a_negative_is_refused(tmp_path: Path):
    path = write_tif(tmp_path / "scan.tif", values_of("uint8", 1), photometric="MINISWHITE")
    with pytest.raises(BandMismatch, match="stores white as 0"):
        open_raster(path, expected=("grey",))


@pytest.mark.parametrize("band", ["swir", "0", 0, 5, "5", "-1", "1.0", ""])
def test_a_band_that_is_not_there_is_refused_with_the_list(tmp_path: Path, band: int | str):
    with pytest.raises(BandMismatch, match=rf"scene.tif has no band '{band}'; it has 1 blue, 2 green, 3 red, 4 nir"):
        open_raster(named(tmp_path / "scene.tif"), bands=(band,))


def test_too_many_bands_are_refused_with_their_names(tmp_path: Path):
    with pytest.raises(BandMismatch) as caught:
        open_raster(named(tmp_path / "scene.tif"), expected=("vv", "vh"))
    assert str(caught.value) == (
        "scene.tif has 4 bands (1 blue, 2 green, 3 red, 4 nir); the model was trained on 2 (vv, vh). "
        "Choose them with --bands 1,2."
    )


@pytest.mark.parametrize(
    ("expected", "advice"),
    [
        (("red", "green", "blue"), r"Choose them with --bands 3,2,1\."),
        (("swir", "green", "blue"), r"Choose them with --bands 1,2,3\."),
        (("a", "b", "c", "d", "e"), r"Give an image with these bands\."),
    ],
)
def test_the_advice_about_bands_is_one_that_can_be_followed(tmp_path: Path, expected: tuple[str, ...], advice: str):
    with pytest.raises(BandMismatch, match=advice):
        open_raster(named(tmp_path / "scene.tif"), expected=expected)


def test_more_pixels_than_memory_holds_are_refused(tmp_path: Path):
    class Huge:
        """An open data set whose pixels do not fit, as a sparse file of a few kilobytes may be."""

        colorinterp = (ColorInterp.gray,)

        def read(self, bands: tuple[int, ...], window: object) -> np.ndarray:
            raise MemoryError("Unable to allocate 16.0 TiB")

    raster = Raster(Source.of(tmp_path / "sparse.tif"), Huge(), (1,))
    with pytest.raises(UnreadableImage, match=r"sparse.tif: a part of 4194304 x 4194304 pixels .* allocate 16.0 TiB"):
        raster.read(Box(0, 0, 2**22, 2**22))
