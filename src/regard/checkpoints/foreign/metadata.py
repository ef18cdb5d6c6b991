"""What a foreign file says besides its weights: classes, scaling, align_corners."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from regard.card import RGB
from regard.classes import ClassMap, default_palette, first_reason, known_classes
from regard.errors import ClassMismatch

# Class lists by what file names and configurations call them, where that is not the list's own name.
CALLED = {"pascal_context_60": "pascal_context", "voc": "voc12", "coco_stuff": "coco[-_]?stuff"}
BY_NAME = ("cityscapes", "ade20k", "pascal_context_59", *CALLED, "loveda", "potsdam", "vaihingen")
BY_COUNT = BY_NAME[:6]  # the number of classes is enough to tell these


class Evidence(NamedTuple):
    """The words of a file: its name, and the configuration and meta data inside."""

    name: str
    text: str
    meta: Mapping[str, Any]
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any]


def evidence(path: Path, content: Mapping[Any, Any]) -> Evidence:
    """Everything in a file's container that is not its tensors."""
    meta, arguments = _mapping(content.get("meta")), content.get("args")
    texts = [meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)]
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    settings = _mapping(content.get("config_dict"))
    return Evidence(path.name.lower(), "\n".join(texts), meta, settings, _mapping(arguments))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def align_corners(words: Evidence) -> bool | None:
    """What the configuration inside says of its heads; true for mmseg's crops of 769; none if nothing is said."""
    said = re.findall(r"align_corners['\"]?\s*[=:]\s*(True|False)", words.text)
    if said:
        return "True" in said
    return True if "769x769" in words.name else None


def scaling(words: Evidence) -> dict[str, Any]:
    """Mean, std and divisor of openseg's ``normalize``, if it is there."""
    given = _mapping(words.settings.get("normalize"))
    if not {"mean", "std", "div_value"} <= given.keys():
        return {}
    is_bgr = _mapping(words.settings.get("data")).get("input_mode") == "BGR"
    return {
        "mean": tuple(given["mean"]),
        "std": tuple(given["std"]),
        "divisor": float(given["div_value"]),
        "bands": RGB[::-1] if is_bgr else RGB,
    }


def class_map(words: Evidence, count: int, given: ClassMap | Sequence[str] | str | None) -> tuple[ClassMap, str]:
    """The classes, and where they are from: given, in the file, or known by the name or the number.

    Another number of given classes than of the network's outputs is a ClassMismatch.
    """
    if given is not None:
        chosen = known_classes(given) if isinstance(given, str) else ClassMap.of(given)
        if len(chosen) != count:
            raise ClassMismatch(f"{len(chosen)} classes given, but {words.name} has {count} outputs. Give {count}.")
        return chosen, "given"
    inside = _inside(words, count)
    if inside is not None:
        return inside, "in the file"
    for name in BY_NAME:
        if re.search(CALLED.get(name, name), words.name + words.text.lower()) and len(known_classes(name)) == count:
            return known_classes(name), f"{name}, by its name"
    for name in BY_COUNT:
        if len(known_classes(name)) == count:
            return known_classes(name), f"{name}, by their number"
    return ClassMap.of([f"class_{index}" for index in range(count)]), "unknown; give them with classes="


def _inside(words: Evidence, count: int) -> ClassMap | None:
    data_set = _mapping(words.meta.get("dataset_meta"))
    names = words.meta.get("CLASSES") or data_set.get("classes")
    colours = words.meta.get("PALETTE") or data_set.get("palette")
    if not isinstance(names, (list, tuple)) or len(names) != count:
        return None
    if not isinstance(colours, (list, tuple)) or len(colours) != count:
        colours = default_palette(count)
    try:
        return ClassMap(names=tuple(names), palette=tuple(tuple(colour) for colour in colours))
    except ValidationError as error:
        fault = f"its class list is not valid ({first_reason(error)})"
        raise ClassMismatch(f"{words.name}: {fault}. Give classes=.") from None
