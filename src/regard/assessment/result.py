"""What labelled points say of a class map: its accuracy and the areas of its classes, as JSON and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from regard.assessment.estimate import Accuracies, Estimate, Z, design_effect
from regard.classes import ClassMap
from regard.errors import counted

HECTARE = 10_000.0  # m²


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How accurate a map is, all with standard errors and 95 % intervals.

    ``mapped`` is the area of each class on the map, ``assisted`` that with the help of probabilities; areas are in m²,
    or in pixels without ``ground``. ``block`` is the side of the units in pixels. ``unlabelled`` points are left out.
    ``caution`` says where the intervals are too narrow; empty if nothing is known of it.
    """

    map: str
    classes: ClassMap
    estimates: Accuracies
    mapped: Float[np.ndarray, " k"]
    points: int
    unlabelled: int
    strata: int
    ground: bool
    caution: str
    assisted: Estimate | None = None
    block: int = 1

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them; null where the points say nothing."""
        found, total = self.estimates, self.mapped.sum()
        overall = {name: values[0] for name, values in _told("overall_accuracy", found.overall).items()}
        facts: dict[str, Any] = {"map": self.map, "points": self.points, "unlabelled": self.unlabelled} | overall
        facts |= {
            "overall_accuracy_design_effect": self.design_effect,
            "overall_accuracy_se_with_100_more": self.with_more(),
        }
        facts |= {
            "block": self.block,
            "strata": self.strata,
            "caution": self.caution,
            "classes": list(self.classes.names),
        }
        named = [("users_accuracy", found.users), ("producers_accuracy", found.producers), ("f1", found.f1)]
        for name, part in [*named, ("iou", found.iou), ("area_share", found.share), ("area_m2", found.area)]:
            known = name != "area_m2" or self.ground
            facts |= {key: self._by_class(values if known else None) for key, values in _told(name, part).items()}
        if self.assisted is not None and self.ground:
            helped = _told("area_m2_assisted", self.assisted)
            facts |= {key: self._by_class(values) for key, values in helped.items()}
        facts["mapped_share"] = self._by_class((self.mapped / total).tolist())
        facts["mapped_m2"] = self._by_class(self.mapped.tolist() if self.ground else None)
        return facts | {"error_matrix": found.counts.tolist(), "error_matrix_share": found.shares.tolist()}

    @property
    def design_effect(self) -> float | None:
        """The variance of the overall accuracy, next to that of a simple random sample of as many points."""
        found = design_effect(self.estimates.overall, self.points)
        return None if math.isnan(found) else found

    def with_more(self, points: int = 100) -> float:
        """The standard error of the overall accuracy that so many more points, shared alike, would leave."""
        return float(self.estimates.overall.se[0]) * math.sqrt(self.points / (self.points + points))

    def worth(self) -> str:
        """What the design and 100 more points are worth, in a sentence."""
        now, then = 100 * self.estimates.overall.se[0], 100 * self.with_more()
        effect = "" if self.design_effect is None else f"; design effect {self.design_effect:.2f}"
        return f"standard error {now:.2f} %, {then:.2f} % with 100 more points{effect}"

    def _by_class(self, values: Sequence[Any] | None) -> dict[str, Any]:
        return dict(zip(self.classes.names, values or [None] * len(self.classes), strict=True))

    def heading(self) -> str:
        """The overall accuracy and what it rests on, in a sentence."""
        overall = _percent(self.estimates.overall, 0)
        left = f"; {counted(self.unlabelled, 'point')} without a label left out" if self.unlabelled else ""
        units = "" if self.block == 1 else f", blocks of {self.block} x {self.block} pixels,"
        drawn = f"{counted(self.points, 'point')}{units} in {counted(self.strata, 'stratum', 'strata')}"
        return f"overall accuracy {overall} (95 % interval), from {drawn}{left}"

    @property
    def unit(self) -> str:
        """That in which areas are shown."""
        return "ha" if self.ground else "pixels"

    def extent(self, area: float) -> str:
        """An area in this unit."""
        value = area / HECTARE if self.ground else area
        return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"

    def table(self) -> str:
        """Each class as a Markdown table: accuracies in per cent and areas, with 95 % intervals."""
        heads = ["class", "user's accuracy, %", "producer's accuracy, %", "F1, %", "IoU, %", f"mapped, {self.unit}"]
        found, ways = self.estimates, {"area": self.estimates.area, "area with probabilities": self.assisted}
        areas = {f"{name}, {self.unit}": part for name, part in ways.items() if part is not None}
        lines = [_row([*heads, *areas]), _row(["---", *["---:"] * (len(heads) + len(areas) - 1)])]
        for k, name in enumerate(self.classes.names):
            accuracies = [_percent(part, k) for part in (found.users, found.producers, found.f1, found.iou)]
            each = [f"{self.extent(part.value[k])} ± {self.extent(Z * part.se[k])}" for part in areas.values()]
            lines.append(_row([name, *accuracies, self.extent(self.mapped[k]), *each]))
        return "\n".join(lines)

    def matrix(self) -> str:
        """The error matrix as a Markdown table: points, mapped class by reference class."""
        names = self.classes.names
        lines = [_row(["mapped \\ reference", *names, "points"]), _row(["---", *["---:"] * (len(names) + 1)])]
        lines += [_row([name, *row, sum(row)]) for name, row in zip(names, self.estimates.counts.tolist(), strict=True)]
        return "\n".join(lines)


def _told(name: str, part: Estimate) -> dict[str, list[Any]]:
    """Values, standard errors and intervals under their names; None for what is not known."""
    interval = [[low, high] for low, high in zip(_known(part.low), _known(part.high), strict=True)]
    return {name: _known(part.value), f"{name}_se": _known(part.se), f"{name}_interval": interval}


def _known(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _percent(part: Estimate, k: int) -> str:
    if math.isnan(part.value[k]):
        return "–"
    return f"{100 * part.value[k]:.1f} ({100 * part.low[k]:.1f}–{100 * part.high[k]:.1f})"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
