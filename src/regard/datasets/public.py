"""Public data sets in their own folder layouts: ``cityscapes:FOLDER`` where a data folder is asked for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from regard.classes import ClassMap, known_classes
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import DatasetError, unknown


class Layout(NamedTuple):
    """Where a data set keeps its parts, with ``*`` for each part that names an image; ``{}`` stands for the split.

    ``names`` are the data set's own words for train, val and test; ``listed`` a list of image names; ``areas`` the
    names of each split where the set has neither; ``stored`` and ``ignored`` the values in its masks if they are not
    the labels; ``second`` where a mask is that is not at ``mask``; ``classes`` the class list, if it has another name.
    """

    image: str
    mask: str
    names: Mapping[str, str]
    listed: str | None = None
    areas: Mapping[str, str] = {}
    stored: Sequence[int] | None = None
    ignored: Sequence[int] = ()
    second: str | None = None
    classes: str | None = None


@cache
def layouts() -> dict[str, Layout]:
    """The layout of each data set that is known by name, from ``public.json``.

    Sources: the data sets' own files; from mmsegmentation 1.2.2 the splits of Potsdam and Vaihingen, and, as its tools
    write them, the masks of PASCAL Context, COCO-Stuff 10k and the SBD part of VOC-aug (published as .mat and JSON).
    """
    text = (resources.files("regard.datasets") / "public.json").read_text(encoding="utf-8")
    return {name: Layout(**entry) for name, entry in json.loads(text).items()}


def public_name(root: str | Path) -> str | None:
    """The data set that ``NAME:FOLDER`` names, if it is one; UnknownName if it looks so, but no data set is NAME."""
    name, colon, _ = str(root).partition(":")
    if not colon or os.path.exists(root):
        return None
    if name not in layouts() and name.isidentifier() and len(name) > 1:  # one letter is a drive
        raise unknown("data set", name, layouts())
    return name if name in layouts() else None


def public_folder(root: str | Path) -> LabelledData:
    """The labelled data of ``NAME:FOLDER``; a DatasetError if it is not in its layout, or an image has no mask."""
    name, _, path = str(root).partition(":")
    layout, base = layouts()[name], Path(path)
    update = {"stored": layout.stored and tuple(layout.stored), "stored_ignored": tuple(layout.ignored)}
    classes = known_classes(layout.classes or name).model_copy(update=update)
    splits: dict[str, tuple[Pair, ...]] = {}
    for split, word in layout.names.items():
        pairs = tuple(_pairs(base, layout, split, word))
        splits |= {split: pairs} if pairs else {}
    if "train" not in splits:
        raise DatasetError(
            f"{base} holds no training images of {name}: there is no {layout.image.format(layout.names['train'])}. "
            "Unpack the set there as it was published."
        )
    return LabelledData(base, ClassMap.of(classes), splits)


def _pairs(base: Path, layout: Layout, split: str, word: str) -> Iterator[Pair]:
    """The images of a split with their masks; those that a list names but the folder lacks are passed over."""
    image, mask = layout.image.format(word), layout.mask.format(word)
    for parts in _names(base, layout, split, word):
        path, mask_path = base / _filled(image, parts), base / _filled(mask, parts)
        if not path.is_file():
            continue
        if layout.second is not None and not mask_path.is_file():
            mask_path = base / _filled(layout.second, parts)
        if not mask_path.is_file():
            raise DatasetError(f"{path} has no mask: {mask_path} is missing. Unpack the labels too.")
        yield Pair(parts[-1].replace("/", "_"), path, mask_path)


def _names(base: Path, layout: Layout, split: str, word: str) -> list[tuple[str, ...]]:
    """What stands for each ``*`` in the images of a split: as listed, or as the files say."""
    if layout.areas:
        return [(name,) for name in layout.areas[split].split()]
    if layout.listed is not None:
        path = base / layout.listed.format(word)
        return [(name,) for name in path.read_text(encoding="utf-8").split()] if path.is_file() else []
    image = layout.image.format(word)
    pattern, place = re.escape(image).replace(r"\*", "(.+)"), base / image.partition("*")[0].rpartition("/")[0]
    files = sorted(path.relative_to(base).as_posix() for path in place.rglob(f"*{Path(image).suffix}"))
    return [match.groups() for match in (re.fullmatch(pattern, file) for file in files) if match]


def _filled(pattern: str, parts: Sequence[str]) -> str:
    return pattern.replace("*", "{}").format(*parts)
