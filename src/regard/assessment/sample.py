"""A probability sample of a class map: points to label, stratified by class, from which its accuracy is estimated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regard.assessment.change import open_maps
from regard.assessment.design import Stratum, allocated, deviations
from regard.assessment.options import Allocation, SampleOptions, Unit
from regard.assessment.points import HIDDEN, PointWriter, checked_target
from regard.assessment.population import Place, Population
from regard.assessment.units import Units
from regard.errors import counted
from regard.io.class_map_file import LabelMap, open_confidence
from regard.io.raster import to_map


@dataclass(frozen=True)
class SampleDesign:
    """What was drawn, or would be: the strata with their points. ``expected_se`` is the standard error of the overall
    accuracy if the user's accuracies are as expected.
    """

    map: str
    fingerprint: str
    options: SampleOptions
    strata: tuple[Stratum, ...]
    expected_se: float

    @property
    def points(self) -> int:
        """The points of all strata."""
        return sum(stratum.points for stratum in self.strata)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        unused = {"levels"} if self.options.confidence is None else set()
        unused |= {"unit"} if self.options.unit == "pixel" else set()
        given = {name: value for name, value in asdict(self.options).items() if name not in unused}
        options = {name: value for name, value in given.items() if value not in (None, ())}
        strata = [asdict(stratum) | {"weight": stratum.weight} for stratum in self.strata]
        about = {"map": self.map, "fingerprint": self.fingerprint, "points": self.points, "strata": strata}
        return about | {"expected_se": self.expected_se, "options": json.loads(json.dumps(options, default=str))}

    def table(self) -> str:
        """The strata as a Markdown table."""
        total = sum(stratum.size for stratum in self.strata)
        lines = [
            f"| class | part | {self.options.unit}s | share, % | points | weight |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {stratum.name} | {stratum.part} | {stratum.pixels:,} | {100 * stratum.size / total:.2f} | "
            f"{stratum.points} | {stratum.weight:.6g} |"
            for stratum in self.strata
        ]
        return "\n".join(lines)


def sample(
    map: str | Path,
    out: str | Path | None = None,
    *,
    later: str | Path | None = None,
    points: int | None = None,
    per_class: Mapping[str, int] | Mapping[int, int] | Sequence[str] = (),
    target_se: float | None = None,
    allocation: Allocation = "equal",
    expected: Mapping[str, float] | Mapping[int, float] | Sequence[str] = (),
    minimum: int = SampleOptions.minimum,
    strata: str | Path | None = None,
    confidence: str | Path | None = None,
    levels: Sequence[float] = SampleOptions.levels,
    boundary: int | None = None,
    unit: Unit = "pixel",
    block: int | None = None,
    aoi: Sequence[float] | str | Path | None = None,
    seed: int = SampleOptions.seed,
    overwrite: bool = False,
) -> SampleDesign:
    """Draw points of a class map to label, at random in each class, and write them to ``out`` (.gpkg).

    The layer has an empty column ``reference``: fill it with the class that each point's pixel has in truth, by name or
    value, without a look at the map. Then ``regard.accuracy(map, out)`` estimates how accurate the map is.

    With a ``later`` map of the same grid, the classes are pairs, such as "forest > town": label the change.

    The map is read twice in pieces, so its size does not matter. The same seed draws the same pixels. Without ``out``
    nothing is drawn: the design says how many points it takes. The other options are those of
    :class:`regard.assessment.options.SampleOptions`; ``per_class`` and ``expected`` also as ``{"building": 100}``.

    Raises:
        UnreadableImage, ClassMismatch: the map is missing, broken, or none of regard.
        ConfigError, UnknownName: a size or a class that is not possible; no pixel in the area of interest.
        OutputError: the file cannot be written, or exists and ``overwrite`` is not given.
    """
    options = SampleOptions(
        points,
        _texts(per_class),
        target_se,
        allocation,
        _texts(expected),
        minimum,
        strata,
        confidence,
        tuple(levels),
        boundary,
        unit,
        block,
        aoi,
        seed,
    )
    maps = [Path(map), *([] if later is None else [Path(later)])]
    target = None if out is None else checked_target(out, maps, overwrite=overwrite)
    with ExitStack() as stack:
        source = stack.enter_context(open_maps(Path(map), None if later is None else Path(later)))
        certainty = None if confidence is None else stack.enter_context(open_confidence(Path(confidence), source))
        population = Population(source, options, certainty)
        design = _designed(population, options)
        if target is not None:
            _write(target, source, design, population.drawn([*design.strata], options.seed))
    return design


def _texts(values: Mapping[str, Any] | Mapping[int, Any] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        return tuple(f"{name}={value}" for name, value in values.items())
    return tuple(values)


def _designed(population: Population, options: SampleOptions) -> SampleDesign:
    """The strata of a map with their points."""
    classes = population.map.classes
    strata, digest = population.counted()
    points = allocated(strata, options, classes)
    spread = deviations(strata, options, classes)
    sizes = np.array([stratum.size for stratum in strata])
    left = 1 - np.array(points) / [stratum.pixels for stratum in strata]
    error = float(np.sqrt(np.sum((sizes / sizes.sum() * spread) ** 2 * left / points)))
    full = tuple(replace(stratum, points=count) for stratum, count in zip(strata, points, strict=True))
    return SampleDesign(population.map.name, digest, options, full, error)


def _write(target: Path, source: LabelMap, design: SampleDesign, place: Place) -> None:
    """The points in random order. Strata have numbers in random order too, which tell a labeller no class."""
    generator = np.random.default_rng(design.options.seed)
    numbers = 1 + generator.permutation(len(design.strata))
    order = generator.permutation(len(place.rows))
    rows, columns, strata = place.rows[order], place.columns[order], place.strata[order]
    of_stratum = [
        (
            number,
            len(design.strata),
            stratum.weight,
            stratum.pixels,
            np.nan if stratum.area_m2 is None else stratum.area_m2,
        )
        for number, stratum in zip(numbers.tolist(), design.strata, strict=True)
    ]
    hidden = [np.array(values)[strata] for values in zip(*of_stratum, strict=True)]
    units = Units(design.options.block or 1)
    hidden += [rows, columns, np.full(len(rows), units.side), np.full(len(rows), design.fingerprint, object)]
    named = {"id": 1 + np.arange(len(rows)), "reference": np.full(len(rows), None, object)}
    named |= dict(zip(HIDDEN, hidden, strict=True))
    about = design.as_dict() | {"classes": source.classes.model_dump(include={"names", "palette"})}
    about["transform"] = source.transform[:6]
    for stratum, number in zip(about["strata"], numbers.tolist(), strict=True):
        stratum["stratum"] = number
    at = units.centres(np.stack([rows, columns], axis=1), source.size)
    centres = to_map(at[:, ::-1], source.transform)
    with PointWriter(target, source.crs, named, source.classes.names, json.dumps({"regard_sample": about})) as writer:
        writer.add(centres)


def summary(design: SampleDesign, out: Path | None) -> str:
    """The design in words and a table."""
    error = f"expected standard error of the overall accuracy {design.expected_se:.4f}"
    points = f"{counted(design.points, 'point')} in {counted(len(design.strata), 'stratum', 'strata')}"
    last = f"Written: {out}" if out else "Nothing is drawn yet. To draw the points, add -o points.gpkg."
    return f"{points}; {error}\n\n{design.table()}\n\n{last}"
