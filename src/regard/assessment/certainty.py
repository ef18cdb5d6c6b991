"""Where a map may be called certain: thresholds of confidence above which the error is bounded, by blocks of ground.

Neighbouring pixels err together, so blocks are the units. For each threshold, from the highest down, the error among
the pixels at or above it is estimated as a ratio over the blocks, with an upper bound; the thresholds before the first
whose bound is above what is promised keep the promise (learn then test, fixed sequence: Angelopoulos et al. 2021;
risk control by blocks: Bates et al. 2021).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

THRESHOLDS = 60  # so many thresholds are tried
FIRST = 0.1  # the sequence begins with this most confident part of the pixels
BLOCKS = 10  # with pixels above a threshold, at least


class Promise(NamedTuple):
    """Among the pixels whose confidence is this or more, at most this share has a wrong class."""

    confidence: float
    error: float


def promises(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    block: Int[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
) -> tuple[Promise, ...]:
    """A promise for each threshold, the highest first; errors never fall."""
    levels = np.quantile(confidence, np.linspace(1 - FIRST, 0, THRESHOLDS), method="lower")
    found, worst = [], 0.0
    for level in np.unique(levels)[::-1].tolist():
        kept = confidence >= level
        worst = max(worst, upper_bound(right[kept], block[kept], weight[kept]))
        found.append(Promise(float(level), min(worst, 1.0)))
    return tuple(found)


def upper_bound(right: Bool[np.ndarray, " n"], block: Int[np.ndarray, " n"], weight: Float[np.ndarray, " n"]) -> float:
    """Student's upper bound of the share of wrong pixels on as much other ground, by the spread of the blocks.

    One more block, of their mean size, is taken to be as wrong as the worst; fewer than 10 blocks promise nothing.
    """
    place = np.unique(block, return_inverse=True)[1]
    sizes, wrong = np.bincount(place, weight), np.bincount(place, weight * ~right)
    if len(sizes) < BLOCKS:
        return 1.0
    wrong, sizes = np.append(wrong, (wrong / sizes).max() * sizes.mean()), np.append(sizes, sizes.mean())
    share, count = wrong.sum() / sizes.sum(), len(sizes)
    residuals = wrong - share * sizes
    error = math.sqrt(count / (count - 1) * (residuals @ residuals)) / sizes.sum()
    return float(share + _student(count - 1) * math.sqrt(2) * error)  # the other ground has such an error too


def _student(freedom: int) -> float:
    """The quantile 0.95 of Student's t. Source: Hill 1970, Algorithm 396, by its expansion in 1 / freedom."""
    z = 1.6448536269514722
    terms = [z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384]
    return sum(term / freedom**power for power, term in enumerate(terms))
