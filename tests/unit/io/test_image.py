"""Photographs of every kind give the values that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.errors import BandMismatch
from regard.io.image import image_bands, image_size, read_image
from regard.io.raster import Box
from support import COLOURS, save_image, write_tif

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, size=(7, 9, 3), dtype=np.uint8)
LABELS = np.array([[0, 1, 2, 255], [2, 1, 0, 0]], dtype=np.uint8)

# EXIF orientation: how the stored pixels must be turned to stand upright.
UPRIGHT = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, suffix: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image(tmp_path / f"photo{suffix}", PICTURE, exif=exif, **({"quality": 100} if suffix == ".jpg" else {}))
    with Image.open(path) as stored:
        expected = UPRIGHT[orientation](np.asarray(stored))
    values, valid = read_image(path)
    np.testing.assert_array_equal(values.transpose(1, 2, 0), expected)
    assert valid.all() and image_size(path) == values.shape[1:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_lossless_formats_give_the_values_written(tmp_path: Path, suffix: str):
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    path = save_image(tmp_path / f"photo{suffix}", PICTURE, **options)
    values, valid = read_image(path, expected=("red", "green", "blue"))
    np.testing.assert_array_equal(values.transpose(1, 2, 0), PICTURE)
    assert valid.all() and valid.shape == (7, 9)


def test_the_alpha_channel_says_where_there_is_data(tmp_path: Path):
    alpha = RNG.choice([0, 255], size=(7, 9, 1)).astype(np.uint8)
    values, valid = read_image(save_image(tmp_path / "photo.png", np.concatenate([PICTURE, alpha], axis=2)))
    assert values.shape == (3, 7, 9)
    np.testing.assert_array_equal(valid, alpha[..., 0] > 0)


def test_a_palette_photograph_gives_its_colours_and_its_transparent_entry_is_no_data(tmp_path: Path):
    image = Image.fromarray(LABELS % 3)
    image.putpalette(COLOURS.tobytes())
    image.save(tmp_path / "photo.png", transparency=2)
    values, valid = read_image(tmp_path / "photo.png")
    np.testing.assert_array_equal(values.transpose(1, 2, 0)[valid], COLOURS[LABELS % 3][valid])
    np.testing.assert_array_equal(valid, LABELS % 3 != 2)


def test_a_grey_photograph_repeats_its_band_for_an_rgb_model_and_keeps_it_for_a_grey_one(tmp_path: Path):
    path, grey = save_image(tmp_path / "grey.png", PICTURE[..., 0]), PICTURE[None, ..., 0]
    np.testing.assert_array_equal(read_image(path, expected=("red", "green", "blue")).values, grey.repeat(3, 0))
    np.testing.assert_array_equal(read_image(path, expected=("grey",)).values, grey)


@pytest.mark.parametrize("bands", [3, 1])
def test_deep_png_keeps_its_16_bits(tmp_path: Path, bands: int):
    deep = RNG.integers(0, 65536, size=(bands, 7, 9), dtype=np.uint16)
    path = write_tif(tmp_path / "deep.png", deep, driver="PNG", crs=None, transform=None)
    values, _ = read_image(path)
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values, deep)
    assert image_size(path) == (7, 9) and len(image_bands(path)) == bands


@pytest.mark.parametrize("bands", [(3, 1), ("blue", "red"), ("3", "1")])
def test_bands_of_a_photograph_are_chosen_by_number_and_by_name(tmp_path: Path, bands: tuple[int | str, ...]):
    values, _ = read_image(save_image(tmp_path / "photo.png", PICTURE), bands=bands)
    np.testing.assert_array_equal(values, PICTURE.transpose(2, 0, 1)[[2, 0]])


@pytest.mark.parametrize("band", [0, 4, "nir", -1])
def test_a_band_that_a_photograph_lacks_is_refused(tmp_path: Path, band: int | str):
    path = save_image(tmp_path / "photo.png", PICTURE)
    with pytest.raises(BandMismatch, match=rf"photo.png has no band '{band}'; it has 1 red, 2 green, 3 blue"):
        read_image(path, bands=(band,))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_box_cuts_the_same_part_out_of_any_kind(tmp_path: Path, suffix: str):
    values, valid = read_image(save_image(tmp_path / f"photo{suffix}", PICTURE), box=Box(2, 3, 4, 5))
    np.testing.assert_array_equal(values.transpose(1, 2, 0), PICTURE[2:6, 3:8])
    assert valid.shape == (4, 5)
