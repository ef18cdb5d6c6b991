"""The accuracy of a class map and the areas of its classes, from the labelled points of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from regard.assessment.agreement import Agreement, compared, copy_in_order, write_disagreements
from regard.assessment.assisted import assisted_areas
from regard.assessment.change import PairMap, changed, open_maps
from regard.assessment.design import label_of
from regard.assessment.estimate import Accuracies, Estimate, LabelledSample, Z, estimate
from regard.assessment.options import SampleOptions
from regard.assessment.points import Points, checked_target, read_points
from regard.assessment.population import OUTSIDE, Population, Zones, fingerprint, units_at
from regard.assessment.result import Accuracy, Located, SubArea
from regard.assessment.units import Units
from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, DatasetError, counted, listed
from regard.io.class_map_file import LabelMap
from regard.io.vectors import layer_of


def accuracy(
    map: str | Path,
    points: str | Path,
    *,
    later: str | Path | None = None,
    probabilities: str | Path | None = None,
    sub_areas: str | Path | None = None,
    second: str | Path | None = None,
    disagreements: str | Path | None = None,
    overwrite: bool = False,
) -> Accuracy:
    """The accuracy of a class map and the areas of its classes, estimated from labelled points of ``regard.sample``.

    The estimates follow the design that drew the points, whatever its strata: Olofsson et al. 2014, Stehman 2014.
    Points without a label are left out, as if they had not been drawn. ``regard.report(result, "report.html")`` makes
    a page of the result.

    Args:
        map: The class map that the points were drawn from.
        points: The file of ``regard.sample``, its column reference filled with class names or values.
        later: The map of the later date, if the points were drawn with one.
        probabilities: The raster that was written with the map: gives areas with its help too, narrower and as right.
        sub_areas: A layer of polygons, such as districts: the same figures for each of their names.
        second: A copy of the points that another person has labelled: gives the agreement of the two. All else rests
            on the first.
        disagreements: With ``second`` a file to write (.gpkg): the points, labelled where both agree, else open.
        overwrite: Replace an existing file.

    Raises:
        UnreadableImage, ClassMismatch: the map or the points are missing, broken, or none of regard.
        DatasetError: the points are another map's; a stratum has too few labels; no copy of the points.
        ConfigError: the file has lost a column of the sample; options that do not fit together.
        OutputError: the file cannot be written, or exists and ``overwrite`` is not given.
    """
    target = _target(disagreements, second, [points, *([second] if second else [])], overwrite)
    drawn, name = read_points(points), Path(points).name
    with open_maps(Path(map), None if later is None else Path(later)) as source:
        parts, zones, digest = _parts(source, sub_areas, drawn)
        _check_fingerprint(drawn, digest, name, source)
        classes, ground = source.classes, not bool(np.isnan(drawn.stratum_m2).any())
        labels = _labels(drawn, classes, name)
        kept = labels >= 0
        agreement = None if second is None else _agreement((drawn, labels), points, second, classes, target)
        sample = _labelled(drawn, labels, kept, source, name)
        at = drawn.rows[kept], drawn.columns[kept]
        located = Located(*at, sample.mapped, sample.reference, source.size, _overview(source))
        helped = None if probabilities is None else _assisted(sample, drawn, kept, source, Path(probabilities))
    mapped = np.zeros(len(classes))
    firsts = np.unique(sample.stratum, return_index=True)[1]
    np.add.at(mapped, sample.mapped[firsts], sample.area)
    found, change = estimate(sample, len(classes)), changed(classes.names)
    return Accuracy(
        source.name,
        classes,
        found,
        mapped,
        points=int(kept.sum()),
        unlabelled=int((~kept).sum()),
        strata=len(sample.area),
        ground=ground,
        caution=_caution(sample, found, classes),
        assisted=helped,
        block=drawn.block,
        sub_areas=() if zones is None else _sub_areas(sample, zones[kept], parts, len(classes)),
        changed=None if change is None else sample.ratios(change[sample.reference][:, None], sample.ones),
        agreement=agreement,
        located=located,
    )


def _target(disagreements: Any, second: Any, sources: list[str | Path], overwrite: bool) -> Path | None:
    """The file of disagreements, if it is wanted and can be written."""
    if disagreements is None:
        return None
    if second is None:
        raise ConfigError("got disagreements without second; need the labels of two people. Give both, or neither.")
    return checked_target(disagreements, [layer_of(source)[0] for source in sources], overwrite=overwrite)


def _agreement(
    first: tuple[Points, np.ndarray], source: str | Path, second: str | Path, classes: ClassMap, target: Path | None
) -> Agreement:
    """How far the labels of a second copy agree with those of the first; writes the disagreements."""
    name = Path(second).name
    other = copy_in_order(first[0], read_points(second), name)
    labels = first[1], _labels(other, classes, name)
    found = compared(labels, classes, name)
    if target is not None:
        write_disagreements(source, labels, classes, target)
    return found


def _check_fingerprint(drawn: Points, digest: str, name: str, source: LabelMap) -> None:
    if drawn.fingerprint != digest:
        raise DatasetError(
            f"{name} was drawn from another map than {source.name}: their fingerprints differ "
            f"({drawn.fingerprint[:8]}). Give its own map, or draw points of this one with regard sample."
        )


def _overview(source: LabelMap, side: int = 900) -> Int[np.ndarray, "h w"] | None:
    """The labels at a small size, for a picture."""
    if isinstance(source, PairMap):
        return None
    height, width = (max(1, round(length * min(1, side / max(source.size)))) for length in source.size)
    return source.raster.read_scaled((height, width), nearest=True)[0].astype(np.int64)


def _assisted(sample: LabelledSample, drawn: Points, kept: np.ndarray, source: LabelMap, path: Path) -> Estimate:
    if drawn.block > 1:
        raise ConfigError(f"the points are blocks; {path.name} needs pixels. Draw pixels, or omit the probabilities.")
    return assisted_areas(sample, drawn.rows[kept], drawn.columns[kept], source, path)


def _parts(
    source: LabelMap, layer: str | Path | None, drawn: Points
) -> tuple[dict[str, tuple[float, np.ndarray] | None], Int[np.ndarray, " n"] | None, str]:
    """The map's fingerprint, and of sub-areas the names with their ground and what the map shows there (None: not
    known, as the sample is of a part of the map), and the number of the sub-area in which each point lies.
    """
    if layer is None:
        return {}, None, fingerprint(source)
    block = None if drawn.block == 1 else drawn.block
    options = SampleOptions(strata=layer, unit="pixel" if block is None else "block", block=block)
    strata, digest = Population(source, options).counted()
    zones = Zones.of(layer, source)
    firsts = np.unique(drawn.stratum, return_index=True)[1]
    whole = sum(stratum.pixels for stratum in strata) == drawn.stratum_pixels[firsts].sum()
    mapped = np.zeros((len(zones.names), len(source.classes)))
    for stratum in strata:
        mapped[zones.names.index(stratum.polygon or zones.names[0]), stratum.label] += stratum.size
    known = {name: (float(row.sum()), row) if whole else None for name, row in zip(zones.names, mapped, strict=True)}
    return known, zones.at(drawn.rows, drawn.columns), digest


def _sub_areas(
    sample: LabelledSample, zones: Int[np.ndarray, " n"], parts: dict[str, tuple[float, np.ndarray] | None], count: int
) -> tuple[SubArea, ...]:
    """The estimates of each sub-area with a name, and of the ground outside where it has points."""
    found = []
    for number, (name, known) in enumerate(parts.items()):
        within = zones == number
        if number or within.any():
            ground, mapped = known or (None, None)
            found.append(SubArea(name, int(within.sum()), estimate(sample, count, within, ground), mapped))
    return (*found[1:], found[0]) if found[0].name == OUTSIDE else tuple(found)


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
    mapped, size = units_at(source, Units(drawn.block), rows, columns)
    own = strata[kept]
    first = np.unique(own, return_index=True)[1]
    if (mapped != mapped[first][own]).any() or (mapped >= len(source.classes)).any():
        raise DatasetError(f"{name} has points that lie in another stratum than drawn. Take the file as it was drawn.")
    area = np.where(np.isnan(drawn.stratum_m2[firsts]), pixels, drawn.stratum_m2[firsts])
    return LabelledSample(own, mapped, labels[kept], size, pixels, area)
