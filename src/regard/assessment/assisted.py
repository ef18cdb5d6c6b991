"""Areas with the help of a map's probabilities, which are known everywhere: the points say how far these are off.

The share of a class is the mean of its probability over the map, and the mean of truth less probability over the
points, by their design. However wrong the probabilities are, there is no bias; the better they are, the narrower is the
interval. Source: the difference estimator, Särndal, Swensson and Wretman 1992, section 6.3; with a network's
predictions Angelopoulos et al. 2023, Prediction-powered inference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from regard.assessment.estimate import Estimate, LabelledSample, Z
from regard.assessment.population import Cells
from regard.errors import ConfigError, SizeMismatch
from regard.io.class_map_file import LabelMap
from regard.io.ground import Ground
from regard.io.raster import Box, Raster, open_raster

PIECE = 2**18  # pixels that are worked on at a time; each takes some 20 bytes a class


def assisted_areas(
    sample: LabelledSample, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"], source: LabelMap, path: Path
) -> Estimate:
    """The area of each class, from labelled points at some rows and columns, and from the raster that
    ``regard predict --probabilities`` wrote with the map; in the unit of the sample, with symmetric intervals.

    Raises:
        UnreadableImage: the raster is missing or broken.
        SizeMismatch, ConfigError: it is not of the map, or the points are of a part of the map.
    """
    count = len(source.classes)
    with open_raster(path) as raster:
        _check(raster, source)
        mean = _mean(raster, source, int(sample.pixels.sum()))
        boxes = [Box(row, column, 1, 1) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        at_points = np.concatenate([_shares(raster, box)[:, 0] for box in boxes], axis=1).T
    off = sample.ratios(np.eye(count)[sample.reference] - at_points, np.ones((len(rows), count)))
    total, value = float(sample.area.sum()), np.clip(mean + off.value, 0, 1)
    low, high = np.clip([value - Z * off.se, value + Z * off.se], 0, 1)
    return Estimate(total * value, total * off.se, total * low, total * high)


def _check(raster: Raster, source: LabelMap) -> None:
    if raster.size != source.size:
        raise SizeMismatch(
            f"{raster.source.name} has {raster.size[1]} x {raster.size[0]} pixels, the map {source.size[1]} x "
            f"{source.size[0]}. Give the probabilities that were written with the map."
        )
    if len(raster.bands) != len(source.classes) or {*raster.dtypes} != {"uint8"}:
        raise ConfigError(
            f"{raster.source.name} has {len(raster.bands)} bands of {raster.dtypes[0]}, the map {len(source.classes)} "
            "classes; need one band of uint8 a class. Give what regard predict --probabilities wrote with the map."
        )


def _shares(raster: Raster, box: Box) -> Float[np.ndarray, "k h w"]:
    """The probability of each class, which are made to sum up to 1; 0 where there is no data."""
    steps = raster.read(box)[0].astype(np.float32)
    return steps / np.maximum(steps.sum(axis=0), 1)


def _mean(raster: Raster, source: LabelMap, pixels: int) -> Float[np.ndarray, " k"]:
    """The mean probability of each class over the map, by ground."""
    ground, count = Ground.of(source.crs, source.transform), len(source.classes)
    cells, sums, whole, seen = Cells(source, ground), np.zeros(count), 0.0, 0
    step = max(1, PIECE // source.size[1])
    for top in range(0, source.size[0], step):
        labels = source.read(top, min(step, source.size[0] - top))
        box, valid = Box(top, 0, *labels.shape), labels < count
        size = np.where(valid, 1.0 if ground is None else cells.areas(box), 0.0)
        sums += np.tensordot(_shares(raster, box), size, axes=2)
        whole, seen = whole + size.sum(), seen + int(valid.sum())
    if seen != pixels:
        raise ConfigError(
            f"the points are of {pixels:,} of the map's {seen:,} pixels; with probabilities they must be of the whole "
            "map. Draw them without aoi, or leave the probabilities out."
        )
    return sums / whole
