"""Accuracies and areas of a map from a stratified sample, with standard errors: every one a ratio of two totals.

Source: Olofsson et al., Good practices for estimating area and assessing accuracy of land change (2014); Stehman,
Estimating area and map accuracy for stratified random sampling when the strata are different from the map classes
(2014). The two agree where the strata are the map's classes. Finite populations: Cochran, Sampling Techniques (1977).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Z = 1.959963984540054  # of the standard normal distribution: 95 % lie within
EXACT = 1e-9  # a standard error below it is 0 but for rounding
FEW = 30  # points of a class; with fewer its user's accuracy has an exact interval
Numbers = Float[np.ndarray, "*k"]


class Estimate(NamedTuple):
    """Values with their standard errors and 95 % intervals; NaN where nothing can be said."""

    value: Numbers
    se: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True, eq=False)
class LabelledSample:
    """Points drawn at random without replacement in each stratum, with the labels of the map and of the reference.

    ``size`` is the ground of each point's pixel; ``pixels`` and ``area`` are those of each whole stratum, in pixels and
    in the unit of ``size``.
    """

    stratum: Int[np.ndarray, " n"]
    mapped: Int[np.ndarray, " n"]
    reference: Int[np.ndarray, " n"]
    size: Float[np.ndarray, " n"]
    pixels: Int[np.ndarray, " h"]
    area: Float[np.ndarray, " h"]

    @property
    def counts(self) -> Int[np.ndarray, " h"]:
        """The points in each stratum."""
        return np.bincount(self.stratum, minlength=len(self.area))

    @property
    def ones(self) -> Float[np.ndarray, "n 1"]:
        """1 for each point: the bottom of a share of the whole population."""
        return np.ones((len(self.stratum), 1))

    @property
    def weights(self) -> Float[np.ndarray, " n"]:
        """The ground that each point stands for; over a stratum's points this is the stratum's area."""
        return self.size * (self.area / _sums(self.size, self))[self.stratum]

    def ratios(self, top: Float[np.ndarray, "n k"], bottom: Float[np.ndarray, "n k"]) -> Estimate:
        """The ratio of two totals over the population for each of k pairs of variables, known at the points.

        The variance is that of the residuals top - ratio · bottom: Stehman 2014, equation 28, where each pixel counts
        by its ground. The interval is Wilson's for the simple random sample of the same variance; where no error was
        found, and so no variance, for the points at which ``bottom`` is not 0.
        """
        weights = self.weights[:, None]
        total = (weights * bottom).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = (weights * top).sum(axis=0) / total
            residuals = weights * (top - value * bottom)
            centred = residuals - weights * (_sums(residuals, self) / self.area[:, None])[self.stratum]
            variance = (self._factors[:, None] * _sums(centred**2, self)).sum(axis=0)
            se = np.sqrt(variance) / total
        return Estimate(value, se, *wilson(value, se, (bottom != 0).sum(axis=0)))

    @property
    def _factors(self) -> Float[np.ndarray, " h"]:
        """(1 - n/N) · n/(n - 1) of each stratum; 0 where all of it was drawn."""
        counts = self.counts
        drawn = counts / self.pixels
        return np.where(counts >= self.pixels, 0.0, (1 - drawn) * counts / np.maximum(counts - 1, 1))


@dataclass(frozen=True, eq=False)
class Accuracies:
    """All estimates of a map of k classes. ``counts`` and ``shares`` are error matrices, mapped x reference: points,
    and shares of the area. ``share`` and ``area``, in the unit of the sample, differ in their intervals: Wilson's,
    which holds better for rare classes, and the symmetric one of Olofsson et al. 2014.
    """

    counts: Int[np.ndarray, "k k"]
    shares: Float[np.ndarray, "k k"]
    overall: Estimate
    users: Estimate
    producers: Estimate
    f1: Estimate
    iou: Estimate
    share: Estimate
    area: Estimate


def estimate(
    sample: LabelledSample, classes: int, within: Bool[np.ndarray, " n"] | None = None, ground: float | None = None
) -> Accuracies:
    """The accuracies and areas of a map of so many classes; of the part of it where some points are ``within``.

    All points have a part in the variance, since how many fall in a part is chance (domain estimation: Särndal,
    Swensson and Wretman 1992, section 10.3). The areas of a part rest on its ``ground``, or without it on what the
    points say of that, too.
    """
    here = np.ones(len(sample.mapped), bool) if within is None else within
    mapped, reference = (np.eye(classes)[labels] * here[:, None] for labels in (sample.mapped, sample.reference))
    both, every = mapped * reference, here[:, None].astype(float)
    pairs = (sample.mapped * classes + sample.reference)[here]
    share = sample.ratios(reference, np.repeat(every, classes, axis=1))
    whole, weights = float(sample.area.sum()), sample.weights[here]
    shares = np.bincount(pairs, weights, classes**2).reshape(classes, classes) / max(weights.sum(), EXACT)
    if within is None or ground is not None:
        area = _areas(share, whole if ground is None else ground)
    else:
        area = _areas(sample.ratios(reference, np.ones(reference.shape)), whole)
    return Accuracies(
        counts=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        shares=shares,
        overall=sample.ratios(both.sum(axis=1, keepdims=True), every),
        users=_exact(sample.ratios(both, mapped), sample, here),
        producers=sample.ratios(both, reference),
        f1=sample.ratios(2 * both, mapped + reference),
        iou=sample.ratios(both, np.maximum(mapped, reference)),
        share=share,
        area=area,
    )


def design_effect(share: Estimate, points: int) -> float:
    """A share's variance, next to that of a simple random sample of so many points; NaN where that is 0."""
    plain = float(share.value[0] * (1 - share.value[0])) / points
    return float(share.se[0]) ** 2 / plain if plain > 0 else math.nan


def _exact(users: Estimate, sample: LabelledSample, here: Bool[np.ndarray, " n"]) -> Estimate:
    """User's accuracies with the interval of Clopper and Pearson where a class is one stratum of few points."""
    low, high = users.low.copy(), users.high.copy()
    for label in range(len(low)):
        own = here & (sample.mapped == label)
        strata, points = np.unique(sample.stratum[own]), int(own.sum())
        if len(strata) == 1 and points < min(FEW, sample.pixels[strata[0]]):
            low[label], high[label] = clopper_pearson(int((sample.reference[own] == label).sum()), points)
    return Estimate(users.value, users.se, low, high)


def clopper_pearson(right: int, points: int) -> tuple[float, float]:
    """The exact 95 % interval of a share: what it would have to be for so many, or for so few, in 2.5 % of samples.

    Source: Clopper and Pearson 1934.
    """

    def tail(share: float, least: int) -> float:
        return sum(math.comb(points, k) * share**k * (1 - share) ** (points - k) for k in range(least, points + 1))

    low = _root(lambda share: tail(share, right) - 0.025) if right else 0.0
    high = _root(lambda share: tail(share, right + 1) - 0.975) if right < points else 1.0
    return low, high


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of a share is 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _areas(share: Estimate, total: float) -> Estimate:
    """Shares of the area as areas, with symmetric intervals within 0 and the total."""
    margin = Z * share.se
    low, high = np.clip([share.value - margin, share.value + margin], 0, 1)
    return Estimate(*(total * part for part in (share.value, share.se, low, high)))


def wilson(value: Numbers, se: Numbers, points: Int[np.ndarray, "*k"]) -> tuple[Numbers, Numbers]:
    """Wilson's score interval for a share whose standard error says how large a simple random sample it is worth."""
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.where(se > EXACT, value * (1 - value) / se**2, points)
        centre = (value + Z**2 / (2 * worth)) / (1 + Z**2 / worth)
        margin = Z / (1 + Z**2 / worth) * np.sqrt(value * (1 - value) / worth + (Z / (2 * worth)) ** 2)
    return np.clip(centre - margin, 0, 1), np.clip(centre + margin, 0, 1)


def _sums(values: Float[np.ndarray, "n ..."], sample: LabelledSample) -> Float[np.ndarray, "h ..."]:
    """The sum over the points of each stratum."""
    sums = np.zeros((len(sample.area), *values.shape[1:]))
    np.add.at(sums, sample.stratum, values)
    return sums
