"""A folder of images and masks: regard's layout, mmsegmentation's, one scene, a public set, or scenes with polygons."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from regard.classes import ClassMap
from regard.datasets.labelled_data import SPLITS, LabelledData, Pair
from regard.datasets.labelled_scene import scene_splits
from regard.datasets.polygon_description import VECTORS, describe_it
from regard.datasets.polygon_scenes import polygon_scenes
from regard.datasets.public import public_folder, public_name
from regard.errors import ConfigError, DatasetError, RegardError, counted, listed, near
from regard.io.image import RASTERS
from regard.io.source import PHOTOGRAPHS
from regard.io.vectors import layer_of

NO_SPLIT = "unlisted"  # the key of images that are in no split
IMAGES = PHOTOGRAPHS + RASTERS  # suffixes
MASK_SUFFIXES = ("", "_labelTrainIds", "_mask", "_label", "_gt")
Grade = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something that a person should know about a data set, and the files that it is about."""

    grade: Grade
    kind: str
    message: str
    files: tuple[str, ...] = ()


@dataclass
class Scan:
    """The pairs of each split as far as they exist, and the findings; ``error`` is the first that forbids training.

    ``classes`` is None where they cannot be read. Images in no split are under ``NO_SPLIT``.
    """

    root: Path
    classes: ClassMap | None = None
    splits: dict[str, tuple[Pair, ...]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    gsd: float | None = None
    error: RegardError | None = None

    def add(self, grade: Grade, kind: str, message: str, *files: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(grade, kind, message, files))
        if grade == "error":
            self.error = self.error or DatasetError(f"{self.root}: {message}")

    @contextmanager
    def catching(self, kind: str, *files: str) -> Iterator[None]:
        """Turn an error of regard into a finding."""
        try:
            yield
        except RegardError as error:
            self.findings.append(Finding("error", kind, str(error), files))
            self.error = self.error or error


def folder(
    root: str | Path, *, classes: ClassMap | Sequence[str] | None = None, bands: Sequence[int | str] | None = None
) -> LabelledData:
    """The labelled data under ``root``.

    Three layouts are read: ``images/``, ``masks/``, ``classes.json`` with ``train.txt``, ``val.txt``, ``test.txt`` (one
    stem per line); ``img_dir/SPLIT``, ``ann_dir/SPLIT``, as in mmsegmentation; and one georeferenced scene:
    ``image.tif``, ``mask.tif`` and, optionally, ``split.tif`` (0 train, 1 val, 2 test). ``NAME:FOLDER`` is a public
    data set in its own layout: see :func:`regard.datasets.public.layouts`. A ``.json`` file describes scenes and
    the polygons over them: see :class:`regard.datasets.polygon_description.PolygonScenes`.

    Args:
        root: The folder, ``NAME:FOLDER``, or the ``.json`` file.
        classes: Class names or a class map in place of ``classes.json``.
        bands: Which bands of the images to read, by number from 1 or by name, in this order.

    Raises:
        DatasetError: a part is missing or empty, or the parts contradict each other.
        ConfigError: ``classes`` for data that bring their own.
    """
    found = scan(root, classes=classes)
    if found.error is not None:
        raise found.error
    assert found.classes is not None
    splits = {name: pairs for name, pairs in found.splits.items() if name != NO_SPLIT}
    return LabelledData(found.root, found.classes, splits, tuple(bands) if bands else None, found.gsd)


def scan(root: str | Path, *, classes: ClassMap | Sequence[str] | None = None) -> Scan:
    """Everything that :func:`folder` finds under ``root``; its faults are findings, not exceptions.

    ``root`` that is not a folder is a DatasetError, ``classes`` for data that bring their own are a ConfigError.
    """
    base = Path(root)
    if layer_of(root)[0].suffix.lower() in VECTORS:
        raise DatasetError(describe_it(base))
    public, described = public_name(root), base.suffix == ".json" and os.path.isfile(base)
    if classes is not None and (public or described):
        raise ConfigError(f"{root} has classes of its own. Leave classes out.")
    if base.suffix == ".json" and not os.path.exists(base):
        raise DatasetError(f"{base} does not exist. Give a .json that describes scenes and polygons, or a folder.")
    if not (public or described or os.path.isdir(base)):
        model = " It is a model: --init begins with it." if base.suffix in (".safetensors", ".onnx") else near(base)
        raise DatasetError(f"{base} is not a folder.{model} Give one with images/, masks/ and classes.json.")
    found = Scan(base)
    if public or described:
        with found.catching("layout" if public else "polygons", base.name):
            data = public_folder(root) if public else polygon_scenes(base)
            found.root, found.classes, found.splits, found.gsd = data.root, data.classes, dict(data.splits), data.gsd
        return found
    if not _has_layout(base):
        _check_level(base)
    with found.catching("classes", "classes.json"):
        found.classes = ClassMap.of(classes) if classes is not None else ClassMap.read(base / "classes.json")
    with found.catching("layout", base.name):
        if (base / "images").is_dir():
            _scan_lists(found)
        elif (base / "img_dir").is_dir():
            _scan_mmseg(found)
        elif (base / "image.tif").is_file():
            found.splits = scene_splits(base)
        else:
            raise DatasetError(f"{base} has no images/, img_dir/ or image.tif. Put images there and masks in masks/.")
    return found


def _has_layout(base: Path) -> bool:
    return (base / "images").is_dir() or (base / "img_dir").is_dir() or (base / "image.tif").is_file()


def _check_level(base: Path) -> None:
    """Refuse a folder without data whose parents or children have them: it is a level too low or too high."""
    whole = base.resolve()
    above = [folder for folder in whole.parents[:2] if _has_layout(folder)]
    near_by = above[:1] or [folder for folder in sorted(whole.iterdir()) if folder.is_dir() and _has_layout(folder)]
    if near_by:
        raise DatasetError(
            f"{base} lies {'inside a data set' if above else 'above data sets'}. Give {listed(near_by)}."
        )


def _scan_lists(found: Scan) -> None:
    images, masks = _files_by_stem(found, "images"), _files_by_stem(found, "masks")
    lists = {split: found.root / f"{split}.txt" for split in SPLITS}
    stems = {split: _stems(found, path) for split, path in lists.items() if path.is_file()}
    if not stems:
        message = "there is no train.txt. Write the stems of the training images into it, one per line."
        found.add("error", "splits", message)
    found.splits = {split: _pairs(found, names, images, masks, split) for split, names in stems.items()}
    if "train" in stems and "val" not in stems:
        _miss_val(found)
    _check_disjoint(found)
    taken = {stem for names in stems.values() for stem in names}
    extra = [stem for stem in images if stem not in taken]
    if extra:
        message = f"{counted(len(extra), 'image')} in no split, not used. Add them to a split, or remove them."
        found.add("note", "splits", message, *(images[stem].name for stem in extra))
        found.splits[NO_SPLIT] = _pairs(found, extra, images, masks, NO_SPLIT)
    _check_masks(found, images, masks, "masks")


def _miss_val(found: Scan) -> None:
    """A list of val under another name is an error; without one no training is scored."""
    found.add("warning", "splits", "there is no val.txt: no training is scored, and the last model is the best.")
    for path in found.root.glob("*.txt"):
        if path.stem.lower() in ("val", "valid", "validation", "dev", "eval"):
            found.add("error", "splits", f"{path.name} is not read. Name it val.txt.", path.name)


def _scan_mmseg(found: Scan) -> None:
    present = [split for split in SPLITS if (found.root / "img_dir" / split).is_dir()]
    if not present:
        found.add("error", "layout", "img_dir/ has none of the folders train, val, test. Make them.")
    for split in present:
        images, masks = _files_by_stem(found, f"img_dir/{split}"), _files_by_stem(found, f"ann_dir/{split}")
        listed = found.root / "split" / f"{split}.txt"
        stems = _stems(found, listed) if listed.is_file() else sorted(images)
        found.splits[split] = _pairs(found, stems, images, masks, split)
        _check_masks(found, images, masks, f"ann_dir/{split}")


def _files_by_stem(found: Scan, name: str) -> dict[str, Path]:
    """The images in a folder, by stem."""
    place, files = found.root / name, dict[str, Path]()
    if not place.is_dir():
        found.add("error", "layout", f"{name}/ is missing. Put one file per image there, with the image's name.")
        return files
    for path in sorted(path for path in place.iterdir() if not path.name.startswith(".")):
        if path.suffix.lower() not in IMAGES:
            message = f"{name}/{path.name} is not an image that regard reads; it is ignored."
            found.add("note", "layout", message, path.name)
        elif path.stem in files:
            message = f"{name}/ holds both {files[path.stem].name} and {path.name}. Keep one."
            found.add("error", "layout", message, files[path.stem].name, path.name)
        else:
            files[path.stem] = path
    if not files:
        found.add("error", "layout", f"{name}/ holds no images ({', '.join(IMAGES)}). Put them there.")
    return files


def _stems(found: Scan, path: Path) -> list[str]:
    """The stems that a list names, with or without the suffix of an image, each once."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        found.add("error", "splits", f"{path.name} is not a list in UTF-8 ({error}). Write one stem a line.", path.name)
        return []
    counts = Counter(Path(line).stem if Path(line).suffix.lower() in IMAGES else line for line in lines if line)
    if not counts:
        found.add("error", "splits", f"{path.name} is empty. Write one image stem per line.", path.name)
    for stem in (stem for stem, count in counts.items() if count > 1):
        found.add("error", "splits", f"{path.name} lists {stem} {counts[stem]} times. Keep one line.", stem)
    return list(counts)


def _pairs(
    found: Scan, stems: Iterable[str], images: Mapping[str, Path], masks: Mapping[str, Path], split: str
) -> tuple[Pair, ...]:
    pairs = []
    for stem in stems:
        mask = next((masks[stem + suffix] for suffix in MASK_SUFFIXES if stem + suffix in masks), None)
        if stem not in images:
            message = f"the split {split} lists {stem}, but there is no image of that name. Correct the list."
            found.add("error", "no image", message, stem)
        elif mask is None:
            name = images[stem].name
            message = f"image {name} ({split}) has no mask. Add {stem}.png to the masks, or remove the image."
            found.add("warning" if split == NO_SPLIT else "error", "no mask", message, name)
        else:
            pairs.append(Pair(stem, images[stem], mask))
    return tuple(pairs)


def _check_disjoint(found: Scan) -> None:
    """An image of one name in two splits is a leak."""
    splits: dict[str, list[str]] = defaultdict(list)
    for split, pairs in found.splits.items():
        for pair in pairs:
            splits[pair.name].append(split)
    for name, named in splits.items():
        if len(named) > 1:
            message = f"{name} is in {' and '.join(named)}: scores would be inflated. Keep it in one."
            found.add("error", "leak", message, name)


def _check_masks(found: Scan, images: Mapping[str, Path], masks: Mapping[str, Path], place: str) -> None:
    """Masks without an image."""
    known = {stem + suffix for stem in images for suffix in MASK_SUFFIXES}
    for path in (path for stem, path in masks.items() if stem not in known):
        message = f"{place}/{path.name} has no image. Add the image, or remove the mask."
        found.add("warning", "no image", message, path.name)
