"""Mean and spread against numpy over all pixels at once; labels that cannot be learned from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.datasets.statistics import balanced_weights, check_labels, check_val, class_pixels, divisor_of, measure
from regard.errors import ClassMismatch, DatasetError, UnreadableImage
from support import NAMES, save_image, write_tif


def raster_set(root: Path, images: list[np.ndarray], **profile: object) -> Path:
    (root / "masks").mkdir(parents=True)
    for index, values in enumerate(images):
        write_tif(root / "images" / f"i{index}.tif", values, **profile)
        save_image(root / "masks" / f"i{index}.png", np.arange(values[0].size).reshape(values.shape[1:]) % 3)
    (root / "classes.json").write_text(json.dumps({"names": NAMES}))
    (root / "train.txt").write_text("\n".join(f"i{index}" for index in range(len(images))))
    return root


@pytest.mark.parametrize(
    ("dtype", "divisor"), [("uint8", 255.0), ("uint16", 65535.0), ("float32", 1.0), ("int16", 1.0)]
)
def test_measures_what_numpy_measures(tmp_path: Path, dtype: str, divisor: float):
    rng = np.random.default_rng(2)
    images = [(rng.gamma(2, 20, size=(5, 12 + index, 17)) + 1).astype(dtype) for index in range(4)]
    void = rng.random(images[1].shape[1:]) < 0.2
    images[1][:, void] = 0
    scaling = measure(folder(raster_set(tmp_path / "set", images, nodata=0)), [f"band_{i}" for i in range(5)])
    kept = [images[0], images[2], images[3]]
    values = np.concatenate([images[1][:, ~void], *(image.reshape(5, -1) for image in kept)], axis=1).astype(float)
    assert scaling.divisor == divisor == divisor_of(np.dtype(dtype))
    np.testing.assert_allclose(scaling.mean, values.mean(axis=1) / divisor, rtol=1e-9)
    np.testing.assert_allclose(scaling.std, values.std(axis=1) / divisor, rtol=1e-6)


def test_few_images_stand_for_many(tmp_path: Path):
    images = [np.full((1, 4, 4), index, np.uint8) for index in range(1, 10)]
    scaling = measure(folder(raster_set(tmp_path / "set", images)), ["a"], images=3)
    assert scaling.mean[0] * 255 == pytest.approx((1 + 5 + 9) / 3)


def test_a_constant_band_is_refused_by_name(tmp_path: Path):
    images = [np.random.default_rng(0).integers(1, 9, size=(2, 8, 8), dtype=np.uint8) for _ in range(2)]
    for image in images:
        image[1] = 7
    with pytest.raises(DatasetError, match=r"band b is constant \(0.0275\)"):
        measure(folder(raster_set(tmp_path / "set", images)), ["a", "b"])


def test_images_without_a_valid_pixel_are_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="no training image has a valid pixel"):
        measure(folder(raster_set(tmp_path / "set", [np.zeros((2, 8, 8), np.uint8)], nodata=0)), ["a", "b"])


def relabelled(root: Path, values: list[int]) -> Path:
    """The data set with every mask painted in these values only."""
    for mask in (root / "masks").iterdir():
        save_image(mask, np.resize(np.array(values), (40, 48)))
    return root


def test_masks_of_0_and_255_are_refused_before_training(set_folder: Path):
    """The commonest mask of two classes: 255 is 'no class', so only class 0 would be learned."""
    with pytest.raises(ClassMismatch, match=r"only class 0 'red thing' and 255 \(no class\).*rewritten as 1"):
        check_labels(folder(relabelled(set_folder, [0, 255])))


def test_masks_of_one_class_or_none_are_refused(set_folder: Path):
    with pytest.raises(ClassMismatch, match="only class 2 'blue thing'"):
        check_labels(folder(relabelled(set_folder, [2])))
    with pytest.raises(ClassMismatch, match=r"only 255 \(no class\)"):
        check_labels(folder(relabelled(set_folder, [255])))


def test_two_classes_in_different_masks_are_enough(set_folder: Path):
    relabelled(set_folder, [0])
    save_image(set_folder / "masks" / "tile3.png", np.ones((40, 48)))
    check_labels(folder(set_folder))


def test_class_pixels_and_their_weights(toy: LabelledData):
    pixels = class_pixels(toy)
    for row, pair in zip(pixels, toy.split("train"), strict=True):
        labels = np.array(Image.open(pair.mask))
        assert row.tolist() == [int((labels == label).sum()) for label in range(3)]
    weights = balanced_weights(np.array([[98, 1, 0], [0, 1, 0]]))
    raw = [1 / math.log(1.02 + share) for share in (0.98, 0.02, 0.0)]
    assert weights == pytest.approx([3 * value / sum(raw) for value in raw])


def test_a_split_val_that_cannot_be_scored_is_refused_before_the_training(set_folder: Path):
    data, bands = folder(set_folder), ("red", "green", "blue")
    check_val(data, bands, progress=False)
    for stem in ("tile4", "tile5"):
        save_image(set_folder / "masks" / f"{stem}.png", np.full((40, 48), 255))
    with pytest.raises(DatasetError, match=r"the split val has no labelled pixel; nothing can be scored. Label its"):
        check_val(data, bands, progress=False)
    (set_folder / "images" / "tile5.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"tile5\.png"):
        check_val(data, bands, progress=False)
    (set_folder / "val.txt").unlink()
    check_val(folder(set_folder), bands, progress=False)
