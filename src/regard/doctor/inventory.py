"""What lies in a data folder, taken down without refusing anything: the pairs by split, and what is amiss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from regard.classes import ClassMap
from regard.datasets.folder import MASK_SUFFIXES, SPLITS, folder, stem_of
from regard.datasets.labelled_data import Pair
from regard.datasets.public import known_name
from regard.errors import DatasetError, RegardError
from regard.io.image import PHOTOGRAPHS, RASTERS

Grade = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something that a person should know about a data set, and the files that it is about."""

    grade: Grade
    kind: str
    message: str
    files: tuple[str, ...] = ()


@dataclass
class Inventory:
    """The pairs of each split as far as they exist; ``classes`` is None when classes.json cannot be read."""

    root: Path
    classes: ClassMap | None = None
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def note(self, grade: Grade, kind: str, message: str, *files: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(grade, kind, message, files))


def take_inventory(root: str | Path) -> Inventory:
    """The pairs under ``root``, in any of the layouts of :func:`regard.datasets.folder.folder`.

    Raises:
        DatasetError: ``root`` is no folder, or holds none of the layouts.
    """
    base = Path(root)
    stock = Inventory(base)
    if known_name(root):
        _take_whole(stock, root, "layout")
        return stock
    if base.suffix == ".json" and base.is_file():
        _take_whole(stock, base, "polygons")
        return stock
    if not base.is_dir():
        raise DatasetError(f"{base} is no folder. Give one with images/, masks/ and classes.json.")
    try:
        stock.classes = ClassMap.read(base / "classes.json")
    except RegardError as error:
        stock.note("error", "classes", str(error), "classes.json")
    if (base / "images").is_dir():
        _take_listed(stock)
    elif (base / "img_dir").is_dir():
        _take_mmseg(stock)
    elif stock.classes is not None:
        _take_whole(stock, base, "layout")
    return stock


def _take_whole(stock: Inventory, root: str | Path, kind: str) -> None:
    """Classes and pairs as they are read for training, or why they cannot be."""
    try:
        data = folder(root)
    except RegardError as error:
        stock.note("error", kind, str(error), stock.root.name)
    else:
        stock.classes, stock.splits = data.classes, {name: list(pairs) for name, pairs in data.splits.items()}


def _take_listed(stock: Inventory) -> None:
    images, masks = _files(stock, "images"), _files(stock, "masks")
    named = Counter[str]()
    for split in SPLITS:
        path = stock.root / f"{split}.txt"
        if path.is_file():
            stems = _list(stock, path)
            named.update(stems)
            stock.splits[split] = _pairs(stock, stems, images, masks, split)
    _compare_splits(stock)
    if not stock.splits:
        stock.note("error", "splits", "there is no train.txt. Write the stems of the training images into it.")
    unlisted = [stem for stem in images if stem not in named]
    if unlisted:
        what = f"{len(unlisted)} images are on no list and are not used. Add them to a split, or take them away."
        stock.note("note", "splits", what, *(images[stem].name for stem in unlisted))
        stock.splits["unlisted"] = _pairs(stock, unlisted, images, masks, "unlisted")
    _find_orphans(stock, images, masks, "masks")


def _take_mmseg(stock: Inventory) -> None:
    for split in SPLITS:
        if not (stock.root / "img_dir" / split).is_dir():
            continue
        images, masks = _files(stock, f"img_dir/{split}"), _files(stock, f"ann_dir/{split}")
        listed = stock.root / "split" / f"{split}.txt"
        stems = _list(stock, listed) if listed.is_file() else sorted(images)
        stock.splits[split] = _pairs(stock, stems, images, masks, split)
        _find_orphans(stock, images, masks, f"ann_dir/{split}")


def _files(stock: Inventory, name: str) -> dict[str, Path]:
    """Images of a folder by stem; other files and second files of a stem become findings."""
    place = stock.root / name
    if not place.is_dir():
        stock.note("error", "layout", f"{name}/ is missing. Put one file per image there, named alike.")
        return {}
    files: dict[str, Path] = {}
    for path in sorted(path for path in place.iterdir() if not path.name.startswith(".")):
        if path.suffix.lower() not in PHOTOGRAPHS + RASTERS:
            stock.note(
                "note", "layout", f"{name}/{path.name} is no image that regard reads; it is passed over.", path.name
            )
        elif path.stem in files:
            what = f"{name}/ holds both {files[path.stem].name} and {path.name}. Keep one."
            stock.note("error", "layout", what, files[path.stem].name, path.name)
        else:
            files[path.stem] = path
    return files


def _list(stock: Inventory, path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        stock.note("error", "splits", f"{path.name} is no list in UTF-8 ({error}). Write one stem a line.", path.name)
        return []
    counts = Counter(stem_of(line) for line in lines if line)
    if not counts:
        stock.note("error", "splits", f"{path.name} is empty. Write one image stem a line.", path.name)
    for stem in (stem for stem, count in counts.items() if count > 1):
        stock.note("error", "splits", f"{path.name} lists {stem} {counts[stem]} times. Keep one line.", stem)
    return list(counts)


def _pairs(
    stock: Inventory, stems: Iterable[str], images: Mapping[str, Path], masks: Mapping[str, Path], split: str
) -> list[Pair]:
    pairs = []
    for stem in stems:
        mask = next((masks[stem + suffix] for suffix in MASK_SUFFIXES if stem + suffix in masks), None)
        if stem not in images:
            stock.note(
                "error", "no image", f"{split} lists {stem}, but there is no such image. Correct the list.", stem
            )
        elif mask is None:
            what = f"{images[stem].name} ({split}) has no mask. Add {stem}.png to the masks, or take the image away."
            stock.note("warning" if split == "unlisted" else "error", "no mask", what, images[stem].name)
        else:
            pairs.append(Pair(stem, images[stem], mask))
    return pairs


def _find_orphans(stock: Inventory, images: Mapping[str, Path], masks: Mapping[str, Path], place: str) -> None:
    known = {stem + suffix for stem in images for suffix in MASK_SUFFIXES}
    for path in (path for stem, path in masks.items() if stem not in known):
        what = f"{place}/{path.name} has no image. Add the image, or take the mask away."
        stock.note("warning", "no image", what, path.name)


def _compare_splits(stock: Inventory) -> None:
    """An image of one name in two splits is a leak."""
    where: dict[str, list[str]] = {}
    for split, pairs in stock.splits.items():
        for pair in pairs:
            where.setdefault(pair.name, []).append(split)
    for name, splits in where.items():
        if len(splits) > 1:
            what = f"{name} is in {' and '.join(splits)}: scores would lie. Keep it in one."
            stock.note("error", "leak", what, name)
