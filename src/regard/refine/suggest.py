"""Where to label next: places all over the scene where the model hesitates and that are unlike what was labelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import ConfigError
from regard.io.raster import Box, to_map
from regard.models.refined import Refined
from regard.refine.heads import Block, Task
from regard.refine.labels import Labels
from regard.refine.samples import RefinedRegions
from regard.refine.session import Session
from regard.refine.trials import POINT, Kind, answers, try_on_blocks

CANDIDATES, WINDOWS = 4096, 64  # pixels that are compared, in so many windows of the scene at most
AROUND = 48  # pixels to each side of a place in which an object is looked for
APART = 16  # pixels between two places at least
WHOLE = 0.5  # a component that fills so much of its surroundings is ground, and no object


class Place(NamedTuple):
    """A pixel to label: its column and row, its coordinates, the class that it has on the map, and the margin of that:
    how far its probability is ahead of the second.
    """

    column: int
    row: int
    x: float
    y: float
    present: str
    margin: float


class Suggestions(NamedTuple):
    """Places, the best first. ``gain``: what the second half of the labels added to the mean IoU on held-out blocks;
    None where it cannot be said. ``advice`` says whether more labels pay.
    """

    places: list[Place]
    gain: float | None
    advice: str


class Taken:
    """The pixels that are labelled, or that have been suggested, and the map in which they lie."""

    def __init__(self, regions: RefinedRegions, labels: Labels) -> None:
        self.regions, self.places = regions, np.stack([labels.rows, labels.columns], axis=1)

    def add(self, row: int, column: int) -> None:
        """One more place."""
        self.places = np.concatenate([self.places, [[row, column]]])

    def has(self, row: int, column: int) -> bool:
        """Whether a place is near another, or in the same object of the map."""
        away = np.abs(self.places - (row, column)).max(axis=1)
        if (away < APART).any():
            return True
        height, width = self.regions.raster.size
        top, left = max(0, row - AROUND), max(0, column - AROUND)
        box = Box(top, left, min(height, row + AROUND + 1) - top, min(width, column + AROUND + 1) - left)
        labels = self.regions.region(box).labels
        near = self.places[away <= AROUND] - (top, left)
        mine = component(labels == labels[row - top, column - left], (row - top, column - left))
        return bool(mine.mean() < WHOLE and mine[near[:, 0], near[:, 1]].any())


def component(same: Bool[np.ndarray, "h w"], at: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels that are 4-connected to one by ``same``."""
    reached, count = np.zeros_like(same), 0
    reached[at] = True
    while reached.sum() > count:
        count = reached.sum()
        grown = np.pad(reached, 1)
        reached = same & (grown[1:-1, 1:-1] | grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:])
    return reached


def suggest(session: Session, model: Refined, labels: Labels, count: int = 10, *, worth: bool = True) -> Suggestions:
    """Up to ``count`` places to label next, by margin times distance from all that was labelled, over the whole scene.

    No place lies in an object of the map that is labelled, or that has a place already. Without ``worth`` nothing is
    said of whether more labels pay, which takes ten fits.

    Raises:
        ConfigError: a count below 1, or no labelled pixel holds data.
    """
    if count < 1:
        raise ConfigError(f"got {count} places; need 1 or more.")
    kind = Kind(model.config.head, bool(model.config.base), model.stride == 1)
    layout, (task, labels) = session.layout(kind), session.task(labels, kind)
    rows, columns = layout.spread(CANDIDATES, WINDOWS, session.options.seed + 1)
    found = layout.samples(rows, columns)
    rows, columns = rows[found.valid.numpy()], columns[found.valid.numpy()]
    deep = layout.in_context(model, rows, columns) if kind.head == "context" else found.deep
    best = answers(model, deep, found.seen).double().softmax(dim=1).topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    block = Block.of(found.deep, task.labelled.deep) if kind.deep else Block.of(found.seen, task.labelled.seen)
    taken, places = Taken(session.map(model), labels), []
    for number in in_order(1 - margin, block, count, lambda n: not taken.has(int(rows[n]), int(columns[n]))):
        row, column = int(rows[number]), int(columns[number])
        taken.add(row, column)
        x, y = to_map(np.array([[column + 0.5, row + 0.5]]), session.raster.transform)[0].tolist()
        places.append(Place(column, row, x, y, session.classes.names[best.indices[number, 0]], float(margin[number])))
    gain = worth_of_more(session.start, task, labels, kind) if worth else None
    return Suggestions(places, gain, advice(gain))


def in_order(doubt: Float[Tensor, " n"], block: Block, count: int, is_free: Callable[[int], bool]) -> Iterator[int]:
    """The pixels of most doubt times distance, one after the other: from those labelled and those before."""
    apart = torch.cdist(block.labelled, block.rehearsed).amin(dim=1)
    for _ in range(len(doubt)):
        number = int((doubt * apart).argmax())
        if count == 0 or apart[number] <= 0:
            return
        if not is_free(number):
            apart[number] = 0
            continue
        count -= 1
        yield number
        apart = torch.minimum(apart, torch.cdist(block.labelled, block.labelled[number][None])[:, 0])


def worth_of_more(start: Refined, task: Task, labels: Labels, kind: Kind) -> float | None:
    """What the second half of the labels added to the mean IoU on held-out blocks."""
    half, whole = (try_on_blocks(start, task, labels, kind, share).means[1] for share in (0.5, 1.0))
    return None if math.isnan(whole - half) else whole - half


def advice(gain: float | None) -> str:
    """Whether more labels pay, in a sentence."""
    if gain is None:
        return "label each class in two places that are apart: then regard can say whether more labels pay."
    worth = f"the second half of the labels added {100 * gain:+.1f} points of mean IoU on held-out blocks"
    return f"{worth}; more will add little." if gain < POINT / 2 else f"{worth}; more will pay."
