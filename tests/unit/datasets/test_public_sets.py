"""Public data sets in their own layouts, made small: what is found, and what its labels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regard.datasets.folder import folder
from regard.datasets.public import layouts
from regard.doctor.audit import audit
from regard.errors import ClassMismatch, DatasetError
from support import save_image, write_tif

IMAGE = np.full((6, 8, 3), 90)
CONTEXT = [(f"JPEGImages/{stem}.jpg", f"SegmentationClassContext/{stem}.png") for stem in "ab"]
SETS: dict[str, tuple[list[tuple[str, str]], list[int], list[int]]] = {  # files; values of a mask; their labels
    "ade20k": (
        [
            ("images/training/a.jpg", "annotations/training/a.png"),
            ("images/validation/b.jpg", "annotations/validation/b.png"),
        ],
        [0, 1, 150, 4],
        [255, 0, 149, 3],
    ),
    "camvid": ([("train/a.png", "trainannot/a.png"), ("val/b.png", "valannot/b.png")], [0, 10, 11, 3], [0, 10, 255, 3]),
    "cityscapes": (
        [
            ("leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", "gtFine/train/ulm/ulm_1_gtFine_labelIds.png"),
            ("leftImg8bit/val/bonn/bonn_2_leftImg8bit.png", "gtFine/val/bonn/bonn_2_gtFine_labelIds.png"),
        ],
        [0, 7, 33, 29],
        [255, 0, 18, 255],
    ),
    "coco_stuff_10k": (
        [
            ("images/train2014/a.jpg", "annotations/train2014/a_labelTrainIds.png"),
            ("images/test2014/b.jpg", "annotations/test2014/b_labelTrainIds.png"),
        ],
        [0, 1, 171, 80],
        [255, 0, 170, 79],
    ),
    "coco_stuff_164k": (
        [
            ("images/train2017/1.jpg", "annotations/train2017/1.png"),
            ("images/val2017/2.jpg", "annotations/val2017/2.png"),
        ],
        [0, 12, 181, 255],
        [0, 11, 170, 255],
    ),
    "loveda": (
        [
            ("Train/Rural/images_png/1.png", "Train/Rural/masks_png/1.png"),
            ("Val/Urban/images_png/2.png", "Val/Urban/masks_png/2.png"),
        ],
        [0, 1, 7, 2],
        [255, 0, 6, 1],
    ),
    "pascal_context_59": (CONTEXT, [0, 1, 59, 7], [255, 0, 58, 6]),
    "pascal_context_60": (CONTEXT, [0, 1, 59, 7], [0, 1, 59, 7]),
    "voc": (
        [("JPEGImages/a.jpg", "SegmentationClass/a.png"), ("JPEGImages/b.jpg", "SegmentationClass/b.png")],
        [0, 20, 255, 5],
        [0, 20, 255, 5],
    ),
    "voc_aug": (
        [("JPEGImages/a.jpg", "SegmentationClassAug/a.png"), ("JPEGImages/b.jpg", "SegmentationClass/b.png")],
        [0, 20, 255, 5],
        [0, 20, 255, 5],
    ),
}


def mask_of(values: list[int]) -> np.ndarray:
    return np.repeat(np.array(values, dtype=np.uint8), 2)[None].repeat(6, axis=0)


@pytest.mark.parametrize("name", SETS)
def test_index_masks(name: str, tmp_path: Path):
    files, values, labels = SETS[name]
    for image, mask in files:
        save_image(tmp_path / image, IMAGE)
        save_image(tmp_path / mask, mask_of(values))
    if (listed := layouts()[name].listed) is not None:
        for split, stem in (("train", "a"), ("val", "b")):
            path = tmp_path / listed.format(layouts()[name].names[split])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{stem}\n")
    data = folder(f"{name}:{tmp_path}")
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 1, "val": 1}
    assert [data.split(split)[0].image for split in ("train", "val")] == [tmp_path / image for image, _ in files]
    assert not any("/" in pair.name for pairs in data.splits.values() for pair in pairs)
    sample = data.read(data.split("val")[0])
    assert sample.labels[0, ::2].tolist() == labels
    assert not any(one.kind in ("labels", "unreadable") for one in audit(f"{name}:{tmp_path}").findings)
    assert "stored" not in data.classes.model_dump() and len(data.classes) > max(set(labels) - {255})
    if layouts()[name].stored:
        save_image(tmp_path / files[0][1], mask_of([200, 1, 2, 3]))
        with pytest.raises(ClassMismatch, match="holds value 200"):
            data.read(data.split("train")[0])
        assert any(one.kind == "labels" for one in audit(f"{name}:{tmp_path}").findings)
    (tmp_path / files[0][1]).unlink()
    with pytest.raises(DatasetError, match="has no mask"):
        folder(f"{name}:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "image", "mask", "areas"),
    [
        ("potsdam", "2_Ortho_RGB/top_potsdam_{}_RGB.tif", "5_Labels_all/top_potsdam_{}_label.tif", ("6_7", "7_13")),
        ("vaihingen", "top/top_mosaic_09cm_area{}.tif", "gts/top_mosaic_09cm_area{}.tif", ("37", "38")),
    ],
)
def test_colour_masks(name: str, image: str, mask: str, areas: tuple[str, str], tmp_path: Path):
    colours = np.zeros((3, 6, 8), dtype=np.uint8)
    colours[:, :, :4] = 255  # impervious
    colours[2, :, 4:] = 255  # building
    for area in areas:
        write_tif(tmp_path / image.format(area), IMAGE.transpose(2, 0, 1).astype(np.uint8))
        write_tif(tmp_path / mask.format(area), colours)
    data = folder(f"{name}:{tmp_path}", bands=(1, 2))
    assert [data.split(split)[0].name for split in ("train", "val")] == list(areas)
    sample = data.read(data.split("train")[0])
    assert sample.image.shape == (2, 6, 8) and sample.labels[0].tolist() == [0] * 4 + [1] * 4


def test_each_split_names_an_area_once_and_a_foreign_folder_is_refused(tmp_path: Path):
    for name in ("potsdam", "vaihingen"):
        both = " ".join(layouts()[name].areas.values()).split()
        assert len(both) == len(set(both)) == {"potsdam": 38, "vaihingen": 33}[name]
    with pytest.raises(DatasetError, match="no training images of cityscapes"):
        folder(f"cityscapes:{tmp_path}")


def test_coco_names_follow_its_labels(tmp_path: Path):
    """Labels of the set's own list (13 stop sign, 90 toothbrush, 92 banner, 182 wood), stored less one."""
    for split in ("train2017", "val2017"):
        save_image(tmp_path / f"images/{split}/1.jpg", IMAGE)
        save_image(tmp_path / f"annotations/{split}/1.png", mask_of([13 - 1, 90 - 1, 92 - 1, 182 - 1]))
    data = folder(f"coco_stuff_164k:{tmp_path}")
    found = data.read(data.split("val")[0]).labels[0, ::2]
    assert [data.classes.names[label] for label in found] == ["stop sign", "toothbrush", "banner", "wood"]


def test_isaid(tmp_path: Path):
    colours = np.zeros((6, 8, 3), dtype=np.uint8)  # background
    colours[:, 2:4], colours[:, 4:] = (0, 0, 63), (0, 100, 155)
    for split, stem in (("train", "P0000"), ("val", "P0003")):
        save_image(tmp_path / f"{split}/images/{stem}.png", IMAGE)
        save_image(tmp_path / f"{split}/Semantic_masks/images/{stem}_instance_color_RGB.png", colours)
    data = folder(f"isaid:{tmp_path}")
    labels = data.read(data.split("val")[0]).labels[0, ::2]
    assert [data.classes.names[label] for label in labels] == ["background", "ship", "Harbor", "Harbor"]
