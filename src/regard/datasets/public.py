"""Public data sets in their own folder layouts: ``cityscapes:FOLDER`` where a data folder is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from regard.classes import ClassMap, known_classes
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import DatasetError, unknown


class Layout(NamedTuple):
    """Where a data set keeps its parts, with ``*`` for what names an image; ``{}`` stands for the split.

    ``names`` are the data set's own words for train, val and test; ``listed`` a list of image names; ``areas`` the
    names of each split where the set has neither; ``stored`` and ``ignored`` the values in its masks if they are not
    the labels; ``second`` where a mask is that is not at ``mask``; ``classes`` the class list, if it has another name.
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


@cache
def layouts() -> dict[str, Layout]:
    """The layout of each data set that is known by name, from ``public.json``.

    Sources: the data sets' own files; from mmsegmentation 1.2.2 the splits of Potsdam and Vaihingen, and, as its tools
    write them, the masks of PASCAL Context, COCO-Stuff 10k and the SBD part of VOC-aug (published as .mat and JSON).
    """
    text = (resources.files("regard.datasets") / "public.json").read_text(encoding="utf-8")
    found = {name: Layout(**entry) for name, entry in json.loads(text).items()}
    return {
        name: layout._replace(stored=layout.stored and tuple(layout.stored), ignored=tuple(layout.ignored))
        for name, layout in found.items()
    }


def public_name(root: str | Path) -> str | None:
    """The data set that ``NAME:FOLDER`` names, if it is one.

    Raises:
        UnknownName: it looks like that, but no data set has this name.
    """
    name, colon, _ = str(root).partition(":")
    if not colon or Path(root).exists():
        return None
    if name not in layouts() and name.isidentifier() and len(name) > 1:  # one letter is a drive
        raise unknown("data set", name, layouts())
    return name if name in layouts() else None


def public_folder(root: str | Path) -> LabelledData:
    """The labelled data of ``NAME:FOLDER``.

    Raises:
        DatasetError: the folder does not hold the data set in its layout, or an image has no mask.
    """
    name, _, path = str(root).partition(":")
    layout, base = layouts()[name], Path(path)
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
