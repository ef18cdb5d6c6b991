"""Inspect one pixel: its class probabilities, and overlays of attention, object regions and channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from regard.errors import ConfigError
from regard.explain.explain import explain, has_attention
from regard.explain.explanation import Explanation
from regard.inference.pictures import data_uri
from regard.io.raster import Box
from regard.mapping.region import Regions
from regard.models import Segmenter
from regard.web.grid import Grid
from regard.web.live_prediction import Photograph
from regard.web.png import heat_png

LARGEST = 384  # pixels of an overlay
MOST_REGIONS = 8


def inspect(
    model: Segmenter,
    path: Path,
    grid: Grid,
    regions: Regions | Photograph,
    point: tuple[float, float],
    *,
    bands: tuple[int | str, ...] | None,
) -> dict[str, Any]:
    """Probabilities of the pixel under a ``point`` of the page, and overlays of what it attends to.

    Raises:
        ConfigError: the point is outside the scene, or holds no data.
    """
    column, row = grid.locate(*point)
    height, width = grid.size
    if not (0 <= column < width and 0 <= row < height):  # False for what is not finite, too
        raise ConfigError(f"{path.name} does not reach there; it is {width} x {height} pixels. Choose a pixel inside.")
    x, y = int(column), int(row)
    why = explain(model, path, (x, y), bands=bands, tile=regions.tile) if has_attention(model) else None
    probabilities = regions.probabilities(x, y) if why is None or isinstance(regions, Regions) else why.probabilities
    return {
        "x": x,
        "y": y,
        "class": int(probabilities.argmax()),
        "probabilities": probabilities.tolist(),
        "overlays": [] if why is None else list(_overlays(why, grid)),
    }


def _overlays(why: Explanation, grid: Grid) -> Iterator[dict[str, Any]]:
    """Attention weights, object regions with the largest weights, channels that separate the class best."""
    for name, row in why.attention.items():
        yield {"group": "Attention", "name": name, "gate": why.gates.get(name), **_overlay(why, grid, row)}
    if why.regions is not None:
        for k in np.argsort(-why.region_weights, kind="stable")[:MOST_REGIONS]:
            name, weight = why.classes.names[k], float(why.region_weights[k])
            yield {"group": "Regions", "name": name, "weight": weight, **_overlay(why, grid, why.regions[k])}
    for number, values in why.channels.items():
        yield {"group": "Channels", "name": f"channel {number}", **_overlay(why, grid, values, shares=False)}


def _overlay(why: Explanation, grid: Grid, values: Float[np.ndarray, "_ _"], *, shares: bool = True) -> dict[str, Any]:
    """A feature map as a picture, with its corners on the page and the ends of its colour scale.

    ``shares`` are shown as multiples of uniform attention, on a scale from 0 to 2 at least; other values in standard
    deviations.
    """
    smooth = why.on_picture(values * values.size if shares else (values - values.mean()) / (values.std() + 1e-12))
    low, high = np.percentile(smooth, (1, 99))
    low, high = (0.0, max(high, 2.0)) if shares else (low, max(high, low + 1e-6))
    strength = (1 + 254 * ((smooth - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    box = Box(why.origin[1], why.origin[0], *why.where.shape)
    extent = grid.around(box)
    wide, tall = abs(extent[2] - extent[0]), abs(extent[3] - extent[1])
    scale = min(LARGEST, max(box.height, box.width)) / max(wide, tall)
    places = grid.places(extent, (max(1, round(tall * scale)), max(1, round(wide * scale))))
    inside, rows, columns = places.within(box)
    picture = np.zeros(inside.shape, np.uint8)
    picture[inside] = strength[rows, columns]
    return {
        "corners": grid.corners(extent),
        "scale": [float(low), float(high)],
        "unit": "× uniform attention" if shares else "standard deviations",
        "picture": data_uri(heat_png(picture, "inferno", (0.35, 0.9))),
    }
