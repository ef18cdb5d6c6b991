"""How many points each stratum of a map gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from regard.assessment.options import EACH, EXPECTED, SampleOptions
from regard.classes import ClassMap
from regard.errors import ConfigError, counted, unknown


@dataclass(frozen=True)
class Stratum:
    """A part of the map: a class, in a polygon if strata were given, at a ``confidence`` between two levels, at the
    ``border`` of the class or not. ``pixels`` counts its units: blocks, where these are drawn.

    ``code`` is what its points carry; ``area_m2`` is None where the ground is unknown.
    """

    code: int
    label: int
    name: str
    polygon: str | None
    pixels: int
    area_m2: float | None
    points: int = 0
    confidence: tuple[float, float] | None = None
    border: bool | None = None

    @property
    def part(self) -> str:
        """Its polygon, its confidence and its side of a border, in words."""
        between = [] if self.confidence is None else ["confidence {:g} to {:g}".format(*self.confidence)]
        side = {None: [], True: ["at a border"], False: ["away from borders"]}[self.border]
        return ", ".join([*([self.polygon] if self.polygon else []), *between, *side]) or "–"

    @property
    def size(self) -> float:
        """Its area, or its pixels where the ground is unknown."""
        return float(self.pixels) if self.area_m2 is None else self.area_m2

    @property
    def weight(self) -> float:
        """How many pixels each of its points stands for: the inverse of the probability that a pixel is drawn."""
        return self.pixels / self.points


def by_class(texts: Iterable[str], classes: ClassMap, option: str, kind: type[int] | type[float]) -> dict[int, Any]:
    """``NAME=NUMBER`` or ``VALUE=NUMBER`` as numbers by label.

    Raises:
        UnknownName: no such class.
        ConfigError: no number above 0 follows, or the class was named before.
    """
    found: dict[int, Any] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        label = label_of(name, classes)
        if label is None:
            raise unknown("class", name, classes.names)
        try:
            value = kind(number)
        except ValueError:
            value = kind(0)
        if not value > 0 or label in found:
            raise ConfigError(
                f"got {option} {text}; need each class once with a number above 0: {classes.names[label]}=50."
            )
        found[label] = value
    return found


def label_of(value: Any, classes: ClassMap) -> int | None:
    """The label of the class that a name or a value, as a number or as text, stands for; None if it is not a class."""
    text = str(value).strip()
    if text in classes.names:
        return classes.names.index(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < len(classes) else None


def deviations(strata: list[Stratum], options: SampleOptions, classes: ClassMap) -> Float[np.ndarray, " h"]:
    """The expected standard deviation of being right in each stratum: the root of U (1 - U), U the user's accuracy.

    Raises:
        ConfigError: an accuracy above 1.
    """
    expected = by_class(options.expected, classes, "expected", float)
    accuracies = np.array([expected.get(stratum.label, EXPECTED) for stratum in strata])
    if accuracies.max() > 1:
        raise ConfigError(f"got an expected user's accuracy of {accuracies.max():g}; need a share, such as 0.9.")
    return np.sqrt(accuracies * (1 - accuracies))


def points_for(shares: Float[np.ndarray, " h"], spread: Float[np.ndarray, " h"], se: float, pixels: int) -> int:
    """How many points the standard error of the overall accuracy takes: (Σ W S)² / (SE² + Σ W S² / N).

    Source: Olofsson et al. 2014, equation 13; Cochran 1977, equation 5.25.
    """
    return int(np.ceil((shares @ spread) ** 2 / (se**2 + shares @ spread**2 / pixels)))


def allocated(strata: list[Stratum], options: SampleOptions, classes: ClassMap) -> list[int]:
    """The points of each stratum.

    Raises:
        ConfigError: too few points for the strata, or more than pixels; a class of the map without points.
        UnknownName: no such class.
    """
    sizes = np.array([stratum.size for stratum in strata], float)
    pixels = np.array([stratum.pixels for stratum in strata])
    if options.per_class:
        return _of_classes(strata, sizes, pixels, options, classes)
    spread, shares = deviations(strata, options, classes), sizes / sizes.sum()
    total = options.points
    if total is None:
        total = int(np.minimum(pixels, EACH).sum())
        if options.target_se is not None:
            total = points_for(shares, spread, options.target_se, int(pixels.sum()))
        total = int(np.clip(total, np.minimum(pixels, options.minimum).sum(), pixels.sum()))
    wanted = {"equal": np.ones(len(strata)), "proportional": shares, "neyman": shares * spread}[options.allocation]
    return shared(total, wanted, pixels, options.minimum).tolist()


def _of_classes(
    strata: list[Stratum], sizes: np.ndarray, pixels: np.ndarray, options: SampleOptions, classes: ClassMap
) -> list[int]:
    """The points of each class, in proportion to area where it has several strata."""
    asked = by_class(options.per_class, classes, "per_class", int)
    labels = np.array([stratum.label for stratum in strata])
    for label in np.unique(labels).tolist():
        if label not in asked:
            raise ConfigError(
                f"per_class names no points for {classes.names[label]}, which has "
                f"{counted(int(pixels[labels == label].sum()), 'pixel')} of the map. Add {classes.names[label]}=50."
            )
    points = np.zeros(len(strata), int)
    for label, total in asked.items():
        own = labels == label
        if not own.any():
            raise ConfigError(f"the map has no pixel of {classes.names[label]}. Leave it out of per_class.")
        points[own] = shared(total, sizes[own], pixels[own], options.minimum)
    return points.tolist()


def shared(
    total: int, wanted: Float[np.ndarray, " h"], pixels: Int[np.ndarray, " h"], minimum: int
) -> Int[np.ndarray, " h"]:
    """``total`` points in proportion to ``wanted``, none below ``minimum`` and none above its pixels, by largest
    remainders.

    Raises:
        ConfigError: they do not suffice, or there are not as many pixels.
    """
    least = np.minimum(pixels, minimum)
    if not least.sum() <= total <= pixels.sum():
        population = f"{counted(len(pixels), 'stratum', 'strata')} of {pixels.sum()} pixels"
        raise ConfigError(
            f"got {counted(total, 'point')} for {population}; need {least.sum()} at least ({minimum} in each), and not "
            "more than pixels. Give more points, or fewer strata."
        )
    wanted = np.maximum(wanted, wanted.max() * 1e-9) if wanted.max() > 0 else np.ones(len(pixels))
    low, high = 0.0, float(pixels.max() / wanted.min())
    for _ in range(200):  # how many points each unit of what is wanted gets
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * wanted, least, pixels).sum() <= total else (low, middle)
    exact = np.clip(low * wanted, least, pixels)
    points = np.floor(exact + 1e-6).astype(np.int64)
    order = np.argsort(points - exact, kind="stable")
    rest = order[points[order] < pixels[order]][: total - points.sum()]
    points[rest] += 1
    return points
