"""The options of a sample, each declared once. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from regard.errors import ConfigError

EACH = 50  # points of a stratum, if nothing is said of their number
EXPECTED = 0.8  # user's accuracy of a class of which nothing else is said
Allocation = Literal["equal", "proportional", "neyman"]
Unit = Literal["pixel", "block"]
MOST = 256  # pixels: the side of a block, and the distance from a border


@dataclass(frozen=True)
class SampleOptions:
    """How many points are drawn, and where.

    Args:
        points: Points in all; if nothing is said of their number, 50 for each stratum.
        per_class: In place of that the points of each class, by name or value: building=100 other=200.
        target_se: In place of that the standard error of the overall accuracy that is wanted, such as 0.01: as many
            points as it takes if the map is as accurate as expected says.
        allocation: How the points are shared among the strata: equal; proportional to their area; or neyman, by area
            and expected variance, for the smallest error of the overall accuracy.
        expected: The user's accuracy that is expected of each class, for neyman and target-se: building=0.9; 0.8 of a
            class that is not named.
        minimum: Points in each stratum at least, or all of its pixels; 2 or above.
        strata: A layer of polygons, such as districts: FILE or FILE|layername=LAYER. Each class in each polygon is a
            stratum; polygons of the same name are one. Ground in no polygon counts as one more.
        confidence: The confidence raster that was written with the map: cuts each class into strata, so that the points
            can go where errors are.
        levels: The confidences that it is cut at.
        boundary: Cuts each class in two: pixels at most so many rows and columns from another class, and the others.
        unit: What is drawn and labelled: a pixel, or a block of pixels.
        block: With unit block: the pixels along its side. A block has the class of most of its pixels with data (of
            several, the one with the lowest value), on the map and in the reference.
        aoi: Assess this part only: WEST,SOUTH,EAST,NORTH in the map's CRS, or polygons: FILE or FILE|layername=LAYER.
        seed: Another seed draws other points.

    Raises:
        ConfigError: more than one size, or a number that is not possible.
    """

    points: int | None = None
    per_class: tuple[str, ...] = ()
    target_se: float | None = None
    allocation: Allocation = "equal"
    expected: tuple[str, ...] = ()
    minimum: int = 2
    strata: str | Path | None = None
    confidence: str | Path | None = None
    levels: tuple[float, ...] = (0.6, 0.9)
    boundary: int | None = None
    unit: Unit = "pixel"
    block: int | None = None
    aoi: Sequence[float] | str | Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = [self.points is not None, bool(self.per_class), self.target_se is not None]
        if sum(sizes) > 1:
            raise ConfigError(f"got {sum(sizes)} of points, per_class and target_se; need one of them.")
        if self.points is not None and self.points < 1:
            raise ConfigError(f"got {self.points} points; need 1 or more.")
        if self.target_se is not None and not 0 < self.target_se < 0.5:
            raise ConfigError(f"got target_se {self.target_se:g}; need one between 0 and 0.5, such as 0.01.")
        if self.allocation not in get_args(Allocation):
            raise ConfigError(f"got allocation {self.allocation!r}; need {', '.join(get_args(Allocation))}.")
        if self.minimum < 2:
            raise ConfigError(f"got minimum {self.minimum}; a standard error needs 2 points or more in each stratum.")
        if not all(0 < level < 1 for level in self.levels) or sorted({*self.levels}) != [*self.levels]:
            raise ConfigError(f"got levels {list(self.levels)}; need rising confidences between 0 and 1: 0.6 0.9.")
        if self.boundary is not None and not 1 <= self.boundary <= MOST:
            raise ConfigError(f"got boundary {self.boundary}; need a distance of 1 to {MOST} pixels, such as 2.")
        if self.unit not in get_args(Unit):
            raise ConfigError(f"got unit {self.unit!r}; need {' or '.join(get_args(Unit))}.")
        if self.unit == "block" and not (self.block is not None and 2 <= self.block <= MOST):
            raise ConfigError(f"got block {self.block}; need the pixels along its side, 2 to {MOST}, such as 3.")
        if self.unit == "pixel" and self.block is not None:
            raise ConfigError(f"got block {self.block} with unit pixel; need unit block, or no block.")
        if self.seed < 0:
            raise ConfigError(f"got seed {self.seed}; need 0 or above.")
