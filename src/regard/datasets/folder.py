"""A folder of images and masks, in regard's layout, in mmsegmentation's, or as one scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.labelled_scene import scene_splits
from regard.datasets.polygon_scenes import scenes_with_polygons
from regard.datasets.public import known_folder, known_name
from regard.errors import ConfigError, DatasetError
from regard.io.image import PHOTOGRAPHS, RASTERS

SPLITS = ("train", "val", "test")
MASK_SUFFIXES = ("", "_labelTrainIds", "_mask", "_label", "_gt")


def folder(
    root: str | Path, *, classes: ClassMap | Sequence[str] | None = None, bands: Sequence[int | str] | None = None
) -> LabelledData:
    """The labelled data under ``root``.

    Three layouts are read: ``images/``, ``masks/``, ``classes.json`` with ``train.txt``, ``val.txt``, ``test.txt`` (one
    stem a line); ``img_dir/SPLIT``, ``ann_dir/SPLIT``, as mmsegmentation has it; and one georeferenced scene:
    ``image.tif``, ``mask.tif`` and, optionally, ``split.tif`` (0 train, 1 val, 2 test). ``NAME:FOLDER`` is a public
    data set in its own layout: see :data:`regard.datasets.public.KNOWN`. A ``.json`` file describes scenes and
    the polygons over them: see :class:`regard.datasets.polygon_scenes.Scenes`.

    Raises:
        DatasetError: a part is missing or empty, or the parts contradict each other.
        ConfigError: ``classes`` for data that say theirs.
    """
    base = Path(root)
    described = base.suffix == ".json" and base.is_file()
    if classes is not None and (known_name(root) or described):
        raise ConfigError(f"{root} has classes of its own. Leave classes out.")
    if known_name(root):
        data = known_folder(root)
        return replace(data, bands=tuple(bands) if bands else None)
    if described:
        return replace(scenes_with_polygons(base), bands=tuple(bands) if bands else None)
    if not base.is_dir():
        raise DatasetError(f"{base} is no folder. Give one with images/, masks/ and classes.json.")
    named = ClassMap.of(classes) if classes is not None else ClassMap.read(base / "classes.json")
    if (base / "images").is_dir():
        splits = _listed_splits(base)
    elif (base / "img_dir").is_dir():
        splits = _mmseg_splits(base)
    elif (base / "image.tif").is_file():
        splits = scene_splits(base)
    else:
        raise DatasetError(
            f"{base} has no images/ (or img_dir/, or image.tif). Put the images there and their masks in masks/."
        )
    return LabelledData(base, named, splits, tuple(bands) if bands else None)


def _listed_splits(base: Path) -> dict[str, tuple[Pair, ...]]:
    images, masks = _by_stem(base / "images"), _by_stem(base / "masks")
    lists = {name: base / f"{name}.txt" for name in SPLITS if (base / f"{name}.txt").is_file()}
    if not lists:
        raise DatasetError(
            f"{base} has no train.txt. Write the stems of the training images into it, one a line; val.txt too."
        )
    splits = {name: tuple(_pair(stem, images, masks, base) for stem in _stems(path)) for name, path in lists.items()}
    _check_disjoint(splits, base)
    return splits


def _mmseg_splits(base: Path) -> dict[str, tuple[Pair, ...]]:
    splits = {}
    for split in SPLITS:
        if not (base / "img_dir" / split).is_dir():
            continue
        images, masks = _by_stem(base / "img_dir" / split), _by_stem(base / "ann_dir" / split)
        listed = base / "split" / f"{split}.txt"
        stems = _stems(listed) if listed.is_file() else sorted(images)
        splits[split] = tuple(_pair(stem, images, masks, base) for stem in stems)
    if not splits:
        raise DatasetError(f"{base / 'img_dir'} has none of the folders train, val, test. Make them.")
    return splits


def _by_stem(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise DatasetError(f"{path} is missing. Put one file per image there, named alike.")
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in PHOTOGRAPHS + RASTERS]
    if not files:
        raise DatasetError(f"{path} holds no images ({', '.join(PHOTOGRAPHS + RASTERS)}). Put them there.")
    stems = {file.stem: file for file in files}
    if len(stems) < len(files):
        twice = next(file for file in files if stems[file.stem] != file)
        raise DatasetError(f"{path} holds both {twice.name} and {stems[twice.stem].name}. Keep one.")
    return stems


def _stems(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no list in UTF-8 ({error}). Write one image stem a line.") from None
    stems = [stem_of(line) for line in lines if line]
    if not stems:
        raise DatasetError(f"{path} is empty. Write one image stem a line.")
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise DatasetError(f"{path} lists {sorted(twice)[0]} twice. Keep one line.")
    return stems


def stem_of(line: str) -> str:
    """The stem that a line of a list names, with or without the suffix of an image."""
    return Path(line).stem if Path(line).suffix.lower() in PHOTOGRAPHS + RASTERS else line


def _pair(stem: str, images: dict[str, Path], masks: dict[str, Path], base: Path) -> Pair:
    if stem not in images:
        raise DatasetError(f"{base}: the split lists {stem}, but there is no image of that name. Correct the list.")
    mask = next((masks[stem + suffix] for suffix in MASK_SUFFIXES if stem + suffix in masks), None)
    if mask is None:
        raise DatasetError(
            f"{base}: image {images[stem].name} has no mask. Add {stem}.png to the masks, or take it off the list."
        )
    return Pair(stem, images[stem], mask)


def _check_disjoint(splits: dict[str, tuple[Pair, ...]], base: Path) -> None:
    seen: dict[str, str] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            if pair.name in seen:
                raise DatasetError(
                    f"{base}: {pair.name} is in {seen[pair.name]}.txt and in {split}.txt: scores would lie. Keep one."
                )
            seen[pair.name] = split
