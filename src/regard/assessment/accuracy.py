"""The accuracy of a class map and the areas of its classes, from the labelled points of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from regard.assessment.assisted import assisted_areas
from regard.assessment.design import label_of
from regard.assessment.estimate import Accuracies, Estimate, LabelledSample, Z, design_effect, estimate
from regard.assessment.points import Points, read_points
from regard.assessment.population import fingerprint, pixel_areas
from regard.classes import ClassMap
from regard.errors import ClassMismatch, DatasetError, counted, listed
from regard.io.class_map_file import LabelMap, open_label_map
from regard.io.raster import Box

HECTARE = 10_000.0  # m²


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How accurate a map is, all with standard errors and 95 % intervals.

    ``mapped`` is the area of each class on the map, ``assisted`` that with the help of probabilities; areas are in m²,
    or in pixels without ``ground``. ``unlabelled`` points are left out. ``caution`` says where the intervals are too
    narrow; empty if nothing is known of it.
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

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them; null where the points say nothing."""
        found, total = self.estimates, self.mapped.sum()
        overall = {name: values[0] for name, values in _told("overall_accuracy", found.overall).items()}
        facts: dict[str, Any] = {"map": self.map, "points": self.points, "unlabelled": self.unlabelled} | overall
        facts |= {
            "overall_accuracy_design_effect": self.design_effect,
            "overall_accuracy_se_with_100_more": self.with_more(),
        }
        facts |= {"strata": self.strata, "caution": self.caution, "classes": list(self.classes.names)}
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
        drawn = f"{counted(self.points, 'point')} in {counted(self.strata, 'stratum', 'strata')}"
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


def accuracy(map: str | Path, points: str | Path, *, probabilities: str | Path | None = None) -> Accuracy:
    """The accuracy of a class map and the areas of its classes, estimated from labelled points of ``regard.sample``.

    The estimates follow the design that drew the points, whatever its strata: Olofsson et al. 2014, Stehman 2014.
    ``probabilities``, the raster that was written with the map, gives areas with its help too: narrower, and as right.
    Points without a label are left out, as if they had not been drawn. ``regard.report(result, "report.html")`` makes
    a page of the result.

    Raises:
        UnreadableImage, ClassMismatch: the map or the points are missing, broken, or none of regard.
        DatasetError: the points are another map's; a stratum has too few labels.
        ConfigError: the file has lost a column of the sample.
    """
    drawn = read_points(points)
    name = Path(points).name
    with open_label_map(Path(map)) as source:
        if drawn.fingerprint != fingerprint(source):
            raise DatasetError(
                f"{name} was drawn from another map than {Path(map).name}: their fingerprints differ "
                f"({drawn.fingerprint[:8]}). Give its own map, or draw points of this one with regard sample."
            )
        labels = _labels(drawn, source.classes, name)
        kept = labels >= 0
        sample = _labelled(drawn, labels, kept, source, name)
        helped = None
        if probabilities is not None:
            helped = assisted_areas(sample, drawn.rows[kept], drawn.columns[kept], source, Path(probabilities))
        classes, ground = source.classes, not bool(np.isnan(drawn.stratum_m2).any())
    mapped = np.zeros(len(classes))
    firsts = np.unique(sample.stratum, return_index=True)[1]
    np.add.at(mapped, sample.mapped[firsts], sample.area)
    found = estimate(sample, len(classes))
    counts = int(kept.sum()), int((~kept).sum()), len(sample.area)
    return Accuracy(Path(map).name, classes, found, mapped, *counts, ground, _caution(sample, found, classes), helped)


def _caution(sample: LabelledSample, found: Accuracies, classes: ClassMap) -> str:
    """A warning where no error was found in so large a part of the map that those it may have exceed the interval.

    Where n points show no error, up to 3 / n of the part may be wrong (the rule of three, for 95 %).
    """
    wrong = np.bincount(sample.stratum, sample.mapped != sample.reference, len(sample.area))
    unseen = np.where(
        (wrong == 0) & (sample.counts < sample.pixels), sample.area / sample.area.sum() / sample.counts, 0
    )
    worst, share = int(unseen.argmax()), 3 * float(unseen.max())
    if share <= Z * found.overall.se[0]:
        return ""
    name = classes.names[sample.mapped[sample.stratum == worst][0]]
    return (
        f"no error was found at {counted(int(sample.counts[worst]), 'point')} in {name}, so standard errors leave out "
        f"its errors: they may be up to {100 * share:.1f} % of the map. Label more points there."
    )


def _labels(drawn: Points, classes: ClassMap, name: str) -> Int[np.ndarray, " n"]:
    """The labels of the points; -1 where there is none.

    Raises:
        ClassMismatch: one is not a class of the map.
    """
    labels = np.full(len(drawn.reference), -1)
    for place, value in enumerate(drawn.reference):
        if value is None or value != value or str(value).strip() == "":
            continue
        label = label_of(value, classes)
        if label is None:
            known = ", ".join(f"{k} {class_name}" for k, class_name in enumerate(classes.names[:16]))
            raise ClassMismatch(
                f"{name} has the label {value!r}, not a class of the map ({known}). Correct it, or clear it."
            )
        labels[place] = label
    return labels


def _labelled(
    drawn: Points, labels: Int[np.ndarray, " n"], kept: np.ndarray, source: LabelMap, name: str
) -> LabelledSample:
    """The points with a label, and what each stratum is.

    Raises:
        DatasetError: a stratum has too few labels, or a point is not where it was drawn.
    """
    codes, firsts, strata = np.unique(drawn.stratum, return_index=True, return_inverse=True)
    pixels, counts = drawn.stratum_pixels[firsts], np.bincount(strata[kept], minlength=len(codes))
    bare = sorted({*range(1, drawn.strata + 1)} - {*codes[counts > 0].tolist()})
    if bare:
        raise DatasetError(
            f"{name} has no label in {counted(len(bare), 'stratum', 'strata')} of {drawn.strata} "
            f"({listed(bare)}). Fill the column reference of their points with class names or values."
        )
    single = codes[(counts == 1) & (pixels > 1)]
    if len(single):
        raise DatasetError(
            f"{name} has a single label in stratum {listed(single.tolist())}; a standard error needs 2. Label another "
            "point of it."
        )
    height, width = source.size
    rows, columns = drawn.rows[kept], drawn.columns[kept]
    if ((rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)).any():
        raise DatasetError(f"{name} has points outside the map. Its columns map_row and map_column were changed.")
    at = zip(rows.tolist(), columns.tolist(), strict=True)
    mapped = np.array([source.raster.read_band(Box(row, column, 1, 1))[0, 0] for row, column in at]).astype(np.int64)
    own = strata[kept]
    first = np.unique(own, return_index=True)[1]
    if (mapped != mapped[first][own]).any() or (mapped >= len(source.classes)).any():
        raise DatasetError(f"{name} has points that lie in another stratum than drawn. Take the file as it was drawn.")
    area = np.where(np.isnan(drawn.stratum_m2[firsts]), pixels, drawn.stratum_m2[firsts])
    size = pixel_areas(source, rows, columns)
    return LabelledSample(own, mapped, labels[kept], size, pixels, area)


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
