"""What labelled points say of a class map: its accuracy and the areas of its classes, as JSON and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from regard.assessment import change
from regard.assessment.agreement import Agreement
from regard.assessment.estimate import Accuracies, Estimate, Z, design_effect
from regard.classes import ClassMap
from regard.errors import counted

HECTARE = 10_000.0  # m²


@dataclass(frozen=True, eq=False)
class Located:
    """The labelled points on the map: rows and columns in pixels, the labels of the map and of the reference, the map's
    ``size``, and its labels at a small size (None for pairs of maps).
    """

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    mapped: Int[np.ndarray, " n"]
    reference: Int[np.ndarray, " n"]
    size: tuple[int, int]
    overview: Int[np.ndarray, "h w"] | None


@dataclass(frozen=True, eq=False)
class SubArea:
    """What the points say of a part of the map; ``mapped`` is None where only a part of the map was sampled."""

    name: str
    points: int
    estimates: Accuracies
    mapped: Float[np.ndarray, " k"] | None


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How accurate a map is, all with standard errors and 95 % intervals.

    ``mapped`` is the area of each class on the map, ``assisted`` that with the help of probabilities; areas are in m²,
    or in pixels without ``ground``. ``block`` is the side of the units in pixels. ``unlabelled`` points are left out.
    ``caution`` says where the intervals are too narrow; empty if nothing is known of it. ``changed`` is the share of
    the ground that has changed, where the classes are pairs of two dates.
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
    sub_areas: tuple[SubArea, ...] = ()
    changed: Estimate | None = None
    agreement: Agreement | None = None
    located: Located | None = None

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them; null where the points say nothing."""
        facts: dict[str, Any] = {"map": self.map, "points": self.points, "unlabelled": self.unlabelled}
        facts |= {"block": self.block, "strata": self.strata, "caution": self.caution}
        facts |= {"classes": list(self.classes.names), **self._figures(self.estimates)}
        facts["overall_accuracy_design_effect"] = self.design_effect
        facts["overall_accuracy_se_with_100_more"] = self.with_more()
        if self.assisted is not None and self.ground:
            helped = _told("area_m2_assisted", self.assisted)
            facts |= {key: self._by_class(values) for key, values in helped.items()}
        facts |= self._mapped(self.mapped) | self._change()
        if self.sub_areas:
            facts["sub_areas"] = {part.name: self._part(part) for part in self.sub_areas}
        return facts if self.agreement is None else facts | {"agreement": self.agreement.as_dict()}

    def _figures(self, found: Accuracies) -> dict[str, Any]:
        """All estimates of the map or of a sub-area."""
        facts: dict[str, Any] = {key: values[0] for key, values in _told("overall_accuracy", found.overall).items()}
        named = [("users_accuracy", found.users), ("producers_accuracy", found.producers), ("f1", found.f1)]
        for name, part in [*named, ("iou", found.iou), ("area_share", found.share), ("area_m2", found.area)]:
            known = name != "area_m2" or self.ground
            facts |= {key: self._by_class(values if known else None) for key, values in _told(name, part).items()}
        return facts | {"error_matrix": found.counts.tolist(), "error_matrix_share": found.shares.tolist()}

    def _mapped(self, mapped: np.ndarray) -> dict[str, Any]:
        area = self._by_class(mapped.tolist() if self.ground else None)
        return {"mapped_share": self._by_class((mapped / mapped.sum()).tolist()), "mapped_m2": area}

    def _part(self, part: SubArea) -> dict[str, Any]:
        known = {} if part.mapped is None else self._mapped(part.mapped)
        return {"points": part.points, **self._figures(part.estimates), **known}

    def _change(self) -> dict[str, Any]:
        """The areas from class to class, and how much has changed."""
        if self.changed is None:
            return {}
        names, total = self.classes.names, float(self.mapped.sum()) if self.ground else math.nan
        facts = {key: values[0] for key, values in _told("changed_share", self.changed).items()}
        area = Estimate(*(total * values for values in self.changed))
        facts |= {key: values[0] for key, values in _told("changed_m2", area).items()}
        if self.ground:
            areas = _told("from_to_m2", self.estimates.area)
            facts |= {key: change.nested(names, values) for key, values in areas.items()}
        return facts

    @property
    def design_effect(self) -> float | None:
        """The variance of the overall accuracy, next to that of a simple random sample of as many points."""
        found = design_effect(self.estimates.overall, self.points)
        return None if math.isnan(found) else found

    def with_more(self, points: int = 100) -> float:
        """The standard error of the overall accuracy that so many more points, shared alike, would leave."""
        return float(self.estimates.overall.se[0]) * math.sqrt(self.points / (self.points + points))

    def text(self) -> str:
        """All of it in sentences and Markdown tables."""
        caution = [f"Caution: {self.caution}"] if self.caution else []
        agreement = [] if self.agreement is None else [self.agreement.heading()]
        more = [f"changed: {_percent(self.changed, 0)} % of the ground", self.change_table()] if self.changed else []
        more += [self.sub_area_table()] if self.sub_areas else []
        return "\n\n".join([self.heading(), self.worth(), *agreement, *caution, self.table(), self.matrix(), *more])

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
            each = [self.with_margin(part, k) for part in areas.values()]
            lines.append(_row([name, *accuracies, self.extent(self.mapped[k]), *each]))
        return "\n".join(lines)

    def sub_area_table(self) -> str:
        """Each sub-area as a Markdown table: its accuracy and the area of each class, with 95 % intervals."""
        heads = ["sub-area", "points", "overall accuracy, %", *(f"{name}, {self.unit}" for name in self.classes.names)]
        lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
        for part in self.sub_areas:
            each = [self.with_margin(part.estimates.area, k) for k in range(len(self.classes))]
            lines.append(_row([part.name, part.points, _percent(part.estimates.overall, 0), *each]))
        return "\n".join(lines)

    def change_table(self) -> str:
        """The areas from class (rows) to class (columns) as a Markdown table, with 95 % intervals."""
        cells = [self.with_margin(self.estimates.area, k) for k in range(len(self.classes))]
        rows = change.nested(self.classes.names, cells)
        later = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines = [_row([f"from \\ to, {self.unit}", *later]), _row(["---", *["---:"] * len(later)])]
        return "\n".join(lines + [_row([name, *(row.get(to, "–") for to in later)]) for name, row in rows.items()])

    def with_margin(self, areas: Estimate, k: int) -> str:
        """An area with half of its interval."""
        if math.isnan(areas.value[k]):
            return "–"
        return f"{self.extent(areas.value[k])} ± {self.extent(Z * areas.se[k])}"

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
