"""A trained model for other classes or other bands: common weights are kept, the rest is re-initialised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.card import Card
from regard.checkpoints.create import build, unscaled
from regard.checkpoints.file import check_fit, find, fit, no_larger_than, read_model
from regard.classes import ClassMap
from regard.models import Segmenter


class Adapted(NamedTuple):
    """The model, and one line for each thing that was kept or re-initialised."""

    model: Segmenter
    notes: tuple[str, ...]


def adapt(source: str | Path, *, classes: ClassMap, bands: Sequence[str], **config: Any) -> Adapted:
    """The model of a file, for these classes and bands; ``config`` changes settings that keep the weights.

    Rows of classifiers and coarse regions follow their class by name; rows of new classes are random. A band takes
    the first convolution's weights of the band of its name, a new one the mean of all, so scaled that the sum over
    bands keeps its size. With other bands the mean and spread of the values are left to be measured. Classes of the
    same name keep their colour where the data give none. What the card says of the data, their licence and the scores
    is left out.

    Raises:
        UnknownName, CheckpointError: see ``load``.
    """
    path = find(source)
    old, tensors = read_model(path)
    old = old.model_copy(update={"config": {**old.config, **config}})
    classes = classes.coloured_as(old.classes)
    with no_larger_than(tensors, path), torch.device("meta"):
        check_fit(build(old), tensors, path)
    card = old.without_data().model_copy(update={"classes": classes})
    if tuple(bands) != old.bands:
        card = card.model_copy(update=unscaled(bands) | _scaling(old, bands))
    model, notes = build(card), []
    own, changed = model.state_dict(), set[str]()
    if classes.names != old.classes.names:
        axes = _axes(
            old, len(old.classes), lambda count: {"classes": ClassMap.of([f"class {i}" for i in range(count)])}
        )
        tensors |= {name: _rows(tensors[name], own[name], axis, old.classes, classes) for name, axis in axes.items()}
        notes += _class_notes(old.classes, classes, axes)
        changed |= axes.keys()
    if tuple(bands) != old.bands:
        axes = _axes(old, len(old.bands), lambda count: unscaled([f"band {i}" for i in range(count)]))
        tensors |= {name: _inflated(tensors[name], old.bands, bands) for name in axes}
        notes += _band_notes(old.bands, bands)
        changed |= axes.keys()
    fit(model, tensors, path)
    kept = f"{path.name}: {len(own) - len(changed)} of {len(own)} tensors kept as they are"
    return Adapted(model, (kept, *notes))


def _scaling(old: Card, bands: Sequence[str]) -> dict[str, Any]:
    """The old mean and spread of each band if every band has one."""
    if not set(bands) <= set(old.bands):
        return {}
    order = [old.bands.index(band) for band in bands]
    return {"mean": tuple(old.mean[i] for i in order), "std": tuple(old.std[i] for i in order)}


def _axes(card: Card, count: int, change: Callable[[int], Mapping[str, Any]]) -> dict[str, int]:
    """The tensors whose shape follows a count (of classes, of bands), and the axis that does: from two shells."""
    with torch.device("meta"):
        shells = [build(card.model_copy(update=dict(change(number)))).state_dict() for number in (count, count + 1)]
    pairs = ((name, value.shape, shells[1][name].shape) for name, value in shells[0].items())
    return {name: next(i for i in range(len(a)) if a[i] != b[i]) for name, a, b in pairs if a != b}


def _rows(old: Tensor, fresh: Tensor, axis: int, old_classes: ClassMap, classes: ClassMap) -> Tensor:
    """The fresh tensor with the rows of known classes taken over."""
    known = [name for name in classes.names if name in old_classes.names]
    source = torch.tensor([old_classes.names.index(name) for name in known], dtype=torch.long)
    target = torch.tensor([classes.names.index(name) for name in known], dtype=torch.long)
    return fresh.index_copy(axis, target, old.to(fresh.dtype).index_select(axis, source))


def _inflated(weight: Tensor, old: Sequence[str], bands: Sequence[str]) -> Tensor:
    mean = weight.mean(dim=1)
    parts = [weight[:, list(old).index(band)] if band in old else mean for band in bands]
    return torch.stack(parts, dim=1) * (len(old) / len(bands))


def _class_notes(old: ClassMap, new: ClassMap, axes: Mapping[str, int]) -> list[str]:
    classes = {
        "classes kept": [name for name in new.names if name in old.names],
        "re-initialised": [name for name in new.names if name not in old.names],
        "left out": [name for name in old.names if name not in new.names],
    }
    where = f"rows of {len(axes)} tensors ({', '.join(axes)})"
    return [where, *(f"{what}: {', '.join(names)}" for what, names in classes.items() if names)]


def _band_notes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    kept, fresh = [band for band in new if band in old], [band for band in new if band not in old]
    return [f"bands kept: {', '.join(kept) or 'none'}; from the mean of {', '.join(old)}: {', '.join(fresh) or 'none'}"]
