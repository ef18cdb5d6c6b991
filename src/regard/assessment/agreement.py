"""Two interpreters of one sample: how far their labels agree, and the points at which they do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from jaxtyping import Int

from regard.assessment.estimate import Estimate, Z, wilson
from regard.assessment.points import Points, PointWriter, read_table
from regard.classes import ClassMap
from regard.errors import DatasetError, counted
from regard.io.vector_writer import description_of

Labels = Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two interpreters agree, at the points that both have labelled: ``counts``, first x second."""

    counts: Int[np.ndarray, "k k"]

    @property
    def points(self) -> int:
        """The points that both have labelled."""
        return int(self.counts.sum())

    @property
    def share(self) -> Estimate:
        """The share of points with the same label, with Wilson's interval."""
        value = np.array([np.trace(self.counts) / self.points])
        se = np.sqrt(value * (1 - value) / self.points)
        return Estimate(value, se, *wilson(value, se, np.array([self.points])))

    @property
    def kappa(self) -> tuple[float, float]:
        """Cohen's kappa and its standard error; NaN where both use one class alone.

        Source: Cohen 1960; Fleiss, Cohen and Everitt 1969, equation 8.
        """
        p = self.counts / self.points
        first, second, same = p.sum(axis=1), p.sum(axis=0), np.diag(p)
        chance = float(first @ second)
        if chance == 1:
            return math.nan, math.nan
        kappa = (float(same.sum()) - chance) / (1 - chance)
        apart = p * (second[:, None] + first[None, :]) ** 2
        spread = same @ (1 - (first + second) * (1 - kappa)) ** 2
        spread += (1 - kappa) ** 2 * (apart.sum() - np.trace(apart))
        variance = max(0.0, float(spread) - (kappa - chance * (1 - kappa)) ** 2)
        return kappa, math.sqrt(variance / self.points) / (1 - chance)

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        share, (kappa, error) = self.share, self.kappa
        known = not math.isnan(kappa)
        interval = [max(-1.0, kappa - Z * error), min(1.0, kappa + Z * error)]
        return {
            "points": self.points,
            "disagreements": self.points - int(np.trace(self.counts)),
            "agreement": float(share.value[0]),
            "agreement_interval": [float(share.low[0]), float(share.high[0])],
            "kappa": kappa if known else None,
            "kappa_se": error if known else None,
            "kappa_interval": interval if known else None,
            "matrix": self.counts.tolist(),
        }

    def heading(self) -> str:
        """Agreement and kappa in a sentence."""
        facts = self.as_dict()
        low, high = facts["agreement_interval"]
        text = f"two interpreters agree at {100 * facts['agreement']:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
        text += f" of {counted(self.points, 'point')}"
        if facts["kappa"] is None:
            return text
        low, high = facts["kappa_interval"]
        return f"{text}; Cohen's kappa {facts['kappa']:.2f} ({low:.2f}–{high:.2f})"


def compared(labels: tuple[Labels, Labels], classes: ClassMap, name: str) -> Agreement:
    """The agreement of two copies of one sample, whose labels (-1: none) are given in the order of the first.

    Raises:
        DatasetError: no point has a label in both.
    """
    one, other = labels
    both = (one >= 0) & (other >= 0)
    if not both.any():
        raise DatasetError(f"{name} and the first file have no point that both label. Label the same points in both.")
    count = len(classes)
    return Agreement(np.bincount(one[both] * count + other[both], minlength=count**2).reshape(count, count))


def copy_in_order(first: Points, second: Points, name: str) -> Points:
    """The second copy of a sample, its points in the order of the first.

    Raises:
        DatasetError: they are not copies of one sample.
    """
    if first.fingerprint != second.fingerprint or {*first.places()} != {*second.places()}:
        raise DatasetError(
            f"{name} does not have the points of the first file. Give two copies of one file of regard sample, "
            "labelled by two people."
        )
    at = {place: number for number, place in enumerate(second.places())}
    order = [at[place] for place in first.places()]
    return second._replace(
        reference=[second.reference[number] for number in order], rows=first.rows, columns=first.columns
    )


def write_disagreements(source: str | Path, labels: tuple[Labels, Labels], classes: ClassMap, out: Path) -> None:
    """Write the points of the first file again, labelled where both agree, with the labels of both in the columns
    ``first`` and ``second``.

    Raises:
        OutputError: the file cannot be written.
    """
    table, (one, other) = read_table(source, geometry=True), labels
    names = np.array([*classes.names, None], object)
    agreed = names[np.where(one == other, one, -1)]
    columns = table.columns | {"reference": agreed, "first": names[one], "second": names[other]}
    crs = None if table.crs is None else pyproj.CRS(table.crs)
    described = description_of(table.path, table.layer) or ""
    with PointWriter(out, crs, columns, classes.names, described) as writer:
        writer.add(shapely.get_coordinates(shapely.from_wkb(table.geometry)))
