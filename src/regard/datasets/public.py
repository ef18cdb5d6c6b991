"""Public data sets in their own folder layouts: ``cityscapes:FOLDER`` where a data folder is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from regard.classes import ClassMap, known_classes
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import DatasetError, unknown


class Layout(NamedTuple):
    """Where a data set keeps its parts, with ``*`` for what names an image; ``{}`` stands for the split.

    ``names`` are the split's own word for train, val and test; ``listed`` a list of names; ``areas`` the names of each
    split where the set has neither; ``stored`` and ``ignored`` the values in its masks if they are not the labels;
    ``second`` where a mask is that is not at ``mask``; ``classes`` the list of classes, if it has another name.
    """

    image: str
    mask: str
    names: Mapping[str, str]
    listed: str | None = None
    areas: Mapping[str, str] = {}
    stored: tuple[int, ...] | None = None
    ignored: tuple[int, ...] = ()
    second: str | None = None
    classes: str | None = None


THREE = {"train": "train", "val": "val", "test": "test"}
TWO = {"train": "train", "val": "val"}

CONTEXT = "ImageSets/SegmentationContext/{}.txt"
NOT_IN_COCO = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # of the 182 labels of its stuffthingmaps

# Sources: the data sets' own files; from mmsegmentation 1.2.2 the splits of Potsdam and Vaihingen, and, as its tools
# write them, the masks of PASCAL Context, COCO-Stuff 10k and the SBD part of VOC-aug (published as .mat and JSON).
PUBLIC: dict[str, Layout] = {
    "ade20k": Layout(
        "images/{}/*.jpg",
        "annotations/{}/*.png",
        {"train": "training", "val": "validation"},
        stored=tuple(range(1, 151)),
        ignored=(0,),
    ),
    "camvid": Layout("{}/*.png", "{}annot/*.png", THREE, stored=tuple(range(11)), ignored=(11,)),
    "cityscapes": Layout(
        "leftImg8bit/{}/*_leftImg8bit.png",
        "gtFine/{}/*_gtFine_labelIds.png",
        TWO,
        stored=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
        ignored=(-1, *range(7), 9, 10, 14, 15, 16, 18, 29, 30),
    ),
    "coco_stuff_10k": Layout(
        "images/{}/*.jpg",
        "annotations/{}/*_labelTrainIds.png",
        {"train": "train2014", "val": "test2014"},
        stored=tuple(range(1, 172)),
        ignored=(0,),
        classes="coco_stuff",
    ),
    "coco_stuff_164k": Layout(
        "images/{}/*.jpg",
        "annotations/{}/*.png",
        {"train": "train2017", "val": "val2017"},
        stored=tuple(value for value in range(182) if value not in NOT_IN_COCO),
        classes="coco_stuff",
    ),
    "isaid": Layout("{}/images/*.png", "{}/Semantic_masks/images/*_instance_color_RGB.png", TWO),
    "loveda": Layout("{}/*.png", "{}/*.png", {"train": "Train", "val": "Val"}, stored=tuple(range(1, 8)), ignored=(0,)),
    "pascal_context_59": Layout(
        "JPEGImages/*.jpg",
        "SegmentationClassContext/*.png",
        TWO,
        listed=CONTEXT,
        stored=tuple(range(1, 60)),
        ignored=(0,),
    ),
    "pascal_context_60": Layout("JPEGImages/*.jpg", "SegmentationClassContext/*.png", TWO, listed=CONTEXT),
    "potsdam": Layout(
        "2_Ortho_RGB/top_potsdam_*_RGB.tif",
        "5_Labels_all/top_potsdam_*_label.tif",
        TWO,
        areas={
            "train": "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 "
            "7_7 7_8 7_9 7_10 7_11 7_12",
            "val": "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13",
        },
    ),
    "vaihingen": Layout(
        "top/top_mosaic_09cm_area*.tif",
        "gts/top_mosaic_09cm_area*.tif",
        TWO,
        areas={
            "train": "1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37",
            "val": "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38",
        },
    ),
    "voc": Layout("JPEGImages/*.jpg", "SegmentationClass/*.png", TWO, listed="ImageSets/Segmentation/{}.txt"),
    "voc_aug": Layout(
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        {"train": "trainaug", "val": "val"},
        listed="ImageSets/Segmentation/{}.txt",
        second="SegmentationClassAug/*.png",
        classes="voc",
    ),
}


def public_name(root: str | Path) -> str | None:
    """The data set that ``NAME:FOLDER`` names, if it is one.

    Raises:
        UnknownName: it looks like that, but no data set has this name.
    """
    name, colon, _ = str(root).partition(":")
    if not colon or Path(root).exists():
        return None
    if name not in PUBLIC and name.isidentifier() and len(name) > 1:  # one letter is a drive
        raise unknown("data set", name, PUBLIC)
    return name if name in PUBLIC else None


def public_folder(root: str | Path) -> LabelledData:
    """The labelled data of ``NAME:FOLDER``.

    Raises:
        DatasetError: the folder does not hold the data set in its layout, or an image has no mask.
    """
    name, _, place = str(root).partition(":")
    layout, base = PUBLIC[name], Path(place)
    update = {"stored": layout.stored, "stored_ignored": layout.ignored}
    classes = known_classes(layout.classes or name).model_copy(update=update)
    splits: dict[str, tuple[Pair, ...]] = {}
    for split, word in layout.names.items():
        pairs = _pairs(base, layout, split, word) if name != "loveda" else _loveda(base, word)
        splits |= {split: tuple(pairs)} if pairs else {}
    if "train" not in splits:
        raise DatasetError(
            f"{base} holds no training images of {name}: there is no {layout.image.format(layout.names['train'])}. "
            "Unpack the set there as it was published."
        )
    return LabelledData(base, ClassMap.of(classes), splits)


def _pairs(base: Path, layout: Layout, split: str, word: str) -> list[Pair]:
    before, after = (base / layout.image.format(word)).as_posix().split("*")
    place, start = Path(before + "x").parent, (before + "x").rsplit("/", 1)[1][:-1]
    names = _names(base, layout, split, word)
    if names is None:
        files = sorted(path.relative_to(place).as_posix() for path in place.rglob(f"{start}*{after}"))
        names = [file[len(start) : len(file) - len(after)] for file in files]
    pairs = [(name, base / layout.image.format(word).replace("*", name)) for name in names]
    return [
        _pair(base, name, image, layout.mask.format(word), layout.second) for name, image in pairs if image.is_file()
    ]


def _names(base: Path, layout: Layout, split: str, word: str) -> list[str] | None:
    if layout.areas:
        return layout.areas[split].split()
    if layout.listed is None:
        return None
    path = base / layout.listed.format(word)
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def _pair(base: Path, name: str, image: Path, mask: str, second: str | None = None) -> Pair:
    path = base / mask.replace("*", name)
    if second is not None and not path.is_file():
        path = base / second.replace("*", name)
    if not path.is_file():
        raise DatasetError(f"{image} has no mask: {path} is missing. Unpack the labels too.")
    return Pair(name.replace("/", "_"), image, path)


def _loveda(base: Path, word: str) -> list[Pair]:
    images = sorted((base / word).glob("*/images_png/*.png"))
    return [_pair(base, path.stem, path, f"{word}/{path.parent.parent.name}/masks_png/*.png") for path in images]
