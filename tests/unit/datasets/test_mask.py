"""Masks of every kind give the labels that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
