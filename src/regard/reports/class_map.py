"""The facts of a class map for its report: area and mean confidence by class, pictures, and the model card."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from regard.assessment.result import Accuracy
from regard.card import Card
from regard.inference.pictures import colourise, heat
from regard.io.areas import class_areas
from regard.io.class_map_file import LabelMap, open_confidence, open_label_map
from regard.io.ground import ground_resolution
from regard.io.image import read_small
from regard.io.raster import Box
from regard.reports.charts import histogram
from regard.reports.gallery import WIDE, Picture, embedded, summary

POINTS_SIDE = 560  # units of the picture of points along its longer side: symbols of 8 units show on a phone, too
LEVELS = 256  # of confidence, in steps of 1/255; level 0 is no data
Levels = Int[np.ndarray, "k 256"]


def describe(path: Path, confidence: Path | None = None) -> dict[str, Any]:
    """The facts of a class map, by the names that the page's template has for them.

    Raises:
        UnreadableImage, ClassMismatch: it is not a class map.
        SizeMismatch, ConfigError: ``confidence`` is not that of this map.
    """
    with open_label_map(path) as source:
        size, classes = source.size, source.classes
        levels = None if confidence is None else _levels(source, confidence)
        width = max(1, round(size[1] * min(1, WIDE / max(size))))
        labels = read_small(path, width, nearest=True)[0].astype(np.int64)
        known = np.where(labels < len(classes), labels, classes.ignore_index)
        alt = f"Class map: {summary(known, classes)}"
        pictures: list[Picture] = [("Class map", alt, embedded(colourise(known, classes), side=WIDE))]
        facts = {
            "name": path.name,
            "size": size,
            "classes": classes,
            "crs": source.crs.to_string() if source.crs else None,
            "metres": ground_resolution(source.raster),
            "card": _card(source),
            "areas": class_areas(path),
            "pictures": pictures,
            "mean_confidence": None,
            "diagram": None,
        }
        if confidence is not None and levels is not None:
            shown = heat(read_small(confidence, width)[0] / (LEVELS - 1))
            pictures.append(("Confidence, dark (0) to bright (1)", "Confidence map", embedded(shown, "JPEG", WIDE)))
            sums = levels @ np.arange(LEVELS)
            facts["mean_confidence"] = sums / (LEVELS - 1) / levels.sum(axis=1).clip(1)
            facts["diagram"] = histogram(levels.sum(axis=0))
    return facts


def points_map(found: Accuracy) -> dict[str, Any] | None:
    """A picture of the labelled points on the map: its size, the map below, and where the two agree and disagree."""
    located, classes = found.located, found.classes
    if located is None:
        return None
    scale = POINTS_SIDE / max(located.size)
    below = None
    if located.overview is not None:
        known = np.where(located.overview < len(classes), located.overview, classes.ignore_index)
        below = embedded(colourise(known, classes), side=WIDE)
    right = located.mapped == located.reference
    columns = (located.columns, located.rows, located.mapped, located.reference)
    symbols = [
        (
            f"{(column + 0.5) * scale:.1f}",
            f"{(row + 0.5) * scale:.1f}",
            f"row {row}, column {column}: mapped {classes.names[mapped]}, reference {classes.names[reference]}",
        )
        for column, row, mapped, reference in zip(*(part.tolist() for part in columns), strict=True)
    ]
    return {
        "width": round(located.size[1] * scale),
        "height": round(located.size[0] * scale),
        "below": below,
        "right": [symbol for symbol, same in zip(symbols, right.tolist(), strict=True) if same],
        "wrong": [symbol for symbol, same in zip(symbols, right.tolist(), strict=True) if not same],
    }


def _card(source: LabelMap) -> Card | None:
    """The card of the model that made the map, as the map's tags have it."""
    with contextlib.suppress(KeyError, ValueError):
        return Card.model_validate_json(source.raster.tags()["regard_card"])
    return None


def _levels(source: LabelMap, confidence: Path) -> Levels:
    """Pixels by class and level of confidence."""
    with open_confidence(confidence, source) as layer:
        count = len(source.classes)
        total = np.zeros(count * LEVELS, np.int64)
        for top, labels in source.strips():
            values = layer.read(Box(top, 0, *labels.shape))[0][0]
            known = (labels < count) & (values > 0)
            codes = labels[known].astype(np.int64) * LEVELS + values[known]
            total += np.bincount(codes, minlength=count * LEVELS)
    return total.reshape(count, LEVELS)
