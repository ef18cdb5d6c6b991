"""The accuracy of a class map and the areas of its classes, from the labelled points of a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int

from regard.assessment.assisted import assisted_areas
from regard.assessment.design import label_of
from regard.assessment.estimate import Accuracies, LabelledSample, Z, estimate
from regard.assessment.points import Points, read_points
from regard.assessment.population import fingerprint, units_at
from regard.assessment.result import Accuracy
from regard.assessment.units import Units
from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, DatasetError, counted, listed
from regard.io.class_map_file import LabelMap, open_label_map


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
            if drawn.block > 1:
                raise ConfigError(f"{name} has blocks; probabilities need pixels. Draw pixels, or leave them out.")
            helped = assisted_areas(sample, drawn.rows[kept], drawn.columns[kept], source, Path(probabilities))
        classes, ground = source.classes, not bool(np.isnan(drawn.stratum_m2).any())
    mapped = np.zeros(len(classes))
    firsts = np.unique(sample.stratum, return_index=True)[1]
    np.add.at(mapped, sample.mapped[firsts], sample.area)
    found = estimate(sample, len(classes))
    counts = int(kept.sum()), int((~kept).sum()), len(sample.area)
    return Accuracy(
        Path(map).name, classes, found, mapped, *counts, ground, _caution(sample, found, classes), helped, drawn.block
    )


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
