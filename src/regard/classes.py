"""Class names, colours and the label that means 'no class'."""

from __future__ import annotations

import colorsys
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from regard.errors import ClassMismatch, ConfigError, DatasetError, unknown
from regard.files import json_of

Colour = tuple[int, int, int]


class ClassMap(BaseModel):
    """The classes of a data set or a model, in the order of their labels 0, 1, 2, ..., with the colour of each.

    ``palette`` colours maps, and is what :func:`regard.datasets.mask.read_mask` finds the classes of colour masks by.

    ``stored`` are the values that masks hold in place of these labels, ``stored_ignored`` those that mean no class.
    """

    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = 255
    stored: tuple[int, ...] | None = Field(default=None, exclude=True)
    stored_ignored: tuple[int, ...] = Field(default=(), exclude=True)

    @field_validator("names")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) < 2:
            raise ValueError(f"got {len(names)} class name; need at least 2")
        twice = min((name for name, count in Counter(names).items() if count > 1), default=None)
        if twice is not None:
            raise ValueError(f"class name {twice!r} stands twice; names must differ")
        return names

    @field_validator("palette")
    @classmethod
    def _check_palette(cls, palette: tuple[Colour, ...]) -> tuple[Colour, ...]:
        bad = [colour for colour in palette if any(not 0 <= channel <= 255 for channel in colour)]
        if bad:
            raise ValueError(f"colour {bad[0]} is outside 0..255")
        return palette

    @model_validator(mode="after")
    def _check_counts(self) -> ClassMap:
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")
        if self.stored is not None and len(set(self.stored)) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(set(self.stored))} stored values")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore_index {self.ignore_index} is the label of class {self.names[self.ignore_index]!r}"
            )
        return self

    def __len__(self) -> int:
        return len(self.names)

    def label_of(self, name: str) -> int:
        """The label of the class of this name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self.names:
            raise unknown("class", name, self.names)
        return self.names.index(name)

    def colour_twice(self) -> str:
        """The first colour that two classes have, in words; empty where each has its own."""
        found: dict[Colour, str] = {}
        for colour, name in zip(self.palette, self.names, strict=True):
            if (first := found.setdefault(colour, name)) != name:
                return f"colour {list(colour)} stands twice ({first!r}, {name!r})"
        return ""

    def coloured_as(self, other: ClassMap) -> ClassMap:
        """These classes; where their colours are the default, with the other's colours of the names that it has too."""
        known = dict(zip(other.names, other.palette, strict=True))
        palette = tuple(known.get(name, own) for name, own in zip(self.names, self.palette, strict=True))
        is_default = self.palette == default_palette(len(self)) and len({*palette}) == len(palette)
        return self.model_copy(update={"palette": palette}) if is_default else self

    def check_left_out(self, names: Sequence[str]) -> None:
        """Whether these classes may be left out of means over classes.

        Raises:
            UnknownName: no class of that name.
            ConfigError: no class is left.
        """
        for name in names:
            self.label_of(name)
        if set(names) == set(self.names):
            raise ConfigError("all classes are left out of the mean. Keep one at least.")

    @classmethod
    def of(cls, classes: ClassMap | Sequence[str]) -> ClassMap:
        """A class map from names alone (colours evenly spaced in hue), or the map itself.

        Raises:
            ClassMismatch: fewer than two names, or a name twice.
        """
        if isinstance(classes, ClassMap):
            return classes
        try:
            ignore_index = 255 if len(classes) <= 255 else 65535
            return cls(names=tuple(classes), palette=default_palette(len(classes)), ignore_index=ignore_index)
        except ValidationError as error:
            shown = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
            raise ClassMismatch(f"the list of classes ({shown}): {first_reason(error)}. Correct the list.") from None

    @classmethod
    def read(cls, path: Path) -> ClassMap:
        """A class map from a ``classes.json`` with ``names`` and, optionally, ``palette`` and ``ignore_index``.

        Raises:
            DatasetError: the file is missing, is not JSON, or contradicts itself.
        """
        try:
            data = json_of(path.read_text(encoding="utf-8-sig"))  # Windows begins files with a mark
        except FileNotFoundError:
            raise DatasetError(f'{path} is missing. Write one: {{"names": ["building", "land", ...]}}.') from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} is not JSON ({error}). It needs an object with a list 'names'.") from None
        if not isinstance(data, dict) or not isinstance(data.get("names"), list):
            raise DatasetError(
                f'{path} has no list \'names\'. It needs {{"names": [...], "palette": [[r, g, b], ...]}}.'
            )
        known = {field: data[field] for field in cls.model_fields if field in data}
        try:
            found = cls(**{"palette": default_palette(len(data["names"])), **known})
        except ValidationError as error:
            raise DatasetError(f"{path}: {first_reason(error)}. Correct the file.") from None
        if found.colour_twice() and not found.is_known():
            raise DatasetError(f"{path}: {found.colour_twice()}. Give each class a colour of its own.")
        return found

    def is_known(self) -> bool:
        """Whether these are the classes and colours of a public list; some have a colour twice."""
        lists = known_lists()
        return any(tuple(lists[name]) == self.names and known_classes(name).palette == self.palette for name in lists)


def known_classes(name: str) -> ClassMap:
    """The classes and colours of a public data set, in the order of its labels: ``cityscapes``, ``ade20k``, ``camvid``,
    ``voc``, ``pascal_context_59``, ``pascal_context_60``, ``coco_stuff``, ``isaid``, ``loveda``, ``potsdam``,
    ``vaihingen``.

    Source: the data sets' own lists, as mmsegmentation 1.2.2 has them.

    Raises:
        UnknownName: no data set of that name.
    """
    if name not in known_lists():
        raise unknown("class list", name, known_lists())
    colours = known_lists()[name]
    palette = tuple((code >> 16, code >> 8 & 255, code & 255) for code in (int(text, 16) for text in colours.values()))
    return ClassMap(names=tuple(colours), palette=palette)


@cache
def known_lists() -> dict[str, dict[str, str]]:
    """The shipped lists: data set to class name to colour, six hexadecimal digits."""
    return json.loads((resources.files("regard") / "known_classes.json").read_text(encoding="utf-8"))


def default_palette(count: int) -> tuple[Colour, ...]:
    """``count`` distinct colours: hues a golden-ratio step apart, alternating in brightness."""
    palette = []
    for index in range(count):
        hue, value = (0.08 + 0.618034 * index) % 1.0, 0.9 if index % 2 == 0 else 0.65
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, value)
        palette.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(palette)


CERTAINTY = ClassMap(names=("not certain", "certain"), palette=((120, 120, 120), (255, 255, 255)))


def first_complaint(error: ValidationError) -> tuple[str, str]:
    """Where and why a pydantic error complains first; where is empty if it is about the whole."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")


def first_reason(error: ValidationError) -> str:
    """The first complaint of a pydantic error, in one line: where and why."""
    where, why = first_complaint(error)
    return f"{where}: {why}" if where else why
