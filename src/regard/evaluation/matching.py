"""The classes of a model or a map brought to those of the data that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, listed, unknown

REST = "*"  # stands for all classes that are not named


def parse_matching(text: str) -> dict[str, str]:
    """``building=building,*=other`` as a dictionary.

    Raises:
        ConfigError: a part is not NAME=NAME, or names a class twice.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = [f"{name}{sign}{to}" for name, sign, to in pairs if not (name.strip() and to.strip())]
    names = [name.strip() for name, _, _ in pairs]
    if wrong or len(set(names)) < len(names):
        reason = f"{wrong[0]!r} is not NAME=NAME" if wrong else "a class is named twice"
        raise ConfigError(f"map {text}: {reason}. Write the model's class, =, the data's class: building=roof,*=other.")
    return {name.strip(): to.strip() for name, _, to in pairs}


def matched(ours: ClassMap, theirs: ClassMap, given: Mapping[str, str] | None, data: str) -> Int[Tensor, " k"]:
    """The data's label of each class of a model or a map: by ``given`` (its class: the data's class, ``*`` for the
    rest), else the same classes in the same order.

    Raises:
        ClassMismatch: the classes are not the same, or one is not mapped.
        UnknownName: a name of ``given`` is not a class of its side.
    """
    if given is None:
        check_same(ours, theirs, data)
        return torch.arange(len(ours))
    for names, known, kind in ((given.keys() - {REST}, ours, "class of the model"), (given.values(), theirs, "class")):
        for name in sorted(set(names) - set(known.names)):
            raise unknown(kind if known is ours else f"class in {data}", name, known.names)
    missing = [name for name in ours.names if name not in given and REST not in given]
    if missing:
        raise ClassMismatch(
            f"the map of classes leaves out {listed(missing)}. Say which class of {data} each is, or add *=NAME for "
            "the rest."
        )
    return torch.tensor([theirs.names.index(given.get(name, given.get(REST, ""))) for name in ours.names])


def merged(scores: Float[Tensor, "k h w"], table: Int[Tensor, " k"], classes: int) -> Float[Tensor, "n h w"]:
    """The scores of the data's classes: the log of the summed probabilities of those that became each."""
    probabilities = scores.softmax(dim=0)
    summed = probabilities.new_zeros(classes, *scores.shape[1:])
    return summed.index_add(0, table.to(scores.device), probabilities).clamp(min=1e-30).log()


def check_same(ours: ClassMap, theirs: ClassMap, data: str) -> None:
    """The classes of a model or a map and the data's are the same, in the same order.

    Raises:
        ClassMismatch: they are not; the message names the first difference.
    """
    if ours.names == theirs.names:
        return
    if len(ours) != len(theirs):
        got = f"{len(theirs)} classes ({', '.join(theirs.names)}); the model has {len(ours)} ({', '.join(ours.names)})"
    else:
        index = next(i for i in range(len(ours)) if ours.names[i] != theirs.names[i])
        got = f"{theirs.names[index]!r} as class {index}; the model has {ours.names[index]!r}"
    raise ClassMismatch(
        f"{data} has {got}. Use data with the model's classes, train a model on this data, or evaluate with --map "
        f"{ours.names[0]}={theirs.names[0]},*=..."
    )
