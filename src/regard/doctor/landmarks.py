"""Pictures of one place found in each other, however cut, mirrored, turned or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

CELL = 4  # pixels at working size
CELLS = 8  # a landmark's surroundings are CELLS x CELLS means
MOST = 150  # landmarks of one picture
ALIKE = 0.9  # correlation of two surroundings
AGREE = 5  # landmarks that must lie at one offset
WORTH = 3  # like landmarks that make two pictures worth a closer look
ROUGH = 4.0  # grey levels that a landmark stands out by


class Landmarks(NamedTuple):
    """Places that stand out from their surroundings, in pixels, and these surroundings, of unit length."""

    places: Int[np.ndarray, "n 2"]
    surroundings: Float[np.ndarray, "n 8 8"]


class Match(NamedTuple):
    """How many landmarks of two pictures agree, and where the second lies in the first: rows down, columns right."""

    agreeing: int
    offset: tuple[int, int]
    turned: bool


def landmarks(grey: Float[np.ndarray, "h w"], labelled: Bool[np.ndarray, "h w"]) -> Landmarks:
    """The most striking places of a picture (0..255) that lie where it is ``labelled``."""
    picture = torch.from_numpy(grey)[None, None]
    response = (_blurred(picture, 6) - _blurred(picture, 18)).abs()
    highest = F.max_pool2d(F.max_pool2d(response, (1, 25), 1, (0, 12)), (25, 1), 1, (12, 0))
    edge = CELL * CELLS // 2 + 2
    free = np.zeros(grey.shape, dtype=bool)
    free[edge:-edge, edge:-edge] = True
    found = np.argwhere(((response == highest) & (response > ROUGH))[0, 0].numpy() & free & labelled)
    strength = response[0, 0].numpy()[found[:, 0], found[:, 1]]
    places = found[np.argsort(-strength, kind="stable")[:MOST]]
    return Landmarks(places, _surroundings(F.avg_pool2d(picture, CELL, 1)[0, 0].numpy(), places))


def _blurred(picture: Float[Tensor, "1 1 h w"], reach: int) -> Float[Tensor, "1 1 h w"]:
    side = 2 * reach + 1
    return F.avg_pool2d(F.avg_pool2d(picture, (1, side), 1, (0, reach)), (side, 1), 1, (reach, 0))


def _surroundings(means: Float[np.ndarray, "h w"], places: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 8 8"]:
    steps = (np.arange(CELLS) - CELLS // 2) * CELL
    rows, columns = places[:, 0, None] + steps, places[:, 1, None] + steps
    values = means[rows[:, :, None], columns[:, None, :]]
    values = values - values.mean(axis=(1, 2), keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=(1, 2), keepdims=True), 1e-6)


def candidates(pictures: Sequence[Landmarks], others: Sequence[Landmarks]) -> Iterator[tuple[int, int]]:
    """Which picture of the first list may show the same place as which of the second: worth a :func:`match`."""
    owners = np.repeat(np.arange(len(others)), [len(other.places) for other in others])
    table = np.concatenate([_upright(other.surroundings) for other in others]).reshape(-1, CELLS * CELLS)
    for index, picture in enumerate(pictures):
        alike = (_upright(picture.surroundings).reshape(-1, CELLS * CELLS) @ table.T > ALIKE).any(axis=0)
        counts = np.bincount(owners[alike], minlength=len(others))
        yield from ((index, int(other)) for other in np.flatnonzero(counts >= WORTH))


def _upright(surroundings: Float[np.ndarray, "n 8 8"]) -> Float[np.ndarray, "n 8 8"]:
    """Turned so that the brightest quarter is at the top left, mirrored so that the next one lies right of it."""
    half = CELLS // 2
    quarters = surroundings.reshape(-1, 2, half, 2, half).mean(axis=(2, 4))
    brightest = quarters.reshape(-1, 4).argmax(axis=1)
    turned = [np.rot90(surroundings, turns, axes=(1, 2)) for turns in (0, 1, 3, 2)]  # where each of the four comes up
    upright = np.choose(brightest[:, None, None], turned)
    right, below = upright[:, :half, half:].mean(axis=(1, 2)), upright[:, half:, :half].mean(axis=(1, 2))
    return np.where((right < below)[:, None, None], upright.transpose(0, 2, 1), upright)


def match(first: Landmarks, second: Landmarks) -> Match | None:
    """Whether two pictures show the same place: as it is, or mirrored and turned by quarters."""
    best = Match(0, (0, 0), False)
    for mirrored in (False, True):
        for turns in range(4):
            count, offset = _agreement(first, _turn(second, mirrored, turns))
            if count > best.agreeing:
                best = Match(count, offset, mirrored or turns > 0)
    return best if best.agreeing >= AGREE else None


def _turn(marks: Landmarks, mirrored: bool, turns: int) -> Landmarks:
    """The landmarks of the picture mirrored and then turned about its corner."""
    places, surroundings = marks
    if mirrored:
        places, surroundings = places * (1, -1), surroundings[:, :, ::-1]
    for _ in range(turns):
        places, surroundings = np.stack([-places[:, 1], places[:, 0]], axis=1), np.rot90(surroundings, axes=(1, 2))
    return Landmarks(places, surroundings)


def _agreement(first: Landmarks, second: Landmarks) -> tuple[int, tuple[int, int]]:
    """The offset that most pairs of like landmarks share, give or take 3 pixels, and how many share it."""
    one = first.surroundings.reshape(-1, CELLS * CELLS)
    other = second.surroundings.reshape(-1, CELLS * CELLS)
    mine, its = np.nonzero(one @ other.T > ALIKE)
    if len(mine) < AGREE:
        return 0, (0, 0)
    offsets = first.places[mine] - second.places[its]
    close = (np.abs(offsets[:, None] - offsets[None]) <= 3).all(axis=2)
    middle = int(close.sum(axis=1).argmax())
    row, column = np.median(offsets[close[middle]], axis=0)
    return len(np.unique(mine[close[middle]])), (int(row), int(column))
