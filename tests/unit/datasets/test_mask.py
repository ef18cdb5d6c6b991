"""Masks of every kind give the labels that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from regard.classes import ClassMap
from regard.datasets.mask import read_mask
from regard.errors import ClassMismatch, UnreadableImage
from regard.io.raster import Box
from support import COLOURS, NAMES, save_image, write_tif

CLASSES = ClassMap(names=NAMES, palette=tuple(map(tuple, COLOURS.tolist())))
LABELS = np.array([[0, 1, 2, 255], [2, 1, 0, 0]], dtype=np.uint8)


def written_mask(root: Path, kind: str) -> Path:
    """LABELS as a mask file of some kind."""
    if kind == "palette":
        image = Image.fromarray(LABELS)
        image.putpalette(COLOURS.tobytes() + bytes(3 * 253))
        image.save(root / "mask.png")
        return root / "mask.png"
    if kind == "colour":
        colours = np.concatenate([COLOURS, np.zeros((253, 3), np.uint8)])[LABELS]  # no class is black
        return save_image(root / "mask.png", colours)
    if kind == "colour with alpha":
        opaque = np.full((*LABELS.shape, 1), 255)
        colours = np.concatenate([COLOURS, np.full((253, 3), 255, np.uint8)])[LABELS]  # no class is white
        return save_image(root / "mask.png", np.concatenate([colours, opaque], axis=2))
    if kind == "grey with alpha":
        return save_image(root / "mask.png", np.stack([LABELS, np.full_like(LABELS, 255)], axis=2))
    if kind == "colour tif":
        colours = np.concatenate([COLOURS, np.zeros((253, 3), np.uint8)])[LABELS]
        return write_tif(root / "mask.tif", colours.transpose(2, 0, 1))
    if kind == "16-bit png":
        return write_tif(root / "mask.png", LABELS[None].astype(np.uint16), driver="PNG", crs=None, transform=None)
    if kind == "grey":
        return save_image(root / "mask.png", LABELS)
    if kind == "float tif with NaN":
        values = np.where(LABELS == 255, np.nan, LABELS)[None].astype(np.float32)
        return write_tif(root / "mask.tif", values)
    return write_tif(root / "mask.tif", LABELS[None].astype(kind.removesuffix(" tif")))


KINDS = ["grey", "palette", "colour", "colour with alpha", "grey with alpha", "colour tif", "16-bit png"]
RASTER_KINDS = ["uint8 tif", "int16 tif", "uint16 tif", "float32 tif", "float tif with NaN"]


@pytest.mark.parametrize("kind", KINDS + RASTER_KINDS)
def test_masks_of_every_kind_give_the_same_labels(tmp_path: Path, kind: str):
    path = written_mask(tmp_path, kind)
    labels = read_mask(path, CLASSES)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(read_mask(path, CLASSES, box=Box(0, 1, 2, 3)), LABELS[:, 1:])


@pytest.mark.parametrize("kind", ["grey", "palette", "colour"])
def test_masks_above_the_limit_of_pixels_too(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    path = written_mask(tmp_path, kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    np.testing.assert_array_equal(read_mask(path, CLASSES), LABELS)


def test_a_black_and_white_mask_of_one_bit_is_classes_0_and_1(tmp_path: Path):
    Image.fromarray(LABELS == 1).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", CLASSES), LABELS == 1)


def test_black_is_a_class_where_the_palette_says_so(tmp_path: Path):
    classes = ClassMap(names=("a", "b"), palette=((0, 0, 0), (9, 9, 9)))
    path = save_image(tmp_path / "mask.png", np.array([[[0, 0, 0], [9, 9, 9], [255, 255, 255]]]))
    assert read_mask(path, classes).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[[3, 0, 0]]], np.uint8), r"holds label 3 \(1 pixel\); 3 classes allow 0 to 2 and 255"),
        (np.array([[[300, 0, 0]]], np.uint16), "holds label 300"),  # 44 in eight bits
        (np.array([[[-1, -1, 0]]], np.int16), r"holds label -1 \(2 pixels\)"),
        (np.array([[[1.5, 0, 0]]], np.float32), "holds label 1.5"),
        (np.zeros((2, 2, 2), np.uint8), "has 2 bands"),
    ],
)
def test_values_without_a_class_are_refused(tmp_path: Path, values: np.ndarray, message: str):
    with pytest.raises((ClassMismatch, UnreadableImage), match=message):
        read_mask(write_tif(tmp_path / "mask.tif", values, crs="EPSG:4326"), CLASSES)


def test_a_colour_without_a_class_is_refused(tmp_path: Path):
    path = save_image(tmp_path / "mask.png", np.array([[[200, 40, 40], [1, 2, 3]]]))
    with pytest.raises(ClassMismatch, match=r"holds colour \(1, 2, 3\) \(1 pixel without a class\)"):
        read_mask(path, CLASSES)


def lossy_mask(root: Path, kind: str) -> Path:
    """A mask of plain areas, compressed with loss by Pillow or GDAL."""
    labels = np.repeat(np.arange(3, dtype=np.uint8), 32)[None].repeat(64, axis=0)
    colours = COLOURS[labels]
    tif = {"tiled": True, "blockxsize": 32, "blockysize": 32}
    if kind == "webp with alpha":
        see_through = np.concatenate([colours, np.full((64, 96, 1), 254, np.uint8)], axis=2)
        return save_image(root / "mask.webp", see_through, quality=90)
    if kind == "jpeg called png":
        return save_image(root / "mask.png", labels, format="JPEG")
    if kind == "jpeg called tif":
        return save_image(root / "mask.tif", labels, format="JPEG")
    if kind == "jpeg in tif":
        return write_tif(root / "mask.tif", labels[None], compress="JPEG", **tif)
    if kind == "colour jpeg in tif":
        return write_tif(root / "mask.tif", colours.transpose(2, 0, 1), compress="JPEG", photometric="YCBCR", **tif)
    if kind == "webp in tif":
        return write_tif(root / "mask.tif", colours.transpose(2, 0, 1), compress="WEBP", **tif)
    if kind == "lerc with an error":
        return write_tif(root / "mask.tif", labels[None], compress="LERC", max_z_error=1, **tif)
    if kind == "jp2":
        return write_tif(root / "mask.jp2", labels[None], driver="JP2OpenJPEG")
    return save_image(root / f"mask.{kind}", colours if kind == "webp" else labels)


LOSSY = ["jpg", "webp", "webp with alpha", "jpeg called png", "jpeg called tif", "jpeg in tif", "colour jpeg in tif"]


@pytest.mark.parametrize("kind", [*LOSSY, "webp in tif", "lerc with an error", "jp2"])
def test_masks_compressed_with_loss_are_refused(tmp_path: Path, kind: str):
    """Their values may all be labels, and yet be wrong along borders."""
    with pytest.raises(ClassMismatch, match=r"mask\.\w+ is compressed with loss.* as PNG"):
        read_mask(lossy_mask(tmp_path, kind), CLASSES)


@pytest.mark.parametrize("kind", ["webp", "webp with alpha", "deflate", "lerc", "webp in tif", "jp2"])
def test_masks_of_the_same_formats_without_loss_are_read(tmp_path: Path, kind: str):
    colours = np.concatenate([COLOURS, np.zeros((253, 3), np.uint8)])[LABELS]
    if kind.startswith("webp w") or kind == "webp":
        opaque = np.full((*LABELS.shape, 1), 200, np.uint8)
        values = np.concatenate([colours, opaque], axis=2) if "alpha" in kind else colours
        path = save_image(tmp_path / "mask.webp", values, lossless=True)
    elif kind == "webp in tif":
        path = write_tif(tmp_path / "mask.tif", colours.transpose(2, 0, 1), compress="WEBP", webp_lossless=True)
    elif kind == "jp2":
        path = write_tif(tmp_path / "m.jp2", LABELS[None], driver="JP2OpenJPEG", reversible="YES", quality=100)
        with rasterio.open(path) as stored:
            np.testing.assert_array_equal(stored.read(1), LABELS)
    else:
        path = write_tif(tmp_path / "mask.tif", LABELS[None], compress=kind)
    np.testing.assert_array_equal(read_mask(path, CLASSES), LABELS)


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255, 255], "three equal bands, with the values 0, 255 .*255 rewritten as 1, in one band"),
        ([0, 1, 2], r"three equal bands, with the values 0, 1, 2 .*keep one band: gdal_translate -b 1"),
        ([1, 1, 1], "three equal bands, with the values 1 "),
    ],
)
def test_a_grey_mask_stored_as_colour_is_told(tmp_path: Path, values: list[int], message: str, suffix: str, bands: int):
    grey = np.tile(np.array(values, np.uint8)[:, None, None], (1, 4, bands))
    path = tmp_path / f"mask.{suffix}"
    save_image(path, grey) if suffix == "png" else write_tif(path, grey.transpose(2, 0, 1))
    with pytest.raises(ClassMismatch, match=message):
        read_mask(path, CLASSES)


def test_grey_colours_of_classes_and_unlabelled_masks_are_read(tmp_path: Path):
    black = save_image(tmp_path / "black.png", np.zeros((2, 2, 3)))
    assert (read_mask(black, CLASSES) == 255).all()
    greys = ClassMap(names=("a", "b"), palette=((0, 0, 0), (255, 255, 255)))
    path = save_image(tmp_path / "mask.png", np.array([[[0] * 3, [255] * 3]]))
    assert read_mask(path, greys).tolist() == [[0, 1]]


def test_two_classes_of_one_colour_are_refused_where_colours_are_read(tmp_path: Path):
    classes = ClassMap(names=("a", "b", "c"), palette=((1, 2, 3), (9, 9, 9), (9, 9, 9)))
    path = save_image(tmp_path / "mask.png", np.array([[[1, 2, 3], [1, 2, 3]]]))
    with pytest.raises(ClassMismatch, match=r"colour \[9, 9, 9\] stands twice \('b', 'c'\)"):
        read_mask(path, classes)
    assert read_mask(save_image(tmp_path / "index.png", np.array([[1, 2]])), classes).tolist() == [[1, 2]]


def test_16_bit_colours_are_no_8_bit_ones(tmp_path: Path):
    """(0, 0, 256) counted in base 256 is (0, 1, 0)."""
    classes = ClassMap(names=("a", "b"), palette=((0, 1, 0), (9, 9, 9)))
    values = np.array([[[0, 0]], [[0, 1]], [[256, 0]]], np.uint16)
    with pytest.raises(ClassMismatch, match=r"holds colour \(0, 0, 256\)"):
        read_mask(write_tif(tmp_path / "mask.tif", values), classes)
    values[:, 0] = np.array([[0], [257], [0]])
    with pytest.raises(ClassMismatch, match=r"holds colour \(0, 257, 0\)"):
        read_mask(write_tif(tmp_path / "mask.tif", values), classes)
