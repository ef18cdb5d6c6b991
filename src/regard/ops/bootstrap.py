"""How sure scores are: the images of a split drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

DRAWS = 1000
Interval = tuple[float, float]


def intervals(images: Int[np.ndarray, "i k k"], counted: Sequence[int] | None = None) -> list[Interval | None]:
    """95 % intervals of each class's IoU and, last, of the mean of those ``counted``; None for an absent class.

    A bootstrap over images: as many as there are, drawn with replacement, are added up ``DRAWS`` times.
    """
    count = len(images)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    right = times @ images.diagonal(axis1=1, axis2=2)
    either = times @ (images.sum(axis=1) + images.sum(axis=2)) - right
    seen, iou = either > 0, right / np.maximum(1, either)
    kept = slice(None) if counted is None else list(counted)
    mean = iou[:, kept].sum(axis=1) / np.maximum(1, seen[:, kept].sum(axis=1))
    iou[~seen & seen.any(axis=0)] = np.nan  # a draw without the class says nothing about it
    low, high = np.nanpercentile(np.column_stack([iou, mean]), (2.5, 97.5), axis=0)
    occurs = [*seen.any(axis=0), True]
    return [(float(a), float(b)) if there else None for a, b, there in zip(low, high, occurs, strict=True)]
